//! Reading the envelope: one pass over the text, in which only what every failure has is taken.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Number, value::RawValue};

use super::{
    CANCELLED, FAILED, FailureEvent, FailureKind, Inner, Kept,
    failure_error::{PlacedError, WireError},
    text::{Placed, Text, fields},
    time_from_millis,
    trigger::{PlacedEvents, PlacedTrigger, WireTrigger},
};
use crate::error::ParseError;

/// The shape that nearly every failure event has.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    ts: Option<Number>,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    function_id: Text<'a>,
    #[serde(borrow)]
    run_id: Option<Text<'a>>,
    #[serde(borrow)]
    correlation_id: Option<Text<'a>>,
    #[serde(borrow)]
    error: Option<WireError<'a>>,
    #[serde(borrow)]
    event: Option<WireTrigger<'a>>,
    #[serde(borrow)]
    events: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

/// The same with any JSON wherever a failure can be handled without it.
#[derive(Deserialize)]
#[serde(expecting = "an object with `name` and `data`")]
struct AnyEnvelope<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    ts: Option<&'a RawValue>,
    #[serde(borrow)]
    data: AnyData<'a>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with `function_id`")]
struct AnyData<'a> {
    #[serde(borrow)]
    function_id: Text<'a>,
    #[serde(borrow)]
    run_id: Option<Text<'a>>,
    #[serde(borrow)]
    correlation_id: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    events: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

impl<'a> From<AnyEnvelope<'a>> for Envelope<'a> {
    fn from(AnyEnvelope { name, id, ts, data }: AnyEnvelope<'a>) -> Self {
        Self {
            name,
            id: id.map(Text::of_any),
            ts: ts.and_then(|ts| serde_json::from_str(ts.get()).ok()),
            data: Data {
                function_id: data.function_id,
                run_id: data.run_id,
                correlation_id: data.correlation_id.map(Text::of_any),
                error: data.error.map(|error| WireError::from_any(error.get())),
                event: data.event.map(WireTrigger::from_any),
                events: data.events,
                result: data.result,
            },
        }
    }
}

/// What Inngest posts to an SDK, as far as needed to find the event in it.
#[derive(Deserialize)]
struct CallBody<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(borrow, rename = "ctx")]
    _ctx: &'a RawValue,
}

pub(super) fn check_size(bytes: usize) -> Result<(), ParseError> {
    if bytes > FailureEvent::MAX_BYTES {
        return Err(ParseError::too_large(bytes, FailureEvent::MAX_BYTES));
    }
    Ok(())
}

/// Reads a failure event, or the one in the body of a call. A call in a call is none: nobody sends one,
/// and each level would cost another pass over the text.
pub(super) fn read(text: &str) -> Result<Arc<Inner>, ParseError> {
    read_event(text).or_else(|error| match serde_json::from_str::<CallBody<'_>>(text) {
        Ok(call) => read_event(call.event.get()),
        Err(_) => Err(error),
    })
}

fn read_event(text: &str) -> Result<Arc<Inner>, ParseError> {
    // A struct is also read from an array.
    if text.trim_start().starts_with('[') {
        return Err(ParseError::array());
    }
    let keep = || Kept::Alone(text.into());
    if let Ok(envelope) = serde_json::from_str(text) {
        return assemble(text, envelope, keep);
    }
    // Either a part of it has a shape of its own, or the failure event is broken: look again, more slowly.
    match from_str_with_path::<AnyEnvelope<'_>>(text) {
        Ok(envelope) => assemble(text, envelope.into(), keep),
        Err(error) => {
            // Of another event it is the name that is wrong, whatever else it lacks.
            let name =
                fields(text).and_then(|fields| fields.get("name").copied().map(Text::of_any));
            match name {
                Some(name) if kind(&name).is_none() => Err(ParseError::not_a_failure(&name.0)),
                _ => Err(error),
            }
        }
    }
}

fn kind(name: &Text<'_>) -> Option<FailureKind> {
    match &*name.0 {
        FAILED => Some(FailureKind::Failed),
        CANCELLED => Some(FailureKind::Cancelled),
        _ => None,
    }
}

fn from_str_with_path<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ParseError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| ParseError::envelope(&error))?;
    json.end().map_err(|error| ParseError::not_json(&error))?;
    Ok(value)
}

/// What is kept of the event: its envelope, and the text from which that was read.
pub(super) fn assemble<'a>(
    text: &'a str,
    Envelope { name, id, ts, data }: Envelope<'a>,
    keep: impl FnOnce() -> Kept,
) -> Result<Arc<Inner>, ParseError> {
    let kind = kind(&name).ok_or_else(|| ParseError::not_a_failure(&name.0))?;
    let placed = |part| Placed::new(text, part);
    let id = id.and_then(Text::non_empty).map(placed);
    let run_id = data.run_id.and_then(Text::non_empty).map(placed);
    if run_id.is_none() && id.is_none() {
        return Err(ParseError::no_run_id());
    }
    let function_id = data.function_id.non_empty().ok_or_else(ParseError::no_function_id)?;
    Ok(Arc::new(Inner {
        kind,
        id,
        run_id,
        function_id: placed(function_id),
        failed_at: time_from_millis(ts.as_ref().map_or(0, millis)),
        correlation_id: data.correlation_id.map(placed),
        error: PlacedError::new(text, data.error, data.result),
        event: data.event.map(|event| PlacedTrigger::new(text, event)).unwrap_or_default(),
        events: PlacedEvents::new(text, data.events),
        text: keep(),
    }))
}

/// A number of milliseconds, which may have passed through a 64-bit float.
pub(super) fn millis(ts: &Number) -> i64 {
    // A cast from `f64` saturates, which is what is wanted of a time beyond the clock.
    ts.as_i64().or_else(|| ts.as_f64().map(|ts| ts as i64)).unwrap_or(0)
}
