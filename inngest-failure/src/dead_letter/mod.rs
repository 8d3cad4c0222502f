//! Dead letters: failures whose handler has failed for good.

mod json_lines;
#[cfg(feature = "api")]
mod send_event;
mod sinks;

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

pub use self::json_lines::JsonLines;
#[cfg(feature = "cli")]
pub(crate) use self::json_lines::{json_line, private};
#[cfg(feature = "api")]
pub use self::send_event::SendEvent;
pub(crate) use self::sinks::Sinks;
use crate::{
    __private::BoxFuture,
    error::BoxError,
    event::{ErrorBody, FailureError, FailureEvent},
};

/// Where dead letters are kept, so that nothing is lost when a handler fails for good.
///
/// Give one, or several, to a dispatcher with [`dead_letters`](crate::DispatcherBuilder::dead_letters): [`JsonLines`]
/// writes them to a file, [`SendEvent`][send] tells Inngest; or write your own.
///
/// A letter is put before the handler's result is reported: in process before
/// [`dispatch`](crate::Dispatcher::dispatch) returns, under Inngest before the call is answered. A letter may be put
/// twice, as when Inngest has not got the answer and calls again: letters of one [key](DeadLetter::key) are the same.
///
#[cfg_attr(feature = "api", doc = "[send]: crate::SendEvent")]
#[cfg_attr(
    not(feature = "api"),
    doc = "[send]: https://docs.rs/inngest-failure/latest/inngest_failure/struct.SendEvent.html"
)]
///
/// # Examples
///
/// ```
/// use inngest_failure::{BoxError, BoxFuture, DeadLetter, DeadLetters};
///
/// /// Prints them.
/// struct Print;
///
/// impl DeadLetters for Print {
///     fn put<'a>(&'a self, letter: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
///         Box::pin(async move {
///             println!("{}", serde_json::to_string(letter)?);
///             Ok(())
///         })
///     }
/// }
/// ```
pub trait DeadLetters: Send + Sync {
    /// Keeps the letter: once this has succeeded it is not lost any more.
    ///
    /// It has 30 seconds. The handler's result stays what it was, whatever becomes of the letter.
    ///
    /// # Errors
    ///
    /// Any. The whole letter then goes to the log, at error level, and so it does if this panics, takes too long or is
    /// dropped.
    fn put<'a>(&'a self, letter: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>>;
}

impl<S: DeadLetters + ?Sized> DeadLetters for std::sync::Arc<S> {
    fn put<'a>(&'a self, letter: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
        (**self).put(letter)
    }
}

/// A failure whose handler has failed for good, with all that is needed to try again:
/// [`Dispatcher::retry`](crate::Dispatcher::retry) does.
///
/// As JSON it is an object with these fields, `event_id`, `function_id` and `run_id`; times are in RFC 3339.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use inngest_failure::{Dispatcher, HandlerError, JsonLines, handlers, on_failure};
///
/// #[on_failure(function = "checkout", app = "shop", retries = 0)]
/// async fn refund() -> Result<(), HandlerError> {
///     Err("the bank is closed".into())
/// }
///
/// # let path = std::env::temp_dir().join(format!("inngest-failure-{}.jsonl", std::process::id()));
/// let letters = JsonLines::open(&path)?;
/// let dispatcher = Dispatcher::builder()
///     .without_inventory()
///     .register(handlers![refund])
///     .dead_letters(letters.clone())
///     .build()?;
/// # let event = r#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout","run_id":"r1"}}"#.parse()?;
/// dispatcher.dispatch(event).await;
///
/// let letter = letters.letters()?.next().expect("one")?;
/// assert_eq!(letter.handler_id, "shop-checkout-failure");
/// assert_eq!(letter.error.message, "the bank is closed");
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The handler's id; [`UNHANDLED`](Self::UNHANDLED) if there was none for the failure.
    pub handler_id: String,
    /// The failure event as it came.
    pub event: FailureEvent,
    /// What the handler failed with, and its causes.
    pub error: FailureError,
    /// How many attempts were made; under Inngest, of what was tried last: a step, or the code outside of steps. None if
    /// that is not known, as of an undo under Inngest.
    pub attempts: Option<u32>,
    /// When the handler had failed for good.
    pub failed_at: SystemTime,
    /// The steps that the handler had completed, which need not run again.
    pub steps: Vec<CompletedStep>,
}

/// A step that a handler had completed, in a [`DeadLetter`].
#[derive(Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CompletedStep {
    /// Its id as Inngest has it, a SHA-1: each use of an id in a loop has one of its own.
    pub step_id: String,
    /// Its id as the handler has it, if that is known: a repetition has a number in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it had returned.
    pub output: Box<RawValue>,
}

impl DeadLetter {
    /// The `handler_id` in the letter of a failure that no handler took: no handler may have it.
    /// Such letters are written if the dispatcher [is asked to](crate::DispatcherBuilder::dead_letter_unhandled).
    pub const UNHANDLED: &str = "(unhandled)";

    /// The id of the failure event: see [`FailureEvent::id`].
    pub fn event_id(&self) -> &str {
        self.event.id()
    }

    /// What makes it the same letter as another one: the ids of the handler and of the event.
    ///
    /// # Examples
    ///
    /// ```
    /// # let letter: inngest_failure::DeadLetter = serde_json::from_str(r#"{"handler_id":"shop-checkout-failure",
    /// #   "failed_at":"2026-11-25T12:00:00Z","error":{"name":"Error","message":"closed"},
    /// #   "event":{"name":"inngest/function.failed","id":"e1","data":{"function_id":"shop-checkout","run_id":"r1"}}}"#)?;
    /// assert_eq!(letter.key(), ("shop-checkout-failure", "e1"));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn key(&self) -> (&str, &str) {
        (&self.handler_id, self.event_id())
    }

    /// Whether it is about a failure that no handler took.
    pub fn is_unhandled(&self) -> bool {
        self.handler_id == Self::UNHANDLED
    }
}

/// Shows which step it is, not what it returned.
impl fmt::Debug for CompletedStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletedStep")
            .field("step_id", &self.step_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A letter as it is written. What a person looks for comes first.
#[derive(Serialize)]
struct Written<'a> {
    handler_id: &'a str,
    event_id: &'a str,
    function_id: &'a str,
    run_id: &'a str,
    failed_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    error: ErrorBody,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    steps: &'a [CompletedStep],
    event: &'a FailureEvent,
}

/// A letter as it is read. What the event says as well is taken from there.
#[derive(Deserialize)]
struct Read<'a> {
    handler_id: String,
    #[serde(borrow)]
    failed_at: Cow<'a, str>,
    attempts: Option<u32>,
    error: ErrorBody,
    #[serde(default)]
    steps: Vec<CompletedStep>,
    event: Box<RawValue>,
}

impl Serialize for DeadLetter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            handler_id: &self.handler_id,
            event_id: self.event_id(),
            function_id: self.event.function_id(),
            run_id: self.event.run_id(),
            failed_at: rfc3339(self.failed_at),
            attempts: self.attempts,
            error: ErrorBody::of(&self.error),
            steps: &self.steps,
            event: &self.event,
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DeadLetter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { handler_id, failed_at, attempts, error, steps, event } =
            Read::deserialize(deserializer)?;
        let failed_at = humantime::parse_rfc3339(&failed_at)
            .map_err(|error| de::Error::custom(format!("`failed_at` is no time: {error}")))?;
        let event = event
            .get()
            .parse()
            .map_err(|error| de::Error::custom(format!("`event` is no failure event: {error}")))?;
        Ok(Self { handler_id, event, error: error.into(), attempts, failed_at, steps })
    }
}

/// The time as text, within the years that RFC 3339 has, of those since 1970.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST_SECOND);
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn letter(handler_id: &str, event_id: &str) -> DeadLetter {
        let event = json!({
            "name": "inngest/function.failed", "id": event_id,
            "data": { "function_id": "shop-checkout", "run_id": "r1", "event": { "name": "shop/order.placed" } },
        });
        DeadLetter {
            handler_id: handler_id.to_owned(),
            event: FailureEvent::try_from(event).unwrap(),
            error: FailureError::own("Error", "the bank is closed"),
            attempts: Some(4),
            failed_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_378_383_544),
            steps: vec![CompletedStep {
                step_id: "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8".to_owned(),
                name: Some("a".to_owned()),
                output: RawValue::from_string("[1]".to_owned()).unwrap(),
            }],
        }
    }

    #[test]
    fn a_letter_is_read_back_as_it_was_written() {
        let mut letter = letter("shop-checkout-failure", "e1");
        letter.error.cause = Some(Box::new(FailureError::own("Io", "refused")));
        let json = serde_json::to_string(&letter).unwrap();
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["failed_at"], "2026-11-22T20:13:03.544Z");
        assert_eq!(value["function_id"], "shop-checkout");
        assert_eq!(value["error"]["cause"], json!({ "name": "Io", "message": "refused" }));
        assert_eq!(value["steps"][0]["output"], json!([1]));
        let read: DeadLetter = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
        assert_eq!(read.key(), ("shop-checkout-failure", "e1"));
    }

    #[test]
    fn what_is_no_letter_says_what_is_wrong() {
        let error =
            |json: Value| serde_json::from_value::<DeadLetter>(json).unwrap_err().to_string();
        let mut letter = serde_json::to_value(letter("h", "e1")).unwrap();
        letter["event"] = json!({ "name": "shop/order.placed" });
        assert!(
            error(letter.clone()).starts_with("`event` is no failure event: "),
            "{}",
            error(letter.clone())
        );
        letter["failed_at"] = json!("yesterday");
        assert_eq!(error(letter), "`failed_at` is no time: timestamp format is invalid");
    }

    #[test]
    fn a_time_that_rfc_3339_has_not_is_no_panic() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(rfc3339(before), "1970-01-01T00:00:00.000Z");
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 60);
        assert_eq!(rfc3339(after), "9999-12-31T23:59:59.000Z");
    }
}
