//! The body of a call of Inngest: the event in it, and what else of it counts.

use std::{fmt, ops::Range, sync::Arc};

use bytestring::ByteString;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    Inner, Kept,
    envelope::{Envelope, assemble},
    text::{Text, place},
};
use crate::error::ParseError;

/// The event in the body of a call.
pub(super) fn event_of_call(body: &str) -> Option<&RawValue> {
    Some(Head::<'_, &RawValue, IgnoredAny>::read(body, false)?.0)
}

/// Reads the body of a call, unless its shape is not the one that nearly every call has: the event, its context, and
/// where its steps are, if they are asked for.
pub(super) fn read_call<C: DeserializeOwned>(
    body: &ByteString,
    with_steps: bool,
) -> Option<(Arc<Inner>, C, Option<Range<usize>>)> {
    let (event, ctx, steps) = Head::<'_, Envelope<'_>, C>::read(body, with_steps)?;
    let keep = || Kept::InCall(body.clone());
    let steps = steps.map(|steps| place(body, steps.get()));
    Some((assemble(body, event, keep).ok()?, ctx, steps))
}

/// The part of a call's body that counts. Inngest sorts the keys, so that `events`, which repeats the event, and
/// `steps` follow it: they are left unread, unless the steps are asked for.
struct Head<'a, E, C> {
    event: Option<E>,
    ctx: Option<C>,
    with_steps: bool,
    steps: Option<&'a RawValue>,
}

impl<'a, E: Deserialize<'a>, C: Deserialize<'a>> Head<'a, E, C> {
    fn read(body: &'a str, with_steps: bool) -> Option<(E, C, Option<&'a RawValue>)> {
        let mut head = Self { event: None, ctx: None, with_steps, steps: None };
        // An object that is not read to its end counts as broken. What was read before stands all the same.
        let _ = serde_json::Deserializer::from_str(body).deserialize_map(&mut head);
        if head.lacks_something() {
            return None;
        }
        Some((head.event?, head.ctx?, head.steps))
    }

    fn lacks_something(&self) -> bool {
        self.event.is_none() || self.ctx.is_none() || (self.with_steps && self.steps.is_none())
    }
}

impl<'a, E: Deserialize<'a>, C: Deserialize<'a>> Visitor<'a> for &mut Head<'a, E, C> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `event` and `ctx`")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while self.lacks_something() {
            let Some(Text(key)) = map.next_key()? else { break };
            match &*key {
                "event" => self.event = Some(map.next_value()?),
                "ctx" => self.ctx = Some(map.next_value()?),
                "steps" if self.with_steps => self.steps = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Reads the body of a call whose shape is not the one that nearly every call has, or says what is wrong.
pub(crate) fn call_from_str<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, ParseError> {
    let mut json = serde_json::Deserializer::from_str(body);
    let call =
        serde_path_to_error::deserialize(&mut json).map_err(|error| ParseError::call(&error))?;
    json.end().map_err(|error| ParseError::not_json(&error))?;
    Ok(call)
}
