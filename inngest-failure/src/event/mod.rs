//! The wire: the events that Inngest sends when a run has failed or was cancelled.

#[cfg(feature = "serve")]
mod call;
mod dashboard;
mod envelope;
mod error_body;
mod failure_error;
mod report;
mod stack;
mod text;
mod trigger;

use std::{
    fmt,
    ops::Deref,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

#[cfg(feature = "serve")]
use std::ops::Range;

#[cfg(feature = "serve")]
use bytestring::ByteString;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

pub(crate) use self::error_body::ErrorBody;
#[cfg(feature = "cli")]
pub(crate) use self::report::is_obeyed;
#[cfg(feature = "serve")]
pub(crate) use self::{call::call_from_str, text::place};
pub use self::{
    dashboard::Dashboard,
    failure_error::FailureError,
    trigger::{TriggerEvent, TriggerEvents},
};
use self::{
    failure_error::PlacedError,
    text::Placed,
    trigger::{PlacedEvents, PlacedTrigger},
};
use crate::error::ParseError;

/// The event name of a run that failed for good.
pub(crate) const FAILED: &str = "inngest/function.failed";
/// The event name of a run that was cancelled.
pub(crate) const CANCELLED: &str = "inngest/function.cancelled";

/// How the run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// It used up its retries, or failed with a non-retriable error: `inngest/function.failed`.
    Failed,
    /// An event, the API or one of Inngest's own time-outs cancelled it:
    /// `inngest/function.cancelled`.
    Cancelled,
}

impl FailureKind {
    /// The name of the event that Inngest sends for this kind.
    pub fn event_name(self) -> &'static str {
        match self {
            Self::Failed => FAILED,
            Self::Cancelled => CANCELLED,
        }
    }
}

/// A failure event as it came, cheap to clone.
///
/// It keeps the JSON text and reads only what every failure has; the data of the original event
/// is read by [`parse`](Self::parse), straight from that text, by whoever wants it. Fields that
/// this crate does not know stay reachable through [`raw`](Self::raw).
///
/// # Examples
///
/// ```
/// use inngest_failure::FailureEvent;
///
/// let event: FailureEvent = r#"{
///     "name": "inngest/function.failed",
///     "id": "01M82E82J0N0GBAMR1N91EZJJ6",
///     "ts": 1795378383544,
///     "data": {
///         "function_id": "shop-checkout",
///         "run_id": "01M82E82J0N0GBAMR1N91EZJJ6",
///         "error": { "name": "CardError", "message": "card declined" },
///         "event": { "id": "1", "name": "shop/order.placed", "data": { "order_id": "o1" }, "ts": 1 }
///     }
/// }"#
/// .parse()?;
///
/// assert_eq!(event.function_id(), "shop-checkout");
/// assert_eq!(event.error().message, "card declined");
///
/// let failure = event.parse::<serde_json::Value>()?;
/// assert_eq!(failure.event.data["order_id"], "o1");
/// # Ok::<(), inngest_failure::ParseError>(())
/// ```
#[derive(Clone)]
pub struct FailureEvent {
    inner: Arc<Inner>,
    #[cfg(feature = "testing")]
    trace: Option<Arc<crate::testing::TestTrace>>,
}

struct Inner {
    text: Kept,
    kind: FailureKind,
    function_id: Placed,
    /// One of the two is there.
    id: Option<Placed>,
    run_id: Option<Placed>,
    failed_at: SystemTime,
    correlation_id: Option<Placed>,
    error: PlacedError,
    event: PlacedTrigger,
    events: PlacedEvents,
}

/// The text of an event.
enum Kept {
    Alone(Box<str>),
    /// The body of the call in which it came.
    #[cfg(feature = "serve")]
    InCall(ByteString),
}

impl Deref for Kept {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Alone(event) => event,
            #[cfg(feature = "serve")]
            Self::InCall(body) => body,
        }
    }
}

impl Inner {
    fn raw(&self) -> &RawValue {
        let raw = match &self.text {
            Kept::Alone(event) => serde_json::from_str(event).ok(),
            #[cfg(feature = "serve")]
            Kept::InCall(body) => call::event_of_call(body),
        };
        raw.expect("the text was read as JSON when it came")
    }
}

impl FailureEvent {
    fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            #[cfg(feature = "testing")]
            trace: None,
        }
    }

    /// What a test says that the failed run had done.
    #[cfg(feature = "testing")]
    pub(crate) fn test_trace(&self) -> Option<&Arc<crate::testing::TestTrace>> {
        self.trace.as_ref()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn with_test_trace(mut self, trace: Arc<crate::testing::TestTrace>) -> Self {
        self.trace = Some(trace);
        self
    }

    /// The largest event that is read, in bytes: 4 MiB, which is what Inngest allows a whole call.
    pub const MAX_BYTES: usize = 4 * 1024 * 1024;

    /// Reads a failure event from JSON.
    ///
    /// The body of a whole call, as Inngest posts it to an SDK (`{"ctx": .., "event": ..}`), is
    /// taken as well: its `event` is read.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the bytes are larger than [`MAX_BYTES`](Self::MAX_BYTES), are not JSON in
    /// UTF-8, are another event, or lack `data.function_id` or the run's id.
    pub fn from_slice(json: &[u8]) -> Result<Self, ParseError> {
        envelope::check_size(json.len())?;
        let text = std::str::from_utf8(json).map_err(|error| ParseError::not_utf8(&error))?;
        text.parse()
    }

    /// Whether the run failed or was cancelled.
    pub fn kind(&self) -> FailureKind {
        self.inner.kind
    }

    /// The id of this event, which current servers make equal to the run's; the run's if it has none.
    pub fn id(&self) -> &str {
        self.inner.id.as_ref().or(self.inner.run_id.as_ref()).map_or("", |id| self.text(id))
    }

    /// The composite id of the function whose run failed: `{app}-{function}`.
    pub fn function_id(&self) -> &str {
        self.text(&self.inner.function_id)
    }

    /// The id of the run that failed; this event's if it does not say.
    pub fn run_id(&self) -> &str {
        self.inner.run_id.as_ref().or(self.inner.id.as_ref()).map_or("", |id| self.text(id))
    }

    /// When the run failed; the Unix epoch if the event does not say.
    pub fn failed_at(&self) -> SystemTime {
        self.inner.failed_at
    }

    /// A key for a request that must count once: see [`Failure::idempotency_key`].
    pub fn idempotency_key(&self, label: &str) -> String {
        idempotency_key(self.run_id(), label)
    }

    /// Where a person looks at the run that failed: see [`Failure::run_url`].
    pub fn run_url(&self, dashboard: &Dashboard) -> String {
        dashboard.run_url(self.run_id())
    }

    /// Why the run failed.
    pub fn error(&self) -> FailureError {
        FailureError::of(self)
    }

    /// The event's JSON as it came.
    ///
    /// # Examples
    ///
    /// ```
    /// # let event: inngest_failure::FailureEvent = r#"{"name":"inngest/function.failed",
    /// #   "data":{"function_id":"shop-checkout","run_id":"r1","_inngest":{"status":"Failed"}}}"#.parse()?;
    /// #[derive(serde::Deserialize)]
    /// struct Extra<'a> {
    ///     #[serde(borrow, rename = "data")]
    ///     data: Data<'a>,
    /// }
    /// #[derive(serde::Deserialize)]
    /// struct Data<'a> {
    ///     #[serde(borrow, rename = "_inngest")]
    ///     inngest: std::collections::HashMap<&'a str, &'a str>,
    /// }
    ///
    /// let extra: Extra = serde_json::from_str(event.raw().get())?;
    /// assert_eq!(extra.data.inngest["status"], "Failed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn raw(&self) -> &RawValue {
        self.inner.raw()
    }

    /// Reads the failure with the original event's data as `T`.
    ///
    /// A trigger without data, which arrives as `{}` or as `null`, fits every `T` that takes
    /// either.
    ///
    /// # Errors
    ///
    /// [`ParseError`], with the JSON path, if the original event's data does not fit `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<Failure<T>, ParseError> {
        let inner = &*self.inner;
        Ok(Failure {
            kind: inner.kind,
            function_id: self.function_id().to_owned(),
            run_id: self.run_id().to_owned(),
            event: inner.event.parse(&inner.text, "data.event")?,
            error: self.error(),
            events: TriggerEvents::new(self.clone()),
            failed_at: inner.failed_at,
            correlation_id: inner.correlation_id.as_ref().map(|id| self.text(id).to_owned()),
        })
    }

    /// Reads the failure event in the body of a call, in one pass and without a copy, its `ctx`, and where its steps
    /// are, if they are asked for. What follows them is left unread. `None` if one of them has another shape than nearly
    /// every one has.
    #[cfg(feature = "serve")]
    pub(crate) fn from_call<C: DeserializeOwned>(
        body: &ByteString,
        with_steps: bool,
    ) -> Option<(Self, C, Option<Range<usize>>)> {
        let (inner, ctx, steps) = call::read_call(body, with_steps)?;
        Some((Self::new(inner), ctx, steps))
    }

    /// `data.error.name` as it stands on the wire, which is what a selector's `error` is held against.
    pub(crate) fn wire_error_name(&self) -> Option<&str> {
        self.inner.error.name(&self.inner.text)
    }

    /// The name of the event that had started the failed function, if it is there.
    #[cfg(feature = "api")]
    pub(crate) fn trigger_name(&self) -> Option<&str> {
        self.inner.event.name(&self.inner.text)
    }

    fn text<'a>(&'a self, part: &'a Placed) -> &'a str {
        part.get(&self.inner.text)
    }
}

/// Reads a failure event from JSON text, as [`FailureEvent::from_slice`] does.
impl FromStr for FailureEvent {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        envelope::check_size(text.len())?;
        Ok(Self::new(envelope::read(text)?))
    }
}

/// Takes a failure event from a JSON value, as [`FailureEvent::from_slice`] does.
impl TryFrom<serde_json::Value> for FailureEvent {
    type Error = ParseError;

    fn try_from(value: serde_json::Value) -> Result<Self, ParseError> {
        value.to_string().parse()
    }
}

/// Writes the event's JSON as it came.
impl Serialize for FailureEvent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw().serialize(serializer)
    }
}

/// Shows what identifies the failure, not the original event's data.
impl fmt::Debug for FailureEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureEvent")
            .field("kind", &self.inner.kind)
            .field("function_id", &self.function_id())
            .field("run_id", &self.run_id())
            .field("error", &self.error())
            .finish_non_exhaustive()
    }
}

/// A failed or cancelled run, with the original event's data as `T`.
///
/// As an argument of a handler it is what the handler is about: which run failed, why, and the
/// event that had started it. If the data does not fit `T`, the handler does not run: that is final
/// ([`RunError::Payload`](crate::RunError::Payload)) and names the path and the type.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Failure, HandlerError, on_failure};
///
/// #[derive(serde::Deserialize)]
/// struct Order {
///     order_id: String,
/// }
///
/// #[on_failure(function = "checkout")]
/// async fn undo_checkout(failure: Failure<Order>) -> Result<(), HandlerError> {
///     println!("order {} failed: {}", failure.event.data.order_id, failure.error);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure<T = serde_json::Value> {
    /// Whether the run failed or was cancelled.
    pub kind: FailureKind,
    /// The composite id of the function whose run failed: `{app}-{function}`.
    pub function_id: String,
    /// The id of the run that failed.
    pub run_id: String,
    /// Why it failed.
    pub error: FailureError,
    /// The event that had started the run; the first one for a batched function.
    pub event: TriggerEvent<T>,
    /// All events that had started the run: more than one for a batched function.
    pub events: TriggerEvents<T>,
    /// When it failed; the Unix epoch if the event does not say.
    pub failed_at: SystemTime,
    /// What links the run to the `step.invoke` that had started it, if one had.
    pub correlation_id: Option<String>,
}

impl<T> Failure<T> {
    /// A key for a request that must count once, however often the handler runs: the id of the
    /// failed run and `label`.
    ///
    /// It is the same in every attempt and on every host, and different for every failed run and
    /// every label: what a payment provider wants as an idempotency key.
    ///
    /// # Examples
    ///
    /// ```
    /// # let event: inngest_failure::FailureEvent =
    /// #   r#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout","run_id":"01M8"}}"#.parse()?;
    /// # let failure = event.parse::<()>()?;
    /// assert_eq!(failure.idempotency_key("refund"), "01M8:refund");
    /// # Ok::<(), inngest_failure::ParseError>(())
    /// ```
    pub fn idempotency_key(&self, label: &str) -> String {
        idempotency_key(&self.run_id, label)
    }

    /// Where a person looks at the run that failed: the URL of its page on this dashboard.
    ///
    /// The run's id came from outside. It is escaped, so the URL leads to that dashboard whatever the id is.
    ///
    /// # Examples
    ///
    /// ```
    /// use inngest_failure::Dashboard;
    ///
    /// # let event: inngest_failure::FailureEvent =
    /// #   r#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout","run_id":"01M8"}}"#.parse()?;
    /// # let failure = event.parse::<()>()?;
    /// let url = failure.run_url(&Dashboard::cloud("production"));
    /// assert_eq!(url, "https://app.inngest.com/env/production/runs/01M8");
    /// # Ok::<(), inngest_failure::ParseError>(())
    /// ```
    pub fn run_url(&self, dashboard: &Dashboard) -> String {
        dashboard.run_url(&self.run_id)
    }
}

pub(crate) fn idempotency_key(run_id: &str, label: &str) -> String {
    format!("{run_id}:{label}")
}

/// The time that is `ms` milliseconds after the Unix epoch, the epoch itself where the platform's
/// clock does not reach that far.
fn time_from_millis(ms: i64) -> SystemTime {
    let distance = Duration::from_millis(ms.unsigned_abs());
    let time = if ms < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
