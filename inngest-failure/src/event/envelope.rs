//! Reading the envelope: one pass over the text, in which only what every failure has is taken.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Number, value::RawValue};

use super::{
    CANCELLED, FAILED, FailureEvent, FailureKind, Inner,
    failure_error::{PlacedError, WireError},
    text::{Placed, Text, place},
    time_from_millis,
    trigger::{PlacedEvents, PlacedTrigger, WireTrigger},
};
use crate::error::ParseError;

/// `E` and `T` are the shapes of the error and of the original event: those that nearly every failure
/// has, or any JSON.
#[derive(Deserialize)]
#[serde(expecting = "an object with `name` and `data`")]
struct Envelope<'a, E, T> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    ts: Option<Number>,
    #[serde(borrow, bound(deserialize = "E: Deserialize<'de>, T: Deserialize<'de>"))]
    data: Data<'a, E, T>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with `function_id`")]
struct Data<'a, E, T> {
    #[serde(borrow)]
    function_id: Text<'a>,
    #[serde(borrow)]
    run_id: Option<Text<'a>>,
    #[serde(borrow)]
    correlation_id: Option<Text<'a>>,
    error: Option<E>,
    event: Option<T>,
    #[serde(borrow)]
    events: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
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
    if let Ok(envelope) = serde_json::from_str(text) {
        return assemble(text, envelope);
    }
    // Either the error or the original event has a shape of its own, or the failure event is broken:
    // look again, more slowly.
    let Envelope { name, id, ts, data } =
        from_str_with_path::<Envelope<'_, &RawValue, &RawValue>>(text)?;
    let data = Data {
        error: data.error.map(|error| WireError::from_any(error.get())),
        event: data.event.map(WireTrigger::from_any),
        function_id: data.function_id,
        run_id: data.run_id,
        correlation_id: data.correlation_id,
        events: data.events,
        result: data.result,
    };
    assemble(text, Envelope { name, id, ts, data })
}

fn from_str_with_path<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ParseError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| ParseError::envelope(&error))?;
    json.end().map_err(|error| ParseError::not_json(&error))?;
    Ok(value)
}

fn assemble<'a>(
    text: &'a str,
    Envelope { name, id, ts, data }: Envelope<'a, WireError<'a>, WireTrigger<'a>>,
) -> Result<Arc<Inner>, ParseError> {
    let kind = match &*name.0 {
        FAILED => FailureKind::Failed,
        CANCELLED => FailureKind::Cancelled,
        name => return Err(ParseError::not_a_failure(name)),
    };
    let placed = |part| Placed::new(text, part);
    let id = id.map(placed);
    let run_id = data.run_id.map(placed);
    if run_id.is_none() && id.is_none() {
        return Err(ParseError::no_run_id());
    }
    Ok(Arc::new(Inner {
        kind,
        id,
        run_id,
        function_id: placed(data.function_id),
        failed_at: time_from_millis(ts.as_ref().map_or(0, millis)),
        correlation_id: data.correlation_id.map(placed),
        error: PlacedError::new(text, data.error, data.result),
        event: data.event.map(|event| PlacedTrigger::new(text, event)).unwrap_or_default(),
        events: PlacedEvents::new(data.events.map(|events| place(text, events.get()))),
        text: text.into(),
    }))
}

/// A number of milliseconds, which may have passed through a 64-bit float.
pub(super) fn millis(ts: &Number) -> i64 {
    // A cast from `f64` saturates, which is what is wanted of a time beyond the clock.
    ts.as_i64().or_else(|| ts.as_f64().map(|ts| ts as i64)).unwrap_or(0)
}
