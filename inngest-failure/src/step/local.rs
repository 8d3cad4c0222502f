//! Steps in process: each runs where the handler awaits it, and is remembered for the attempts that follow.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    op::{Op, Until},
    pass::{Fault, Met, Outcome},
};
use crate::event::FailureError;

/// What one dispatch knows of its steps, from attempt to attempt.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    outcomes: HashMap<String, (usize, Outcome)>,
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
}

impl Local {
    pub(super) fn new(memory: Box<Memory>, retries: u32) -> Self {
        Self { memory, retries, failing: None, has_remembered: false }
    }

    /// The rank in which the step had completed, if it had.
    pub(super) fn rank(&self, key: &str) -> Option<usize> {
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
        let rank = self.memory.outcomes.len();
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

    /// What is left of the pass: what it remembers, whether that has grown, and what is to be tried again.
    pub(super) fn take(&mut self) -> (Box<Memory>, bool, Option<Failing>) {
        (std::mem::take(&mut self.memory), self.has_remembered, self.failing.take())
    }
}
