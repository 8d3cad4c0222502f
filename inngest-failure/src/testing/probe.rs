//! What a test sees of the closures of steps, and does to them.

use std::{
    collections::{HashMap, HashSet},
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{failure::TestTrace, transcript::Execution};
use crate::event::FailureError;

/// Travels with a request to the steps of the handler that it calls.
#[derive(Default)]
pub(crate) struct Probe {
    state: Mutex<State>,
    trace: Option<Arc<TestTrace>>,
}

#[derive(Default)]
struct State {
    /// How often each step is still to fail.
    to_fail: HashMap<String, u32>,
    /// Which of these steps nobody has come to.
    unmet: HashSet<String>,
    seen: Vec<Execution>,
}

impl Probe {
    pub(super) fn new(trace: Option<Arc<TestTrace>>) -> Self {
        Self { trace, ..Self::default() }
    }

    /// What the failed run had done, if the test says so.
    pub(crate) fn trace(&self) -> Option<Arc<TestTrace>> {
        self.trace.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fail(&self, step: String, times: u32) {
        let mut state = self.lock();
        state.unmet.insert(step.clone());
        state.to_fail.insert(step, times);
    }

    /// The steps that were to fail and that the handler has not come to.
    pub(super) fn unmet(&self) -> Vec<String> {
        self.lock().unmet.iter().cloned().collect()
    }

    /// Before a closure runs: the error, if there is one, that it is to fail with instead.
    pub(crate) fn starts(&self, step: &str) -> Option<FailureError> {
        let mut state = self.lock();
        state.unmet.remove(step);
        let left = state.to_fail.get_mut(step).filter(|left| **left > 0);
        let Some(left) = left else {
            state.seen.push(Execution::Started(step.to_owned()));
            return None;
        };
        *left -= 1;
        state.seen.push(Execution::MadeToFail(step.to_owned()));
        Some(FailureError::own("Error", "made to fail by the test"))
    }

    /// After a closure has run to its end.
    pub(crate) fn ends(&self, step: &str, error: Option<&FailureError>) {
        let step = step.to_owned();
        self.lock().seen.push(match error {
            None => Execution::Completed(step),
            Some(error) => Execution::Failed(step, error.message.clone()),
        });
    }

    /// What has happened since it was last asked.
    pub(super) fn take(&self) -> Vec<Execution> {
        mem::take(&mut self.lock().seen)
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}
