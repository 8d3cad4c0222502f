//! Reading the envelope: one pass over the text, in which only what every failure has is taken.

use std::ops::Range;

use serde::Deserialize;
use serde_json::{Number, value::RawValue};

use super::{
    CANCELLED, FAILED, FailureEvent, FailureKind, Inner,
    failure_error::{FailureError, WireError},
    time_from_millis,
};
use crate::error::ParseError;

/// `E` is the error's shape: [`WireError`], which nearly every event has, or any JSON.
#[derive(Deserialize)]
struct Envelope<'a, E> {
    name: String,
    id: Option<String>,
    ts: Option<Number>,
    #[serde(borrow, bound(deserialize = "E: Deserialize<'de>"))]
    data: Data<'a, E>,
}

#[derive(Deserialize)]
struct Data<'a, E> {
    function_id: String,
    run_id: Option<String>,
    correlation_id: Option<String>,
    error: Option<E>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
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

pub(super) fn read(text: &str) -> Result<Inner, ParseError> {
    if let Ok(envelope) = serde_json::from_str::<Envelope<'_, WireError<'_>>>(text) {
        return assemble(text, envelope, |error| error);
    }
    // Either the error has a shape of its own, or the event is broken: look again, more slowly.
    match from_str_with_path::<Envelope<'_, &RawValue>>(text) {
        Ok(envelope) => assemble(text, envelope, WireError::from_any),
        Err(error) => match serde_json::from_str::<CallBody<'_>>(text) {
            Ok(call) if call.event.get().len() < text.len() => read(call.event.get()),
            _ => Err(error),
        },
    }
}

fn from_str_with_path<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ParseError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| ParseError::envelope(&error))?;
    json.end().map_err(|error| ParseError::not_json(&error))?;
    Ok(value)
}

fn assemble<'a, E>(
    text: &'a str,
    envelope: Envelope<'a, E>,
    read_error: impl FnOnce(E) -> WireError<'a>,
) -> Result<Inner, ParseError> {
    let Envelope { name, id, ts, data } = envelope;
    let kind = match name.as_str() {
        FAILED => FailureKind::Failed,
        CANCELLED => FailureKind::Cancelled,
        _ => return Err(ParseError::not_a_failure(&name)),
    };
    let run_id = match (data.run_id, &id) {
        (Some(run_id), _) => run_id,
        (None, Some(id)) => id.clone(),
        (None, None) => return Err(ParseError::no_run_id()),
    };
    let owned: std::sync::Arc<str> = text.into();
    let wire_error = data.error.map(read_error);
    let wire_error_name = wire_error.as_ref().and_then(|error| error.name.clone());
    let error = match wire_error {
        None if kind == FailureKind::Cancelled => FailureError::cancelled(&owned),
        wire_error => {
            FailureError::from_wire(wire_error.unwrap_or_default(), data.result, text, &owned)
        }
    };
    Ok(Inner {
        kind,
        id: id.unwrap_or_else(|| run_id.clone()),
        function_id: data.function_id,
        run_id,
        failed_at: time_from_millis(ts.as_ref().map_or(0, millis)),
        correlation_id: data.correlation_id,
        error,
        wire_error_name,
        event: data.event.map(|event| place(text, event)),
        events: data.events.map(|events| place(text, events)),
        text: owned,
    })
}

/// A number of milliseconds, which may have passed through a 64-bit float.
pub(super) fn millis(ts: &Number) -> i64 {
    // A cast from `f64` saturates, which is what is wanted of a time beyond the clock.
    ts.as_i64().or_else(|| ts.as_f64().map(|ts| ts as i64)).unwrap_or(0)
}

/// Where `part`, which was borrowed from `text`, lies in it.
pub(super) fn place(text: &str, part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.get().len()
}
