//! Steps in process: each runs where the handler awaits it, and is remembered for the attempts that follow.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    op::{Op, Until},
    pass::{Fault, Met, Outcome},
};
use crate::{dead_letter::CompletedStep, event::FailureError, trace::hash};

/// What one dispatch knows of its steps, from attempt to attempt.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    outcomes: HashMap<String, (usize, Outcome)>,
    /// What is known of steps from another dispatch, by their hashed ids, until they are met.
    recalled: HashMap<String, (usize, Outcome)>,
    failures: HashMap<String, u32>,
    deadlines: HashMap<String, Instant>,
}

/// The steps that have failed in this pass and are to be tried again, as one.
#[derive(Debug)]
pub(crate) struct Failing {
    pub(crate) step_id: String,
    pub(crate) error: FailureError,
    /// How often it has failed, the one that has failed most often.
    pub(crate) failures: u32,
    pub(crate) delay: Option<Duration>,
}

/// What decides in process.
pub(super) struct Local {
    memory: Box<Memory>,
    retries: u32,
    failing: Option<Failing>,
    has_remembered: bool,
}

impl Memory {
    /// How many steps are remembered.
    pub(crate) fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// That these steps have completed is known from the beginning.
    pub(crate) fn recalling(steps: &[CompletedStep]) -> Self {
        let outcome = |(rank, step): (usize, &CompletedStep)| {
            (step.step_id.clone(), (rank, Ok(step.output.get().to_owned())))
        };
        let recalled = steps.iter().enumerate().map(outcome).collect();
        Self { recalled, ..Self::default() }
    }

    /// The steps that have completed, in the order in which they did.
    pub(crate) fn completed(&self) -> Vec<CompletedStep> {
        let step = |(id, name, (rank, outcome)): (String, Option<&String>, &(usize, Outcome))| {
            let output = RawValue::from_string(outcome.as_ref().ok()?.clone()).ok()?;
            Some((*rank, CompletedStep { step_id: id, name: name.cloned(), output }))
        };
        let met = self.outcomes.iter().map(|(key, kept)| (hash(key, 0), Some(key), kept));
        let others = self.recalled.iter().map(|(id, kept)| (id.clone(), None, kept));
        let mut steps: Vec<_> = met.chain(others).filter_map(step).collect();
        steps.sort_by_key(|(rank, _)| *rank);
        steps.into_iter().map(|(_, step)| step).collect()
    }

    /// Looks for a step that was met for the first time among those that another dispatch had completed.
    fn recall(&mut self, key: &str) {
        if let Some(kept) = self.recalled.remove(&hash(key, 0)) {
            self.outcomes.insert(key.to_owned(), kept);
        }
    }
}

impl Local {
    pub(super) fn new(memory: Box<Memory>, retries: u32) -> Self {
        Self { memory, retries, failing: None, has_remembered: false }
    }

    /// The rank in which the step had completed, if it had.
    pub(super) fn rank(&mut self, key: &str) -> Option<usize> {
        if !self.memory.recalled.is_empty() {
            self.memory.recall(key);
        }
        self.memory.outcomes.get(key).map(|(rank, _)| *rank)
    }

    /// The outcome of a step that has a rank.
    pub(super) fn outcome(&self, key: &str) -> Outcome {
        self.memory.outcomes[key].1.clone()
    }

    /// How often the step has failed.
    pub(super) fn failures(&self, key: &str) -> u32 {
        self.memory.failures.get(key).copied().unwrap_or_default()
    }

    /// How often the step has failed that is tried again of those with this prefix.
    pub(super) fn failures_under(&self, prefix: &str) -> u32 {
        let Memory { failures, outcomes, .. } = &*self.memory;
        let of_prefix = failures
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && !outcomes.contains_key(*key));
        of_prefix.map(|(_, failures)| *failures).max().unwrap_or_default()
    }

    /// Whether the attempt is to end, since a step has failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// Until when the step sleeps, from the first attempt that came to it.
    pub(super) fn deadline(&mut self, key: &str, until: Until) -> Instant {
        let wait = match until {
            Until::After(duration) => duration,
            Until::At(time) => time.duration_since(SystemTime::now()).unwrap_or_default(),
        };
        // `Step` takes no sleep that the clock can't hold; `now` is only for the compiler.
        let now = Instant::now();
        let deadline = now.checked_add(wait).unwrap_or(now);
        *self.memory.deadlines.entry(key.to_owned()).or_insert(deadline)
    }

    /// What a step ended with; nothing if it is to be tried again.
    pub(super) fn finish(&mut self, met: &Met, result: Result<String, Fault>) -> Option<Outcome> {
        let outcome = match result {
            Ok(json) => Ok(json),
            Err(failure) => {
                let failures = self.memory.failures.entry(met.key.clone()).or_default();
                *failures += 1;
                if failure.is_retriable
                    && *failures <= met.retries.map_or(self.retries, |own| own.min(self.retries))
                {
                    let failures = *failures;
                    self.fail(met, failure, failures);
                    return None;
                }
                Err(Box::new(failure.error))
            }
        };
        self.has_remembered = true;
        let rank = self.memory.outcomes.len() + self.memory.recalled.len();
        self.memory.outcomes.insert(met.key.clone(), (rank, outcome.clone()));
        Some(outcome)
    }

    fn fail(&mut self, met: &Met, Fault { error, delay, .. }: Fault, failures: u32) {
        match &mut self.failing {
            None => {
                let step_id = met.label.clone();
                self.failing = Some(Failing { step_id, error, failures, delay });
            }
            Some(failing) => {
                failing.delay = failing.delay.max(delay);
                if failures > failing.failures {
                    (failing.step_id, failing.error) = (met.label.clone(), error);
                    failing.failures = failures;
                }
            }
        }
    }

    /// What only the server can do.
    pub(super) fn refuse(met: &Met) -> FailureError {
        let what = match met.op {
            Op::Invoke(_) => "`invoke` needs Inngest, which runs the function",
            _ => "`wait_for_event` needs Inngest, which sees the events",
        };
        let message = format!(
            "step `{}`: {what}; let the handler run at a `serve::Endpoint`, not in process",
            met.label
        );
        FailureError::own("StepError", message)
    }

    /// The steps that have completed.
    pub(super) fn completed(&self) -> Vec<CompletedStep> {
        self.memory.completed()
    }

    /// What is left of the pass: what it remembers, whether that has grown, and what is to be tried again.
    pub(super) fn take(&mut self) -> (Box<Memory>, bool, Option<Failing>) {
        (std::mem::take(&mut self.memory), self.has_remembered, self.failing.take())
    }
}
