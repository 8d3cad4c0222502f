//! The events that had started the failed run.

use std::{
    fmt,
    marker::PhantomData,
    ops::Range,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Number, Value, value::RawValue};

use super::envelope::{millis, place};
use crate::error::ParseError;

/// An event that had started the failed run, its data as `T`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TriggerEvent<T = Value> {
    /// Its id: a ULID, an id of the sender's, or a time for a cron trigger.
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
/// A batched function has several, in any order; every other has one.
///
/// # Examples
///
/// ```
/// # let event: inngest_failure::FailureEvent = r#"{"name":"inngest/function.failed","data":{
/// #   "function_id":"shop-report","run_id":"r1","events":[
/// #     {"id":"1","name":"a","data":{"n":2},"ts":1},{"id":"2","name":"a","data":{"n":1},"ts":1}]}}"#.parse()?;
/// # let failure = event.parse::<serde_json::Value>()?;
/// let mut numbers = Vec::new();
/// for i in 0..failure.events.len() {
///     numbers.push(failure.events.parse(i)?.data["n"].as_u64());
/// }
/// assert_eq!(numbers, [Some(2), Some(1)]);
/// # Ok::<(), inngest_failure::ParseError>(())
/// ```
#[derive(Clone)]
pub struct TriggerEvents<T = Value> {
    text: Arc<str>,
    array: Range<usize>,
    items: OnceLock<Vec<Range<usize>>>,
    data: PhantomData<fn() -> T>,
}

impl<T> TriggerEvents<T> {
    /// `events` and `event` are their places in `text`. The documentation's example has no
    /// `events`: the list then holds the one `event`.
    pub(super) fn new(
        text: &Arc<str>,
        events: Option<Range<usize>>,
        event: Option<Range<usize>>,
    ) -> Self {
        let (text, array) = match events {
            Some(array) => (Arc::clone(text), array),
            None => {
                let list: Arc<str> = match event {
                    Some(event) => format!("[{}]", &text[event]).into(),
                    None => "[]".into(),
                };
                let all = 0..list.len();
                (list, all)
            }
        };
        Self { text, array, items: OnceLock::new(), data: PhantomData }
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
        serde_json::from_str(&self.text[self.array.clone()])
            .expect("the text was read as JSON when it came")
    }

    /// Reads one of them; `null` data is tried as `T`, then as `{}`.
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
        read(Some(&self.text[item.clone()]), &format!("data.events[{index}]"))
    }

    fn items(&self) -> &[Range<usize>] {
        self.items.get_or_init(|| {
            let items: Vec<&RawValue> =
                serde_json::from_str(&self.text[self.array.clone()]).unwrap_or_default();
            items.into_iter().map(|item| place(&self.text, item)).collect()
        })
    }
}

/// Shows how many there are, not their data.
impl<T> fmt::Debug for TriggerEvents<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TriggerEvents").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Wire<T> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    ts: Option<Number>,
    #[serde(default)]
    user: Value,
    #[serde(default)]
    v: Option<String>,
    data: T,
}

impl<T> From<Wire<T>> for TriggerEvent<T> {
    fn from(wire: Wire<T>) -> Self {
        Self {
            id: wire.id.unwrap_or_default(),
            name: wire.name.unwrap_or_default(),
            data: wire.data,
            ts: wire.ts.as_ref().map_or(0, millis),
            user: wire.user,
            v: wire.v,
        }
    }
}

/// Everything but `data` as any JSON: only `data` decides whether a payload fits.
#[derive(Default, Deserialize)]
struct AnyWire<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    ts: Option<&'a RawValue>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
    #[serde(borrow)]
    v: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Reads a trigger event that stands at `path` of the failure event.
pub(super) fn read<T: DeserializeOwned>(
    json: Option<&str>,
    path: &str,
) -> Result<TriggerEvent<T>, ParseError> {
    let json = json.unwrap_or("{}");
    if let Ok(wire) = serde_json::from_str::<Wire<T>>(json) {
        return Ok(wire.into());
    }
    let wire: AnyWire<'_> = serde_json::from_str(json).unwrap_or_default();
    Ok(TriggerEvent {
        id: any(wire.id).unwrap_or_default(),
        name: any(wire.name).unwrap_or_default(),
        data: read_data(wire.data.map(RawValue::get), path)?,
        ts: any::<Number>(wire.ts).as_ref().map_or(0, millis),
        user: any(wire.user).unwrap_or_default(),
        v: any(wire.v),
    })
}

fn any<T: DeserializeOwned>(json: Option<&RawValue>) -> Option<T> {
    json.and_then(|json| serde_json::from_str(json.get()).ok())
}

/// Reads the data as `T`. No data is `null` or `{}`, whichever `T` takes.
fn read_data<T: DeserializeOwned>(json: Option<&str>, path: &str) -> Result<T, ParseError> {
    let json = json.unwrap_or("null");
    let other = match json.trim() {
        "null" => Some("{}"),
        object if is_empty_object(object) => Some("null"),
        _ => None,
    };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).or_else(|error| {
        other
            .and_then(|other| serde_json::from_str(other).ok())
            .ok_or_else(|| ParseError::payload::<T>(&error, &format!("{path}.data")))
    })
}

fn is_empty_object(json: &str) -> bool {
    json.strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|inside| inside.trim().is_empty())
}
