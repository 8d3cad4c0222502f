//! What is reported of each undo in process.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Done, LEFT, Reached, Undo};
use crate::{dispatcher::RunError, error::HandlerError, panic::drop_caught};

/// What is reported of each undo in process.
#[derive(Debug, Default)]
pub(in crate::dispatcher) struct Tally<'a> {
    /// The ids of the undos that are to run, if not all that take the failure.
    pub(super) only: Option<Vec<&'a str>>,
    pub(super) noted: Mutex<Vec<Noted>>,
}

#[derive(Debug)]
pub(super) struct Noted {
    pub(super) id: String,
    pub(super) attempts: u32,
    begun: Instant,
    pub(super) elapsed: Duration,
    /// What its last attempt failed with.
    error: Option<RunError>,
    /// What it failed with for good, first.
    last_error: Option<RunError>,
    pub(super) result: Option<Result<Value, RunError>>,
}

impl<'o> Tally<'o> {
    pub(in crate::dispatcher) fn new(only: Option<Vec<&'o str>>) -> Self {
        Self { only, noted: Mutex::default() }
    }

    /// How many attempts an undo has had.
    pub(super) fn attempts(&self, id: &str) -> u32 {
        self.with(id, |noted| noted.attempts)
    }

    fn with<T>(&self, id: &str, note: impl FnOnce(&mut Noted) -> T) -> T {
        let mut all = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|noted| noted.id == id).unwrap_or_else(|| {
            all.push(Noted {
                id: id.to_owned(),
                attempts: 0,
                begun: Instant::now(),
                elapsed: Duration::ZERO,
                error: None,
                last_error: None,
                result: None,
            });
            all.len() - 1
        });
        note(&mut all[at])
    }

    /// Counts an attempt, whatever becomes of it; it lasts as long as what is given back.
    pub(super) fn attempt<'a>(&'a self, id: &'a str) -> Attempt<'a, 'o> {
        self.with(id, |noted| noted.attempts += 1);
        Attempt { tally: self, id }
    }

    /// One use of the step is done.
    pub(super) fn ended(&self, id: &str, has_failed: bool) {
        let dropped = self.with(id, |noted| {
            let error = noted.error.take();
            match has_failed && noted.last_error.is_none() {
                true => std::mem::replace(&mut noted.last_error, error),
                false => error,
            }
        });
        drop_caught(dropped);
    }

    pub(super) fn failed(&self, id: &str, error: RunError) {
        let before = self.with(id, |noted| noted.error.replace(error));
        drop_caught(before);
    }

    /// What has become of all: of a step in a loop, of all its uses.
    pub(super) fn note(&self, undos: &[&Undo], reached: &Reached<'_>) {
        let Reached { done, left, .. } = reached;
        for undo in undos {
            let own: Vec<&Done<'_>> = done
                .iter()
                .filter(|done| done.undo.is_some_and(|done| std::ptr::eq(done, *undo)))
                .collect();
            let error = own.iter().find_map(|done| done.result.as_ref().err());
            let values = || own.iter().filter_map(|done| done.result.as_ref().ok()).cloned();
            let is_left = left.iter().any(|planned| planned.step == undo.step);
            self.with(&undo.context.id, |noted| {
                noted.result = Some(match (error, own.as_slice()) {
                    (None, _) if is_left => {
                        Err(RunError::Failed(HandlerError::non_retriable(LEFT)))
                    }
                    (Some(error), _) => Err(noted.last_error.take().unwrap_or_else(|| {
                        RunError::Failed(HandlerError::non_retriable(error.clone()))
                    })),
                    (None, [_]) => Ok(values().next().unwrap_or_default()),
                    (None, []) => Ok(Value::Null),
                    (None, _) => Ok(values().collect()),
                });
            });
        }
    }
}

/// An attempt that is being made.
pub(super) struct Attempt<'a, 'o> {
    tally: &'a Tally<'o>,
    id: &'a str,
}

impl Drop for Attempt<'_, '_> {
    fn drop(&mut self) {
        self.tally.with(self.id, |noted| noted.elapsed = noted.begun.elapsed());
    }
}
