//! The events that had started the failed run.

use std::{fmt, marker::PhantomData, ops::Range, sync::OnceLock};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Number, Value, value::RawValue};

use super::{
    FailureEvent, Inner,
    envelope::millis,
    text::{Placed, Text, fields, place},
};
use crate::error::ParseError;

/// An event that had started the failed run, its data as `T`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TriggerEvent<T = Value> {
    /// Its id: a ULID, an id of the sender's, or a time for a cron trigger; empty if the failure event does
    /// not say.
    pub id: String,
    /// Its name; `inngest/scheduled.timer` for a cron trigger, `inngest/function.invoked` for a
    /// run that `step.invoke` had started.
    pub name: String,
    /// Its data. Numbers have passed through 64-bit floats on their way.
    pub data: T,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub ts: i64,
    /// What the sender said of the user: `{}`, or null, if nothing.
    pub user: Value,
    /// The version of its data, if the sender gave one.
    pub v: Option<String>,
}

/// The events that had started the failed run, read on demand.
///
/// A batched function has several, in any order; every other has one, if the failure event says.
///
/// # Examples
///
/// ```
/// # let event: inngest_failure::FailureEvent = r#"{"name":"inngest/function.failed","data":{
/// #   "function_id":"shop-report","run_id":"r1","events":[
/// #     {"id":"1","name":"a","data":{"n":2},"ts":1},{"id":"2","name":"a","data":{"n":1},"ts":1}]}}"#.parse()?;
/// # let failure = event.parse::<serde_json::Value>()?;
/// let mut sum = 0;
/// for event in failure.events.iter() {
///     sum += event?.data["n"].as_u64().unwrap_or(0);
/// }
/// assert_eq!(sum, 3);
/// # Ok::<(), inngest_failure::ParseError>(())
/// ```
#[derive(Clone)]
pub struct TriggerEvents<T = Value> {
    failure: FailureEvent,
    data: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> TriggerEvent<T> {
    /// An event that stands alone.
    pub(crate) fn from_json(event: &str) -> Result<Self, ParseError> {
        PlacedTrigger::of_any(event).parse(event, "event")
    }
}

impl<T> TriggerEvents<T> {
    pub(super) fn new(failure: FailureEvent) -> Self {
        Self { failure, data: PhantomData }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items().is_empty()
    }

    /// Their JSON as it came: an array.
    pub fn raw(&self) -> &RawValue {
        serde_json::from_str(self.array()).expect("the text was read as JSON when it came")
    }

    /// Reads one of them. Data that is `null` or `{}`, as that of an event sent without, may be taken as
    /// either.
    ///
    /// # Errors
    ///
    /// [`ParseError`], with the JSON path, if its data does not fit `T`, or if there is no event
    /// `index`.
    pub fn parse(&self, index: usize) -> Result<TriggerEvent<T>, ParseError>
    where
        T: DeserializeOwned,
    {
        let items = self.items();
        let item = items.get(index).ok_or_else(|| ParseError::no_such_event(index, items.len()))?;
        let event = &self.array()[item.clone()];
        let path = format_args!("data.events[{index}]");
        PlacedTrigger::of_any(event).parse(event, path)
    }

    /// Reads one after the other, as [`parse`](Self::parse) does.
    pub fn iter(&self) -> impl Iterator<Item = Result<TriggerEvent<T>, ParseError>>
    where
        T: DeserializeOwned,
    {
        (0..self.len()).map(|index| self.parse(index))
    }

    fn array(&self) -> &str {
        self.failure.inner.events.array(&self.failure.inner)
    }

    fn items(&self) -> &[Range<usize>] {
        self.failure.inner.events.items(&self.failure.inner)
    }
}

/// The events in the text of a failure event, looked at when somebody asks for them.
#[derive(Debug, Default)]
pub(super) struct PlacedEvents {
    place: Option<Range<usize>>,
    /// What stands for the array where the failure event has none, as the documentation's example.
    made: OnceLock<String>,
    items: OnceLock<Vec<Range<usize>>>,
}

impl PlacedEvents {
    /// `events` was borrowed from `text`; what is no array counts as absent.
    pub(super) fn new(text: &str, events: Option<&RawValue>) -> Self {
        let array = events.map(RawValue::get).filter(|events| events.starts_with('['));
        Self { place: array.map(|array| place(text, array)), ..Self::default() }
    }

    fn array<'a>(&'a self, failure: &'a Inner) -> &'a str {
        match &self.place {
            Some(place) => &failure.text[place.clone()],
            None => self.made.get_or_init(|| match original(failure.raw().get()) {
                Some(event) => format!("[{}]", event.get()),
                None => "[]".to_owned(),
            }),
        }
    }

    fn items(&self, failure: &Inner) -> &[Range<usize>] {
        self.items.get_or_init(|| {
            let array = self.array(failure);
            let items: Vec<&RawValue> = serde_json::from_str(array).unwrap_or_default();
            items.into_iter().map(|item| place(array, item.get())).collect()
        })
    }
}

/// The original event in the text of a failure event.
fn original(text: &str) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Failure<'a> {
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        event: Option<&'a RawValue>,
    }
    serde_json::from_str::<Failure<'_>>(text).ok()?.data.event
}

/// Shows how many there are, not their data.
impl<T> fmt::Debug for TriggerEvents<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TriggerEvents").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A trigger event as it stands on the wire.
#[derive(Default, Deserialize)]
pub(super) struct WireTrigger<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    ts: Option<Number>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
    #[serde(borrow)]
    v: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl<'a> WireTrigger<'a> {
    /// Makes the best of an event that is any JSON: only its data decides whether a payload fits.
    pub(super) fn from_any(json: &'a RawValue) -> Self {
        let Some(fields) = fields(json.get()) else {
            // What is no event is data that fits nobody who expects some.
            return Self { data: Some(json), ..Self::default() };
        };
        let field = |name| fields.get(name).copied().filter(|json| json.get() != "null");
        Self {
            id: field("id").map(Text::of_any),
            name: field("name").map(Text::of_any),
            ts: field("ts").and_then(|ts| serde_json::from_str(ts.get()).ok()),
            user: field("user"),
            v: field("v").map(Text::of_any),
            data: field("data"),
        }
    }
}

/// A trigger event whose parts are left in the text that it was read from.
#[derive(Debug, Default)]
pub(super) struct PlacedTrigger {
    id: Option<Placed>,
    name: Option<Placed>,
    ts: i64,
    user: Option<Range<usize>>,
    v: Option<Placed>,
    data: Option<Range<usize>>,
}

impl PlacedTrigger {
    /// `wire` was borrowed from `text`.
    pub(super) fn new(text: &str, wire: WireTrigger<'_>) -> Self {
        let placed = |part| Placed::new(text, part);
        Self {
            id: wire.id.map(placed),
            name: wire.name.map(placed),
            ts: wire.ts.as_ref().map_or(0, millis),
            user: wire.user.map(|user| place(text, user.get())),
            v: wire.v.map(placed),
            data: wire.data.map(|data| place(text, data.get())),
        }
    }

    #[cfg(feature = "api")]
    pub(super) fn name<'a>(&'a self, text: &'a str) -> Option<&'a str> {
        self.name.as_ref().map(|name| name.get(text))
    }

    /// The event that any JSON text is.
    fn of_any(event: &str) -> Self {
        let wire = serde_json::from_str(event)
            .or_else(|_| serde_json::from_str(event).map(WireTrigger::from_any));
        Self::new(event, wire.unwrap_or_default())
    }

    /// Reads the event, which stands at `path` of the failure event, from the text that it was found
    /// in.
    pub(super) fn parse<T: DeserializeOwned>(
        &self,
        text: &str,
        path: impl fmt::Display,
    ) -> Result<TriggerEvent<T>, ParseError> {
        let string = |part: &Placed| part.get(text).to_owned();
        let user = self.user.clone().and_then(|place| serde_json::from_str(&text[place]).ok());
        Ok(TriggerEvent {
            id: self.id.as_ref().map(string).unwrap_or_default(),
            name: self.name.as_ref().map(string).unwrap_or_default(),
            data: read_data(self.data.clone().map(|place| &text[place]), path)?,
            ts: self.ts,
            user: user.unwrap_or_default(),
            v: self.v.as_ref().map(string),
        })
    }
}

/// Reads the data as `T`. No data is `null` or `{}`, whichever `T` takes.
fn read_data<T: DeserializeOwned>(
    json: Option<&str>,
    path: impl fmt::Display,
) -> Result<T, ParseError> {
    let json = json.unwrap_or("null");
    if let Ok(data) = serde_json::from_str(json) {
        return Ok(data);
    }
    let other = match json {
        "null" => Some("{}"),
        object if is_empty_object(object) => Some("null"),
        _ => None,
    };
    if let Some(data) = other.and_then(|other| serde_json::from_str(other).ok()) {
        return Ok(data);
    }
    // Once more, now that the place of the fault is of interest.
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| ParseError::payload::<T>(&error, &format!("{path}.data")))
}

fn is_empty_object(json: &str) -> bool {
    json.strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|inside| inside.trim().is_empty())
}
