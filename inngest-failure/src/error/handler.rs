//! What a handler fails with, and whether it is tried again.

use std::{error::Error, fmt, time::Duration};

use super::BoxError;
use crate::event::FailureError;

/// What a handler fails with.
///
/// It is not an error itself but takes every one that is `Send + Sync + 'static`: `?` turns any such
/// [`std::error::Error`], boxed or not, `anyhow::Error`, `eyre::Report` or text into one. It goes into no
/// other error: mark a `Result<_, HandlerError>` with `.map_err(HandlerError::non_retriable)`. The handler is then tried again,
/// until its retries are used up, unless something in the chain of causes says otherwise:
/// [`NonRetriable`] or [`RetryAfter`], whichever stands outermost.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inngest_failure::{HandlerError, ResultExt};
///
/// fn refund(order_id: &str, cents: &str) -> Result<(), HandlerError> {
///     let cents: u64 = cents.parse().non_retriable()?;    // no retry will mend it
///     if cents > 100_000 {
///         return Err("too much to refund at once".into()); // tried again
///     }
///     if order_id.is_empty() {
///         return Err(HandlerError::retry_after("not yet settled", Duration::from_secs(60)));
///     }
///     Ok(())
/// }
///
/// assert!(!refund("o1", "twelve").unwrap_err().is_retriable());
/// assert!(refund("o1", "120000").unwrap_err().is_retriable());
/// assert_eq!(refund("", "12").unwrap_err().retry_delay(), Some(Duration::from_secs(60)));
/// ```
pub struct HandlerError {
    error: BoxError,
}

impl HandlerError {
    /// An error that no retry will mend.
    pub fn non_retriable(error: impl Into<Self>) -> Self {
        Self { error: Box::new(NonRetriable::new(error.into().error)) }
    }

    /// An error after which the handler is tried again, but not before `delay` is over.
    pub fn retry_after(error: impl Into<Self>, delay: Duration) -> Self {
        Self { error: Box::new(RetryAfter::new(error.into().error, delay)) }
    }

    /// Whether another attempt makes sense.
    pub fn is_retriable(&self) -> bool {
        !matches!(self.verdict(), Some(Verdict::NonRetriable))
    }

    /// How long to wait before the next attempt, if the error says so.
    pub fn retry_delay(&self) -> Option<Duration> {
        match self.verdict() {
            Some(Verdict::RetryAfter(delay)) => Some(delay),
            _ => None,
        }
    }

    /// The first error of this type in the chain of causes.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        errors(&*self.error).find_map(|error| {
            let meant = error.downcast_ref::<Meaning>().and_then(|meaning| {
                let inner: &(dyn Error + 'static) = &*meaning.inner;
                inner.downcast_ref()
            });
            error.downcast_ref().or(meant)
        })
    }

    /// The chain of messages, outermost first, as a log line shows it.
    pub fn chain(&self) -> impl fmt::Display + '_ {
        Chain(&*self.error)
    }

    /// The error as Inngest has it: name, message, stack, and the causes. A step's error in the chain is what it was
    /// in the step.
    pub(crate) fn describe(&self) -> FailureError {
        self.describe_as(|_, of_step| of_step)
    }

    /// The same, with the message that says which step it was.
    pub(crate) fn describe_with_step(&self) -> FailureError {
        self.describe_as(|message, of_step| {
            let mut error = FailureError::own("StepError", message);
            error.cause = Some(Box::new(of_step));
            error
        })
    }

    fn describe_as(&self, step: impl FnOnce(String, FailureError) -> FailureError) -> FailureError {
        let mut described = Vec::new();
        let mut innermost = None;
        for error in told(&*self.error) {
            if let Some(of_step) = of_step(error) {
                innermost = Some(step(error.to_string(), of_step.clone()));
                break;
            }
            described.push(error.to_string());
        }
        let wrap = |cause: Option<FailureError>, message| {
            let mut error = FailureError::own("Error", message);
            error.cause = cause.map(Box::new);
            Some(error)
        };
        let outermost = described.into_iter().rev().fold(innermost, wrap);
        outermost.unwrap_or_else(|| FailureError::own("Error", ""))
    }

    /// The outermost meaning in the chain of causes.
    fn verdict(&self) -> Option<Verdict> {
        let meaning = errors(&*self.error).find_map(|error| error.downcast_ref::<Meaning>());
        meaning.map(|meaning| meaning.verdict)
    }

    /// The error itself if it is an `E`, whatever stands below it.
    pub(crate) fn downcast<E: Error + 'static>(self) -> Result<E, Self> {
        self.error.downcast().map(|error| *error).map_err(|error| Self { error })
    }
}

impl<E: Into<BoxError>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self { error: error.into() }
    }
}

/// The outermost message.
impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// The chain of messages and whether the handler is tried again.
impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("HandlerError");
        debug.field("error", &format_args!("{}", self.chain()));
        match self.verdict() {
            None => debug.field("retriable", &true),
            Some(Verdict::NonRetriable) => debug.field("retriable", &false),
            Some(Verdict::RetryAfter(delay)) => debug.field("retry_after", &delay),
        };
        debug.finish()
    }
}

/// An error and its causes, as far as one would read: a chain may be a circle.
fn errors<'a>(
    outermost: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    const MAX_DEPTH: usize = 64;
    let mut next = Some(outermost);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
    .take(MAX_DEPTH)
}

/// The chain of messages of any error, outermost first.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    Chain(error)
}

/// Errors and causes, outermost first, each that says something new.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in told(self.0).enumerate() {
            let separator = if i == 0 { "" } else { ": " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

/// The errors of the chain that say something.
fn told<'a>(
    outermost: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    errors(outermost).filter(|error| !error.is::<Meaning>())
}

/// The error of a step that this one is, also where its own type is hidden.
fn of_step<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a FailureError> {
    error.source()?.downcast_ref::<Meaning>()?.inner.downcast_ref()
}

/// What is to happen next.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    NonRetriable,
    RetryAfter(Duration),
}

/// The meaning of an error, as the *source* of the public type that carries it.
///
/// `anyhow` and `eyre` hide the type of the error that they take, but not its sources: so the
/// meaning is found wherever the error was put. It stands in the chain in place of the error that it
/// was made from, whose own causes follow.
#[derive(Debug)]
pub(super) struct Meaning {
    verdict: Verdict,
    inner: BoxError,
}

impl Meaning {
    pub(super) fn non_retriable(inner: BoxError) -> Self {
        Self { verdict: Verdict::NonRetriable, inner }
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict {
            Verdict::NonRetriable => f.write_str("not to be retried"),
            Verdict::RetryAfter(delay) => write!(f, "to be retried after {delay:?}"),
        }
    }
}

impl Error for Meaning {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.source()
    }
}

/// An error that no retry will mend.
///
/// Made by [`ResultExt::non_retriable`] or [`new`](Self::new). It may be wrapped, in an error of
/// yours, `anyhow` or `eyre`: it is found along the chain of causes. It is not found where it is itself the
/// *context* of another error (`.context(NonRetriable::new(..))`), for `anyhow` and `eyre` hide that one's
/// causes: mark the result instead, with [`ResultExt::non_retriable`].
///
/// # Examples
///
/// ```
/// use inngest_failure::{HandlerError, NonRetriable};
///
/// let error = HandlerError::from(NonRetriable::new("the card has expired"));
/// assert!(!error.is_retriable());
/// ```
#[derive(Debug)]
pub struct NonRetriable {
    meaning: Meaning,
}

impl NonRetriable {
    /// Marks `error` as one that no retry will mend.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { meaning: Meaning::non_retriable(error.into()) }
    }
}

/// An error after which the handler is tried again, but not before some time is over.
///
/// Made by [`ResultExt::retry_after`] or [`new`](Self::new). It may be wrapped, in an error of
/// yours, `anyhow` or `eyre`: it is found along the chain of causes, but not where it is itself the *context* of
/// another error, as with [`NonRetriable`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inngest_failure::{HandlerError, RetryAfter};
///
/// let error = HandlerError::from(RetryAfter::new("rate limited", Duration::from_secs(30)));
/// assert_eq!(error.retry_delay(), Some(Duration::from_secs(30)));
/// ```
#[derive(Debug)]
pub struct RetryAfter {
    meaning: Meaning,
}

impl RetryAfter {
    /// Marks `error` as one after which to wait for `delay`.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>, delay: Duration) -> Self {
        let verdict = Verdict::RetryAfter(delay);
        Self { meaning: Meaning { verdict, inner: error.into() } }
    }
}

macro_rules! meaningful {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.meaning.inner.fmt(f)
            }
        }

        impl Error for $name {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.meaning)
            }
        }
    )*};
}

meaningful!(NonRetriable RetryAfter);

/// Says of a result's error whether it is worth another attempt.
///
/// # Examples
///
/// ```
/// use inngest_failure::{HandlerError, ResultExt};
///
/// fn cents(text: &str) -> Result<u64, HandlerError> {
///     Ok(text.parse().non_retriable()?)
/// }
///
/// assert!(!cents("twelve").unwrap_err().is_retriable());
/// ```
pub trait ResultExt<T> {
    /// No retry will mend the error.
    ///
    /// # Errors
    ///
    /// The result's own, marked.
    fn non_retriable(self) -> Result<T, NonRetriable>;

    /// The handler is tried again, but not before `delay` is over.
    ///
    /// # Errors
    ///
    /// The result's own, marked.
    fn retry_after(self, delay: Duration) -> Result<T, RetryAfter>;
}

impl<T, E: Into<BoxError>> ResultExt<T> for Result<T, E> {
    fn non_retriable(self) -> Result<T, NonRetriable> {
        self.map_err(NonRetriable::new)
    }

    fn retry_after(self, delay: Duration) -> Result<T, RetryAfter> {
        self.map_err(|error| RetryAfter::new(error, delay))
    }
}
