//! Why the run failed: one error, from the many shapes in which SDKs, proxies and the server
//! itself report one.

use std::{
    borrow::Cow,
    error::Error,
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::{
    FailureEvent, FailureKind,
    report::{self, report},
    text::{Placed, Text, fields, place},
};
use crate::error::ParseError;

/// How many causes are followed, and how often JSON inside a text is looked into.
const MAX_DEPTH: usize = 16;

/// The error that ended the run.
///
/// `message` is the message that a person needs, whatever shape the error came in: it sees through
/// the answer of an SDK that is a bare string, through JSON inside the message, and through the
/// form that servers sent in 2023.
///
/// Its `Display` is the message; [`source`](Error::source) is the cause.
///
/// # Examples
///
/// ```
/// # let event: inngest_failure::FailureEvent = r#"{"name":"inngest/function.failed","data":{
/// #   "function_id":"shop-checkout","run_id":"r1",
/// #   "error":{"error":"invalid status code: 500","name":"CardError","message":"card declined",
/// #     "cause":{"name":"TypeError","message":"no such card"}},
/// #   "result":{"name":"CardError","message":"card declined","code":"card_declined","decline":"stolen"}}}"#.parse()?;
/// #[derive(serde::Deserialize)]
/// struct Decline {
///     decline: String,
/// }
///
/// let error = event.error();
/// assert_eq!(error.name, "CardError");
/// assert_eq!(error.message, "card declined");
/// assert_eq!(error.cause.as_ref().unwrap().message, "no such card");
/// assert_eq!(error.code(), Some("card_declined"));
/// assert_eq!(error.details::<Decline>()?.decline, "stolen");
/// # Ok::<(), inngest_failure::ParseError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct FailureError {
    /// The class of the error; `Error` where the SDK gave none, `Cancelled` for a cancelled run. In older
    /// shapes it is not what stands in `data.error.name`, which is what the attribute's `error` means.
    pub name: String,
    /// What a person needs to know.
    pub message: String,
    /// The stack trace or traceback, if the SDK gave one.
    pub stack: Option<String>,
    /// The error that caused this one.
    pub cause: Option<Box<FailureError>>,
    origin: Origin,
    code: OnceLock<Option<String>>,
}

/// Where the fields stand that an SDK adds to an error.
#[derive(Clone)]
enum Origin {
    /// In `data.result` or `data.error` of the failure event.
    Event(FailureEvent),
    /// In the object at this place of the failure event's text.
    Cause(FailureEvent, Range<usize>),
    /// In the object at this place of a text of its own: the form of 2023, a step's error.
    Body(Arc<str>, Range<usize>),
    /// Nowhere: the error is this program's.
    Own,
}

impl FailureError {
    /// The error code, such as `card_declined` or `ECONNREFUSED`, if the SDK passed one on. A
    /// number is given as its text.
    pub fn code(&self) -> Option<&str> {
        self.code
            .get_or_init(|| {
                // `data.error` drops the code that `data.result` may have, and the other way round.
                self.objects().iter().find_map(|json| {
                    match serde_json::from_str(fields(json)?.get("code")?.get()).ok()? {
                        Value::String(code) => Some(code),
                        Value::Number(code) => Some(code.to_string()),
                        _ => None,
                    }
                })
            })
            .as_deref()
    }

    /// The fields that the SDK added to the error, beyond name and message, as `D`.
    ///
    /// They are read from the SDK's full answer (`data.result`) if it fits, else from `data.error`; those of a
    /// [cause](Self::cause) from the cause.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if `D` does not fit.
    pub fn details<D: DeserializeOwned>(&self) -> Result<D, ParseError> {
        let mut first = None;
        for json in self.objects() {
            let mut deserializer = serde_json::Deserializer::from_str(json);
            match serde_path_to_error::deserialize(&mut deserializer) {
                Ok(details) => return Ok(details),
                Err(error) => {
                    first.get_or_insert_with(|| ParseError::details::<D>(&error));
                }
            }
        }
        Err(first.unwrap_or_else(ParseError::no_details::<D>))
    }

    /// The longest [`report`](Self::report), in characters: 2,000.
    pub const MAX_REPORT_CHARS: usize = report::MAX_CHARS;

    /// The error for a person who reads an alert: name and message, the causes, and the stack, of which the program's
    /// own code comes first and libraries and the runtime after it. It ends without a line's end.
    ///
    /// In each of the two the most recent call comes first, as JavaScript and Rust have it; Python's tracebacks
    /// are turned round. A frame keeps the lines that belong to it, and a stack in which there are no frames is
    /// shown as it is. If the error has no stack, it is that of the nearest cause that has one.
    ///
    /// It is never longer than [`MAX_REPORT_CHARS`](Self::MAX_REPORT_CHARS), and says where something was
    /// left out of it, and how much. What an error says comes from outside: terminal escape sequences, and control
    /// characters other than line breaks, are taken out, and all lines that a message has after its first one are
    /// indented. To Slack, HTML or Markdown it is still text that has to be escaped.
    ///
    /// # Examples
    ///
    /// ```
    /// # let event: inngest_failure::FailureEvent = r#"{"name":"inngest/function.failed","data":{
    /// #   "function_id":"shop-checkout","run_id":"r1",
    /// #   "error":{"error":"invalid status code: 500","name":"CardError","message":"card declined",
    /// #     "stack":"CardError: card declined\n    at post (/srv/app/node_modules/bank/index.js:9:11)\n    at charge (/srv/app/checkout.js:20:5)",
    /// #     "cause":{"name":"TypeError","message":"no such card"}}}}"#.parse()?;
    /// assert_eq!(event.error().report(), "\
    /// CardError: card declined
    /// caused by: TypeError: no such card
    /// own code:
    ///     at charge (/srv/app/checkout.js:20:5)
    /// libraries:
    ///     at post (/srv/app/node_modules/bank/index.js:9:11)");
    /// # Ok::<(), inngest_failure::ParseError>(())
    /// ```
    pub fn report(&self) -> String {
        report(self)
    }

    /// The JSON in which the SDK's own fields may stand, the fullest first.
    fn objects(&self) -> Vec<&str> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(borrow)]
            data: Data<'a>,
        }
        #[derive(Deserialize)]
        struct Data<'a> {
            #[serde(borrow)]
            error: Option<&'a RawValue>,
        }
        match &self.origin {
            Origin::Cause(event, place) => vec![&event.inner.text[place.clone()]],
            Origin::Body(text, place) => vec![&text[place.clone()]],
            Origin::Own => Vec::new(),
            Origin::Event(event) => {
                let text = &event.inner.text;
                let result = event.inner.error.result.clone().map(|place| &text[place]);
                let error: Option<Event<'_>> = serde_json::from_str(event.raw().get()).ok();
                let error = error.and_then(|event| event.data.error).map(RawValue::get);
                result.into_iter().chain(error).collect()
            }
        }
    }

    /// An error of this program.
    pub(crate) fn own(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            message: message.into(),
            stack: None,
            cause: None,
            origin: Origin::Own,
            code: OnceLock::new(),
        }
    }

    pub(super) fn of(event: &FailureEvent) -> Self {
        let text = &*event.inner.text;
        let placed = &event.inner.error;
        if placed.is_absent && event.inner.kind == FailureKind::Cancelled {
            return Self::cancelled(event);
        }
        let wire = placed.wire(text);
        if let (Some(body), None) = (&wire.body, &wire.message) {
            return Self::from_body(&body.0);
        }
        let result = placed.result.clone().map(|place| &text[place]);
        // The SDK's own answer is read only if the server's digest of it lacks something.
        let answer = OnceLock::new();
        let answer = || answer.get_or_init(|| Answer::new(result));

        let is_summary = wire.message.is_none() || wire.message == wire.error;
        let message = wire.message.and_then(Text::non_empty).map(Text::into_string);
        let message = match message {
            Some(message) if !is_summary => message,
            summary => answer()
                .message()
                .or(summary)
                .or(wire.error.map(Text::into_string))
                .unwrap_or_else(|| "the failure event says nothing of the error".to_owned()),
        };
        let seen = see_through(&message, 0);
        let name = own(wire.name).or(seen.name).or_else(|| own(answer().object.name.clone()));
        let stack = own(wire.stack).or(seen.stack);
        // Most answers are long, for the stack, and have no cause: a search is cheaper than a parse.
        let may_have_cause = || result.is_some_and(|result| result.contains("\"cause\""));
        let cause =
            wire.cause.or_else(|| may_have_cause().then(|| answer().object.cause).flatten());
        let cause = cause.and_then(|cause| {
            Self::from_cause(text, cause, 0, &|place| Origin::Cause(event.clone(), place))
        });
        Self {
            name: name.unwrap_or_else(default_name),
            message: seen.message.unwrap_or(message),
            stack: stack.or_else(|| own(answer().object.stack.clone())),
            cause,
            origin: Origin::Event(event.clone()),
            code: OnceLock::new(),
        }
    }

    /// What stands for the error of a cancelled run, which has none.
    fn cancelled(event: &FailureEvent) -> Self {
        Self {
            name: "Cancelled".to_owned(),
            message: "the run was cancelled".to_owned(),
            stack: None,
            cause: None,
            origin: Origin::Event(event.clone()),
            code: OnceLock::new(),
        }
    }

    /// The JSON text of an SDK's error: the form of 2023, or a step's error.
    pub(crate) fn from_body(body: &str) -> Self {
        let seen = see_through(body, 0);
        let text: Arc<str> = body.into();
        let wire: WireError<'_> = serde_json::from_str(&text).unwrap_or_default();
        let (name, stack) = (own(wire.name), own(wire.stack));
        let cause = wire.cause.and_then(|cause| {
            Self::from_cause(&text, cause, 0, &|place| Origin::Body(Arc::clone(&text), place))
        });
        Self {
            name: seen.name.or(name).unwrap_or_else(default_name),
            message: seen.message.unwrap_or_else(|| body.to_owned()),
            stack: seen.stack.or(stack),
            cause,
            origin: Origin::Body(Arc::clone(&text), 0..text.len()),
            code: OnceLock::new(),
        }
    }

    /// A cause, borrowed from `text`: an error of the same shape, or any JSON.
    fn from_cause(
        text: &str,
        json: &str,
        depth: usize,
        origin: &dyn Fn(Range<usize>) -> Origin,
    ) -> Option<Box<Self>> {
        if depth == MAX_DEPTH || json == "null" {
            return None;
        }
        let wire = WireError::from_any(json);
        let message = wire.message.or(wire.error);
        Some(Box::new(Self {
            name: own(wire.name).unwrap_or_else(default_name),
            message: message.map_or_else(|| json.to_owned(), Text::into_string),
            stack: own(wire.stack),
            cause: wire.cause.and_then(|cause| Self::from_cause(text, cause, depth + 1, origin)),
            origin: origin(place(text, json)),
            code: OnceLock::new(),
        }))
    }
}

impl Error for FailureError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl fmt::Display for FailureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for FailureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureError")
            .field("name", &self.name)
            .field("message", &self.message)
            .field("stack", &self.stack)
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

/// Two errors are equal if a person could not tell them apart: by name, message, stack and cause.
impl PartialEq for FailureError {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.message == other.message
            && self.stack == other.stack
            && self.cause == other.cause
    }
}

/// An error as it stands in `data.error`.
#[derive(Default, Deserialize)]
pub(super) struct WireError<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    error: Option<Text<'a>>,
    #[serde(borrow)]
    message: Option<Text<'a>>,
    #[serde(borrow)]
    stack: Option<Text<'a>>,
    #[serde(borrow)]
    body: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "json")]
    cause: Option<&'a str>,
}

fn json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de str>, D::Error> {
    let json: Option<&RawValue> = Deserialize::deserialize(deserializer)?;
    Ok(json.map(RawValue::get))
}

impl<'a> WireError<'a> {
    /// Makes the best of an error that is any JSON: what is not a text becomes one.
    pub(super) fn from_any(json: &'a str) -> Self {
        let Some(fields) = fields(json) else {
            let text = serde_json::from_str(json).unwrap_or(Text(Cow::Borrowed(json)));
            return Self { message: Some(text), ..Self::default() };
        };
        let field = |name| fields.get(name).copied().filter(|json| json.get() != "null");
        Self {
            name: field("name").map(Text::of_any),
            error: field("error").map(Text::of_any),
            message: field("message").map(Text::of_any),
            stack: field("stack").map(Text::of_any),
            body: field("body").map(Text::of_any),
            cause: field("cause").map(RawValue::get),
        }
    }
}

/// An error whose parts are left in the failure event's text.
#[derive(Debug, Default)]
pub(super) struct PlacedError {
    is_absent: bool,
    name: Option<Placed>,
    error: Option<Placed>,
    message: Option<Placed>,
    stack: Option<Placed>,
    body: Option<Placed>,
    cause: Option<Range<usize>>,
    /// The SDK's own answer, `data.result`.
    result: Option<Range<usize>>,
}

impl PlacedError {
    /// Both were borrowed from `text`.
    pub(super) fn new(text: &str, wire: Option<WireError<'_>>, result: Option<&RawValue>) -> Self {
        let is_absent = wire.is_none();
        let wire = wire.unwrap_or_default();
        let placed = |part| Placed::new(text, part);
        Self {
            is_absent,
            name: wire.name.map(placed),
            error: wire.error.map(placed),
            message: wire.message.map(placed),
            stack: wire.stack.map(placed),
            body: wire.body.map(placed),
            cause: wire.cause.map(|cause| place(text, cause)),
            result: result.map(|result| place(text, result.get())),
        }
    }

    /// `data.error.name`, which is what a selector's `error` is held against.
    pub(super) fn name<'a>(&'a self, text: &'a str) -> Option<&'a str> {
        self.name.as_ref().map(|name| name.get(text))
    }

    fn wire<'a>(&'a self, text: &'a str) -> WireError<'a> {
        let part = |part: &'a Option<Placed>| Some(Text(Cow::Borrowed(part.as_ref()?.get(text))));
        WireError {
            name: part(&self.name),
            error: part(&self.error),
            message: part(&self.message),
            stack: part(&self.stack),
            body: part(&self.body),
            cause: self.cause.clone().map(|place| &text[place]),
        }
    }
}

/// The SDK's raw answer, `data.result`: a text, an object, or nothing of use.
struct Answer<'a> {
    text: Option<String>,
    object: WireError<'a>,
}

impl<'a> Answer<'a> {
    fn new(result: Option<&'a str>) -> Self {
        let text = result.and_then(|result| serde_json::from_str(result).ok());
        let object = result.filter(|result| result.starts_with('{'));
        Self { text, object: object.map(WireError::from_any).unwrap_or_default() }
    }

    fn message(&self) -> Option<String> {
        let text = self.text.clone().filter(|text| !text.is_empty());
        text.or_else(|| own(self.object.message.clone()))
    }
}

/// What stands inside a message that is itself the JSON text of an error.
#[derive(Default)]
struct Seen {
    name: Option<String>,
    message: Option<String>,
    stack: Option<String>,
}

fn see_through(message: &str, depth: usize) -> Seen {
    if depth == MAX_DEPTH || !message.trim_start().starts_with(['{', '"']) {
        return Seen::default();
    }
    let Ok(json) = serde_json::from_str::<&RawValue>(message) else {
        return Seen::default();
    };
    // Of a string it makes the message.
    let wire = WireError::from_any(json.get());
    // `{"error": {"message": ..}}` says it deeper down, and a message may be JSON once more.
    let Some(text) = wire.message.and_then(Text::non_empty).or(wire.error) else {
        return Seen::default();
    };
    let inner = see_through(&text.0, depth + 1);
    Seen {
        name: own(wire.name).or(inner.name),
        message: Some(inner.message.unwrap_or_else(|| text.into_string())),
        stack: own(wire.stack).or(inner.stack),
    }
}

/// A text of its own, if there is something in it.
fn own(text: Option<Text<'_>>) -> Option<String> {
    text.and_then(Text::non_empty).map(Text::into_string)
}

fn default_name() -> String {
    "Error".to_owned()
}
