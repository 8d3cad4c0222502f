//! Why the run failed: one error, from the many shapes in which SDKs, proxies and the server
//! itself report one.

use std::{
    error::Error,
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::text::{Text, place};
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
    /// The class of the error; `Error` where the SDK gave none, `Cancelled` for a cancelled run.
    pub name: String,
    /// What a person needs to know.
    pub message: String,
    /// The stack trace or traceback, if the SDK gave one.
    pub stack: Option<String>,
    /// The error that caused this one.
    pub cause: Option<Box<FailureError>>,
    /// Whether `name` stands on the wire as `data.error.name`; otherwise it is a default, or seen
    /// through an older shape.
    named_on_wire: bool,
    origin: Origin,
    code: OnceLock<Option<String>>,
}

/// Where the fields stand that an SDK adds to an error.
#[derive(Clone)]
enum Origin {
    /// In `data.result` or `data.error` of the failure event with this text.
    Event(Arc<str>),
    /// In the object at this place of the text.
    Object(Arc<str>, Range<usize>),
}

impl FailureError {
    /// The error code, such as `card_declined` or `ECONNREFUSED`, if the SDK passed one on. A
    /// number is given as its text.
    pub fn code(&self) -> Option<&str> {
        #[derive(Deserialize)]
        struct Code {
            code: Option<Value>,
        }
        self.code
            .get_or_init(|| {
                // `data.error` drops the code that `data.result` may have, and the other way round.
                self.objects().iter().find_map(|json| {
                    match serde_json::from_str::<Code>(json).ok()?.code? {
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
    /// They are read from the SDK's full answer (`data.result`) where there is one, else from
    /// `data.error`.
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

    pub(super) fn wire_name(&self) -> Option<&str> {
        self.named_on_wire.then_some(&self.name)
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
            result: Option<&'a RawValue>,
            #[serde(borrow)]
            error: Option<&'a RawValue>,
        }
        match &self.origin {
            Origin::Object(text, place) => vec![&text[place.clone()]],
            Origin::Event(text) => match serde_json::from_str::<Event<'_>>(text) {
                Ok(Event { data }) => {
                    [data.result, data.error].into_iter().flatten().map(RawValue::get).collect()
                }
                Err(_) => Vec::new(),
            },
        }
    }

    /// What stands for the error of a cancelled run, which has none.
    pub(super) fn cancelled(event: &Arc<str>) -> Self {
        Self {
            name: "Cancelled".to_owned(),
            message: "the run was cancelled".to_owned(),
            stack: None,
            cause: None,
            named_on_wire: false,
            origin: Origin::Event(Arc::clone(event)),
            code: OnceLock::new(),
        }
    }

    /// `wire` and `result` are borrowed from `text`, of which `event` is a copy.
    pub(super) fn from_wire(
        wire: WireError<'_>,
        result: Option<&RawValue>,
        text: &str,
        event: &Arc<str>,
    ) -> Self {
        if let (Some(body), None) = (&wire.body, &wire.message) {
            return Self::from_body(&body.0);
        }
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
        let wire_name = wire.name.and_then(Text::non_empty).map(Text::into_string);
        let named_on_wire = wire_name.is_some();
        let name = wire_name
            .or(seen.name)
            .or_else(|| answer().object.name.as_ref().map(|name| name.0.clone().into_owned()));
        let stack = wire.stack.and_then(Text::non_empty).map(Text::into_string).or(seen.stack);
        // Most answers are long, for the stack, and have no cause: a search is cheaper than a parse.
        let may_have_cause = || result.is_some_and(|result| result.get().contains("\"cause\""));
        let cause =
            wire.cause.or_else(|| may_have_cause().then(|| answer().object.cause).flatten());
        Self {
            name: name.unwrap_or_else(default_name),
            message: seen.message.unwrap_or(message),
            stack: stack.or_else(|| answer().stack()),
            cause: cause.and_then(|cause| Self::from_cause(event, place(text, cause.get()), 0)),
            named_on_wire,
            origin: Origin::Event(Arc::clone(event)),
            code: OnceLock::new(),
        }
    }

    /// The form of 2023: the JSON text of the SDK's error in `body`.
    fn from_body(body: &str) -> Self {
        let seen = see_through(body, 0);
        let bare_string = || serde_json::from_str(body).ok();
        let body: Arc<str> = body.into();
        let wire: Option<WireError<'_>> = serde_json::from_str(&body).ok();
        let cause = wire
            .and_then(|wire| wire.cause)
            .and_then(|cause| Self::from_cause(&body, place(&body, cause.get()), 0));
        Self {
            name: seen.name.unwrap_or_else(default_name),
            message: seen.message.or_else(bare_string).unwrap_or_else(|| body.as_ref().to_owned()),
            stack: seen.stack,
            cause,
            named_on_wire: false,
            origin: Origin::Object(Arc::clone(&body), 0..body.len()),
            code: OnceLock::new(),
        }
    }

    /// A cause: an error of the same shape, or any JSON.
    fn from_cause(text: &Arc<str>, at: Range<usize>, depth: usize) -> Option<Box<Self>> {
        let json = &text[at.clone()];
        if depth == MAX_DEPTH || json == "null" {
            return None;
        }
        let wire = WireError::from_any(serde_json::from_str(json).ok()?);
        let cause = wire
            .cause
            .and_then(|cause| Self::from_cause(text, place(text, cause.get()), depth + 1));
        let message = wire.message.or(wire.error);
        Some(Box::new(Self {
            name: wire.name.map_or_else(default_name, Text::into_string),
            message: message.map_or_else(|| json.to_owned(), Text::into_string),
            stack: wire.stack.and_then(Text::non_empty).map(Text::into_string),
            cause,
            named_on_wire: false,
            origin: Origin::Object(Arc::clone(text), at),
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
    #[serde(borrow)]
    cause: Option<&'a RawValue>,
}

impl<'a> WireError<'a> {
    /// Makes the best of an error that is any JSON: what is not a text becomes one.
    pub(super) fn from_any(json: &'a RawValue) -> Self {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            name: Option<&'a RawValue>,
            #[serde(borrow)]
            error: Option<&'a RawValue>,
            #[serde(borrow)]
            message: Option<&'a RawValue>,
            #[serde(borrow)]
            stack: Option<&'a RawValue>,
            #[serde(borrow)]
            body: Option<&'a RawValue>,
            #[serde(borrow)]
            cause: Option<&'a RawValue>,
        }
        // A struct is also read from an array, which here is as shapeless as a number.
        match serde_json::from_str::<Fields<'_>>(json.get()) {
            Ok(fields) if json.get().starts_with('{') => Self {
                name: fields.name.map(Text::of_any),
                error: fields.error.map(Text::of_any),
                message: fields.message.map(Text::of_any),
                stack: fields.stack.map(Text::of_any),
                body: fields.body.map(Text::of_any),
                cause: fields.cause,
            },
            _ => Self { message: Some(Text::of_any(json)), ..Self::default() },
        }
    }
}

/// The SDK's raw answer, `data.result`: a text, an object, or nothing of use.
struct Answer<'a> {
    text: Option<String>,
    object: WireError<'a>,
}

impl<'a> Answer<'a> {
    fn new(result: Option<&'a RawValue>) -> Self {
        let text = result.and_then(|result| serde_json::from_str(result.get()).ok());
        let object = result.filter(|result| result.get().starts_with('{'));
        Self { text, object: object.map(WireError::from_any).unwrap_or_default() }
    }

    fn message(&self) -> Option<String> {
        let object = self.object.message.as_ref().map(|message| message.0.clone().into_owned());
        self.text.clone().or(object).filter(|message| !message.is_empty())
    }

    fn stack(&self) -> Option<String> {
        let stack = self.object.stack.as_ref().map(|stack| stack.0.clone().into_owned());
        stack.filter(|stack| !stack.is_empty())
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
    if depth == MAX_DEPTH || !message.trim_start().starts_with('{') {
        return Seen::default();
    }
    let Ok(json) = serde_json::from_str::<&RawValue>(message) else {
        return Seen::default();
    };
    let wire = WireError::from_any(json);
    // `{"error": {"message": ..}}` says it deeper down, and a message may be JSON once more.
    let Some(text) = wire.message.and_then(Text::non_empty).or(wire.error) else {
        return Seen::default();
    };
    let inner = see_through(&text.0, depth + 1);
    let own = |part: Option<Text<'_>>| part.and_then(Text::non_empty).map(Text::into_string);
    Seen {
        name: own(wire.name).or(inner.name),
        message: Some(inner.message.unwrap_or_else(|| text.into_string())),
        stack: own(wire.stack).or(inner.stack),
    }
}

fn default_name() -> String {
    "Error".to_owned()
}
