//! Which steps of a failed run are undone, and in which order.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{RunTrace, StepStatus, TraceStep, hash};
use crate::{dead_letter::CompletedStep, suggest::nearest};

/// How much of what steps had returned travels with a plan, in bytes: it comes with every call of the rollback, and a call
/// has 4 MiB at most.
const MAX_OUTPUT_BYTES: usize = 512 * 1024;

/// What a rollback does: it is its first step, so that every later call and every copy of the program follows the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The uses of steps to undo, the last one to complete first.
    pub(crate) undo: Vec<Planned>,
    /// The steps with an undo that had not completed.
    pub(crate) not_completed: Vec<String>,
    /// Those that were in flight when the run failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) in_flight: Vec<String>,
    /// The steps with an undo that the trace does not know at all, each with the nearest name that it knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) unknown: BTreeMap<String, Option<String>>,
}

/// One use of a step that had completed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Planned {
    pub(crate) step: String,
    pub(crate) index: u32,
    /// The id as the server keeps it.
    pub(crate) step_id: String,
    /// In milliseconds since the Unix epoch.
    completed_at: u64,
    /// The JSON of what it had returned; none if that is too large to travel, and read again then. A text, which nobody
    /// on its way reads as numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<String>,
}

impl Planned {
    pub(crate) fn completed_at(&self) -> SystemTime {
        let since = std::time::Duration::from_millis(self.completed_at);
        SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Plan {
    /// The step that remembers it.
    pub(crate) fn as_step(&self) -> Option<CompletedStep> {
        Some(CompletedStep {
            step_id: hash("plan", 0),
            name: Some("plan".to_owned()),
            output: serde_json::value::to_raw_value(self).ok()?,
        })
    }

    /// As much of it as is about this step.
    pub(crate) fn only(&self, step: &str) -> Self {
        let named = |names: &[String]| names.iter().filter(|name| *name == step).cloned().collect();
        let is_known = |name: &str| !self.unknown.contains_key(name);
        Self {
            undo: self.undo.iter().filter(|planned| planned.step == step).cloned().collect(),
            not_completed: named(&self.not_completed),
            in_flight: named(&self.in_flight),
            unknown: match is_known(step) {
                true => BTreeMap::new(),
                false => BTreeMap::from([(step.to_owned(), self.unknown[step].clone())]),
            },
        }
    }

    /// What there is to undo of this run, by whoever undoes these steps.
    pub(crate) fn of(trace: &RunTrace, steps: &[&str]) -> Self {
        let mut undo: Vec<(usize, Planned)> = Vec::new();
        let mut not_completed = Vec::new();
        let mut in_flight = Vec::new();
        let mut unknown = BTreeMap::new();
        for step in steps {
            let uses = trace.uses(step);
            if uses.is_empty() {
                unknown.insert((*step).to_owned(), near(trace, steps, step));
            }
            let before = undo.len();
            let is_in_flight = |(_, used): &(u32, &TraceStep)| {
                matches!(used.status, StepStatus::Running | StepStatus::Waiting)
            };
            if uses.iter().any(is_in_flight) {
                in_flight.push((*step).to_owned());
            }
            for (index, used) in uses {
                if used.status != StepStatus::Completed {
                    continue;
                }
                let place = trace.place(used);
                let completed_at =
                    used.ended_at.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
                let planned = Planned {
                    step: (*step).to_owned(),
                    index,
                    step_id: used.step_id.clone(),
                    completed_at: completed_at.map_or(0, |since| since.as_millis() as u64),
                    output: Some(used.raw_output().get().to_owned()),
                };
                undo.push((place, planned));
            }
            if undo.len() == before {
                not_completed.push((*step).to_owned());
            }
        }
        undo.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        let mut undo: Vec<Planned> = undo.into_iter().map(|(_, planned)| planned).collect();
        let mut left = MAX_OUTPUT_BYTES;
        for planned in &mut undo {
            let bytes = planned.output.as_ref().map_or(0, String::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => planned.output = None,
            }
        }
        Self { undo, not_completed, in_flight, unknown }
    }
}

/// The name that was probably meant: of a step of the run that nobody undoes.
fn near(trace: &RunTrace, steps: &[&str], step: &str) -> Option<String> {
    let names = trace.steps().iter().map(|step| step.name.as_str());
    nearest(step, names.filter(|name| !steps.contains(name))).map(str::to_owned)
}
