//! Inngest's operations, each an item of the array that a call is answered with.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use sha1::{Digest, Sha1};

use super::{
    Invoke, Wait,
    op::{Op, Until},
    pass::Met,
};
use crate::{
    dead_letter::rfc3339,
    event::{ErrorBody, FailureError},
};

/// What a call has come to if the handler has not come to its end.
pub(crate) struct Report {
    pub(crate) operations: Vec<Operation>,
    /// The step that ran and failed.
    pub(crate) failed: Option<Failed>,
    /// In one word, for the log.
    pub(crate) outcome: &'static str,
}

impl Report {
    /// The step of this hashed id was asked for and is not there.
    pub(crate) fn not_found(hashed: String) -> Self {
        let operations = vec![Operation::not_found(hashed)];
        Self { operations, failed: None, outcome: "step_not_found" }
    }
}

/// A step that ran and failed.
pub(crate) struct Failed {
    pub(crate) step_id: String,
    pub(crate) message: String,
    /// Whether the server does not try it again.
    pub(crate) is_final: bool,
    /// What the error itself says of that.
    pub(crate) is_retriable: bool,
    /// After how long it is tried again, if the error says so.
    pub(crate) delay: Option<Duration>,
}

/// One operation.
#[derive(Serialize)]
pub(crate) struct Operation {
    id: String,
    op: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: String,
    #[serde(rename = "displayName", skip_serializing_if = "str::is_empty")]
    display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    opts: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
}

impl Operation {
    fn new(op: &'static str, met: &Met) -> Self {
        // By this the dashboard tells it from a closure.
        let opts = matches!(met.op, Op::SendEvent).then(|| json!({ "type": "step.sendEvent" }));
        Self {
            id: met.hashed.clone(),
            op,
            name: met.id.clone(),
            display_name: met.label.clone(),
            opts,
            data: None,
            error: None,
        }
    }

    /// A step that ran, with its JSON.
    pub(super) fn ran(met: &Met, json: String) -> Self {
        // What serde_json has written is JSON.
        let data = RawValue::from_string(json).ok();
        Self { data, ..Self::new("StepRun", met) }
    }

    /// A step that ran and failed.
    pub(super) fn failed(met: &Met, error: &FailureError, is_final: bool) -> Self {
        let op = if is_final { "StepFailed" } else { "StepError" };
        Self { error: Some(ErrorBody::of(error)), ..Self::new(op, met) }
    }

    /// A step that was found.
    pub(super) fn found(met: &Met) -> Self {
        let (op, opts) = match &met.op {
            Op::Run | Op::SendEvent => return Self::new("StepPlanned", met),
            Op::Sleep { until } => ("Sleep", json!({ "duration": until.to_text() })),
            Op::WaitForEvent(wait) => ("WaitForEvent", wait.opts()),
            Op::Invoke(invoke) => ("InvokeFunction", invoke.opts()),
        };
        Self { opts: Some(opts), ..Self::new(op, met) }
    }

    /// A step that was asked for and not found.
    fn not_found(hashed: String) -> Self {
        Self {
            id: hashed,
            op: "StepNotFound",
            name: String::new(),
            display_name: String::new(),
            opts: None,
            data: None,
            error: None,
        }
    }
}

impl Until {
    fn to_text(self) -> String {
        match self {
            Self::After(duration) => duration_text(duration),
            // `Step` takes no time that has no such text but one before the epoch, which is over anyway.
            Self::At(time) => rfc3339(time),
        }
    }
}

/// A duration as Inngest reads it, such as `1h30m`, in whole milliseconds, none of them too early.
fn duration_text(duration: Duration) -> String {
    const UNITS: [(&str, u128); 6] = [
        ("w", 7 * 24 * 3_600_000),
        ("d", 24 * 3_600_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let mut left = duration.as_nanos().div_ceil(1_000_000);
    let mut text = String::new();
    for (unit, millis) in UNITS {
        if left >= millis {
            text += &format!("{}{unit}", left / millis);
            left %= millis;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A step's id as the server keeps it: SHA-1, in lower-case hexadecimal digits.
pub(crate) fn hash(key: &str) -> String {
    hex::encode(Sha1::digest(key))
}

impl Wait {
    fn opts(&self) -> Value {
        let mut opts = json!({ "event": self.event, "timeout": duration_text(self.timeout) });
        if let Some(expression) = &self.expression {
            opts["if"] = json!(expression);
        }
        opts
    }
}

impl Invoke {
    fn opts(&self) -> Value {
        let data = self.data.as_ref().ok();
        let mut opts = json!({ "function_id": self.function_id, "payload": { "data": data } });
        if let Some(timeout) = self.timeout {
            opts["timeout"] = json!(duration_text(timeout));
        }
        opts
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn ids_are_hashed_as_the_specification_has_it() {
        assert_eq!(hash("my-step-id"), "e7d8a2f140845095749d60246ff1110c9d01d76a");
    }

    #[test]
    fn durations_are_texts_that_inngest_reads() {
        let text = |millis| duration_text(Duration::from_millis(millis));
        assert_eq!(text(0), "0s");
        assert_eq!(text(90_000), "1m30s");
        assert_eq!(text(604_800_000 + 86_400_000), "1w1d");
        assert_eq!(text(9_900_000), "2h45m");
        assert_eq!(text(1500), "1s500ms");
        assert_eq!(duration_text(Duration::from_nanos(1)), "1ms");
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_378_322_890);
        assert_eq!(Until::At(time).to_text(), "2026-11-22T20:12:02.890Z");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Until::At(before).to_text(), "1970-01-01T00:00:00.000Z");
    }
}
