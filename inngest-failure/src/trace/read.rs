//! Reading the API's answer: spans, which say everything once or more, in no useful order.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use serde_path_to_error::Track;

use super::{Inner, StepStatus, TraceStep};
use crate::{error::ParseError, event::FailureError};

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    run_id: String,
    #[serde(borrow)]
    root_span: Span<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    #[serde(default)]
    name: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    step_op: Option<String>,
    #[serde(default)]
    step_id: Option<String>,
    #[serde(default)]
    queued_at: Option<String>,
    #[serde(default)]
    started_at: Option<String>,
    #[serde(default)]
    ended_at: Option<String>,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(borrow, default)]
    children: Option<Vec<Span<'a>>>,
}

pub(super) fn trace(text: &str) -> Result<Inner, ParseError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let answer: Answer<'_> = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| ParseError::trace(&error))?;
    deserializer.end().map_err(|error| ParseError::not_json(&error))?;
    let Data { run_id, root_span } = answer.data;
    let mut found = Vec::new();
    collect(&root_span, &mut found);
    let mut uses: HashMap<&str, Vec<&Span<'_>>> = HashMap::new();
    for span in found {
        uses.entry(span.step_id.as_deref().unwrap_or_default()).or_default().push(span);
    }
    let mut steps: Vec<(Times, TraceStep)> =
        uses.into_values().filter_map(|spans| step(&spans)).collect();
    steps.sort_by(|(a, step_a), (b, step_b)| (a, &step_a.step_id).cmp(&(b, &step_b.step_id)));
    let steps: Vec<TraceStep> = steps.into_iter().map(|(_, step)| step).collect();
    let failed = root_span.output.map(error).and_then(|error| {
        // The run's error repeats that of the step that failed it.
        let repeats = |of_step: &FailureError| {
            (&of_step.name, &of_step.message) == (&error.name, &error.message)
        };
        let is_it = |step: &TraceStep| {
            step.status == StepStatus::Failed && step.error.as_ref().is_some_and(repeats)
        };
        steps.iter().rposition(is_it)
    });
    let place = |(place, step): (usize, &TraceStep)| (step.step_id.clone(), place);
    Ok(Inner {
        run_id,
        status: status(root_span.status.as_deref()),
        places: steps.iter().enumerate().map(place).collect(),
        steps,
        failed,
        bytes: text.len(),
    })
}

/// All spans of steps. `Finalization` and the like, which are of none, have no step id.
fn collect<'a, 's>(span: &'s Span<'a>, found: &mut Vec<&'s Span<'a>>) {
    for child in span.children.iter().flatten() {
        if child.step_id.as_ref().is_some_and(|id| !id.is_empty()) {
            found.push(child);
        }
        collect(child, found);
    }
}

/// By which steps are ordered: when it ended, and where that is the same, when it began. What has not ended comes last.
type Times = (bool, Option<SystemTime>, Option<SystemTime>, Option<SystemTime>);

/// One step, of all spans that are about it: planned and run, and one for each attempt.
fn step(spans: &[&Span<'_>]) -> Option<(Times, TraceStep)> {
    let times = |span: &Span<'_>| {
        let ended = time(span.ended_at.as_deref());
        (ended.is_none(), ended, time(span.started_at.as_deref()), time(span.queued_at.as_deref()))
    };
    let statuses = [
        // It has completed if any of them has.
        StepStatus::Completed,
        StepStatus::Failed,
        StepStatus::Cancelled,
        StepStatus::Running,
        StepStatus::Waiting,
        StepStatus::Skipped,
        StepStatus::Other,
    ];
    let of =
        |wanted| spans.iter().copied().filter(move |span| status(span.status.as_deref()) == wanted);
    let status = statuses.into_iter().find(|wanted| of(*wanted).next().is_some())?;
    // A step completes once, a failed one has ended with its last attempt.
    let chosen = match status {
        StepStatus::Completed => of(status).min_by_key(|span| times(span)),
        _ => of(status).max_by_key(|span| times(span)),
    }?;
    let output = chosen.output.or_else(|| of(status).find_map(|span| span.output));
    // Attempts have names of their own.
    let is_attempt = |span: &Span<'_>| span.name.starts_with("Attempt ");
    let named = spans.iter().find(|span| !is_attempt(span)).unwrap_or(&spans[0]);
    let step = TraceStep {
        step_id: chosen.step_id.clone().unwrap_or_default(),
        name: named.name.clone(),
        op: spans.iter().find_map(|span| span.step_op.clone()),
        status,
        ended_at: time(chosen.ended_at.as_deref()),
        error: output.filter(|_| status == StepStatus::Failed).map(error),
        output: output.filter(|_| status == StepStatus::Completed).map(ToOwned::to_owned),
    };
    Some((times(chosen), step))
}

fn error(output: &RawValue) -> FailureError {
    FailureError::from_body(output.get())
}

pub(crate) fn status(text: Option<&str>) -> StepStatus {
    match text {
        Some("COMPLETED") => StepStatus::Completed,
        Some("FAILED") => StepStatus::Failed,
        Some("RUNNING") => StepStatus::Running,
        Some("WAITING" | "QUEUED" | "SCHEDULED") => StepStatus::Waiting,
        Some("CANCELLED") => StepStatus::Cancelled,
        Some("SKIPPED") => StepStatus::Skipped,
        _ => StepStatus::Other,
    }
}

/// A time of RFC 3339; one that is none orders nothing.
pub(crate) fn time(text: Option<&str>) -> Option<SystemTime> {
    let time = humantime::parse_rfc3339(text?).ok()?;
    // The zero time of Go means that there is none.
    time.duration_since(SystemTime::UNIX_EPOCH)
        .is_ok_and(|since| since > Duration::ZERO)
        .then_some(time)
}

/// A step's output: the whole as `T`, or what the server has wrapped.
pub(super) fn output<T: DeserializeOwned>(name: &str, output: &RawValue) -> Result<T, ParseError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let read = |json: &str| {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let value = serde_path_to_error::deserialize(&mut deserializer)?;
        // Of a number that has become too large, an integer would be only the beginning.
        let end = deserializer.end();
        end.map_err(|error| serde_path_to_error::Error::new(Track::new().path(), error))?;
        Ok(value)
    };
    let whole = output.get();
    let error = match read(whole) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let wrapped: Option<Wrapped<'_>> = Some(whole)
        .filter(|json| json.starts_with('{'))
        .and_then(|json| serde_json::from_str(json).ok());
    match wrapped {
        // What is wrapped decides what the error is about.
        Some(Wrapped { data }) => {
            read(data.get()).map_err(|error| ParseError::output::<T>(name, &error))
        }
        None => Err(ParseError::output::<T>(name, &error)),
    }
}
