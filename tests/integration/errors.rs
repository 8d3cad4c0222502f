//! What handlers may fail with, and that its meaning survives.

use std::{error::Error, fmt, io, time::Duration};

use inngest_failure::{HandlerError, NonRetriable, ResultExt, RetryAfter};

const DELAY: Duration = Duration::from_secs(42);

#[derive(Debug)]
struct Wrapped(Box<dyn Error + Send + Sync>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("while refunding")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

fn io_error() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the bank is closed")
}

fn non_retriable() -> NonRetriable {
    Err::<(), _>(io_error()).non_retriable().unwrap_err()
}

fn retry_after() -> RetryAfter {
    Err::<(), _>(io_error()).retry_after(DELAY).unwrap_err()
}

#[track_caller]
fn check(error: impl Into<HandlerError>, retriable: bool, delay: Option<Duration>, chain: &str) {
    let error = error.into();
    assert_eq!((error.is_retriable(), error.retry_delay()), (retriable, delay), "{error:?}");
    assert_eq!(error.chain().to_string(), chain);
    assert_eq!(
        error.downcast_ref::<io::Error>().map(io::Error::kind),
        Some(io::ErrorKind::TimedOut),
        "the error itself is lost"
    );
}

#[test]
fn std_errors_keep_their_meaning() {
    check(io_error(), true, None, "the bank is closed");
    check(non_retriable(), false, None, "the bank is closed");
    check(retry_after(), true, Some(DELAY), "the bank is closed");
    let chain = "while refunding: the bank is closed";
    check(Wrapped(io_error().into()), true, None, chain);
    check(Wrapped(non_retriable().into()), false, None, chain);
    check(Wrapped(retry_after().into()), true, Some(DELAY), chain);
    let boxed: Box<dyn Error + Send + Sync> = non_retriable().into();
    check(boxed, false, None, "the bank is closed");
}

#[test]
fn the_meaning_of_the_outermost_counts() {
    check(RetryAfter::new(non_retriable(), DELAY), true, Some(DELAY), "the bank is closed");
    check(NonRetriable::new(retry_after()), false, None, "the bank is closed");
    check(HandlerError::non_retriable(io_error()), false, None, "the bank is closed");
    check(HandlerError::retry_after(io_error(), DELAY), true, Some(DELAY), "the bank is closed");
    check(
        HandlerError::non_retriable(Wrapped(io_error().into())),
        false,
        None,
        "while refunding: the bank is closed",
    );
}

/// `anyhow` and `eyre` hide an error's own type, so only the meaning is looked for.
#[track_caller]
fn check_meaning(
    error: impl Into<HandlerError>,
    retriable: bool,
    delay: Option<Duration>,
    chain: &str,
) {
    let error = error.into();
    assert_eq!((error.is_retriable(), error.retry_delay()), (retriable, delay), "{error:?}");
    assert_eq!(error.chain().to_string(), chain);
}

#[test]
fn anyhow_errors_keep_their_meaning_with_and_without_context() {
    use anyhow::{Context, Error};

    check_meaning(Error::new(io_error()), true, None, "the bank is closed");
    check_meaning(Error::new(non_retriable()), false, None, "the bank is closed");
    check_meaning(Error::new(retry_after()), true, Some(DELAY), "the bank is closed");
    let context =
        |error: Error| Err::<(), _>(error).context("refund").context("order 7").unwrap_err();
    let chain = "order 7: refund: the bank is closed";
    check_meaning(context(Error::new(io_error())), true, None, chain);
    check_meaning(context(Error::new(non_retriable())), false, None, chain);
    check_meaning(context(Error::new(retry_after())), true, Some(DELAY), chain);
    let marked = Err::<(), _>(anyhow::anyhow!("no such order").context("refund")).non_retriable();
    check_meaning(marked.unwrap_err(), false, None, "refund: no such order");
}

#[test]
fn eyre_reports_keep_their_meaning_with_and_without_context() {
    use eyre::{Report, WrapErr};

    check_meaning(Report::new(io_error()), true, None, "the bank is closed");
    check_meaning(Report::new(non_retriable()), false, None, "the bank is closed");
    check_meaning(Report::new(retry_after()), true, Some(DELAY), "the bank is closed");
    let context =
        |error: Report| Err::<(), _>(error).wrap_err("refund").wrap_err("order 7").unwrap_err();
    let chain = "order 7: refund: the bank is closed";
    check_meaning(context(Report::new(io_error())), true, None, chain);
    check_meaning(context(Report::new(non_retriable())), false, None, chain);
    check_meaning(context(Report::new(retry_after())), true, Some(DELAY), chain);
    let marked = Err::<(), _>(eyre::eyre!("no such order").wrap_err("refund")).retry_after(DELAY);
    check_meaning(marked.unwrap_err(), true, Some(DELAY), "refund: no such order");
}

#[test]
fn as_a_context_of_another_error_the_meaning_is_hidden() {
    // As the documentation says: `anyhow` and `eyre` do not pass on a context's own causes.
    let anyhow = anyhow::anyhow!("no such order").context(NonRetriable::new("refund"));
    assert!(HandlerError::from(anyhow).is_retriable());
    let eyre = eyre::eyre!("no such order").wrap_err(NonRetriable::new("refund"));
    assert!(HandlerError::from(eyre).is_retriable());
}

#[test]
fn a_chain_that_is_a_circle_ends() {
    #[derive(Debug)]
    struct Circle;

    impl fmt::Display for Circle {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("round")
        }
    }

    impl Error for Circle {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    let error = HandlerError::from(Circle);
    assert!(error.is_retriable() && error.downcast_ref::<io::Error>().is_none());
    assert_eq!(error.chain().to_string().matches("round").count(), 64);
}

#[test]
fn text_is_an_error() {
    check_meaning("plain", true, None, "plain");
    check_meaning(String::from("owned"), true, None, "owned");
    check_meaning(HandlerError::non_retriable("plain"), false, None, "plain");
    check_meaning(Err::<(), _>("plain").non_retriable().unwrap_err(), false, None, "plain");
}

#[test]
fn every_kind_of_error_passes_the_question_mark() {
    fn std_error() -> Result<(), HandlerError> {
        Ok(Err(io_error())?)
    }
    fn anyhow_error() -> Result<(), HandlerError> {
        Ok(Err(anyhow::anyhow!("no"))?)
    }
    fn eyre_report() -> Result<(), HandlerError> {
        Ok(Err(eyre::eyre!("no"))?)
    }
    fn text() -> Result<(), HandlerError> {
        Ok(Err("no")?)
    }
    fn marked() -> Result<(), HandlerError> {
        Ok("x".parse::<u32>().map(drop).non_retriable()?)
    }
    for fails in [std_error, anyhow_error, eyre_report, text] {
        assert!(fails().unwrap_err().is_retriable());
    }
    assert!(!marked().unwrap_err().is_retriable());
}

#[test]
fn its_debug_says_what_will_happen() {
    let debug = |error: HandlerError| format!("{error:?}");
    assert_eq!(debug("no".into()), "HandlerError { error: no, retriable: true }");
    assert_eq!(
        debug(HandlerError::non_retriable("no")),
        "HandlerError { error: no, retriable: false }"
    );
    assert_eq!(
        debug(HandlerError::retry_after("no", DELAY)),
        "HandlerError { error: no, retry_after: 42s }"
    );
}
