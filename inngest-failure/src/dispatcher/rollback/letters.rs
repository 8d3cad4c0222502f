//! The dead letters of a rollback: one for each undo.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use super::{LEFT, Reached, Tally, Undo, Undos, undo::undo_key};
use crate::{
    dead_letter::{CompletedStep, DeadLetter},
    event::{FailureError, FailureEvent},
    extract::Context,
    registry::rollback_id,
    step::Pass,
    trace::{Plan, hash},
};

impl Undos {
    /// Writes the dead letters of undos that have failed for good, or that were left for another's failure: in the order
    /// in which they were to be undone, so that they can be tried again in it.
    pub(super) async fn bury(
        &self,
        cx: &Context,
        pass: &Arc<Pass>,
        undos: &[&Undo],
        reached: &Reached<'_>,
        tally: Option<&Tally<'_>>,
    ) {
        if self.letters.is_empty() {
            return;
        }
        let Reached { plan, done, left } = reached;
        let failed = done.iter().filter_map(|done| {
            Some((done.planned.step.as_str(), done.result.as_ref().err()?.clone()))
        });
        let left =
            left.iter().map(|planned| (planned.step.as_str(), FailureError::own("Left", LEFT)));
        let completed = pass.completed();
        let mut seen = HashSet::new();
        for (step, error) in failed.chain(left) {
            // A step in a loop has one letter.
            if !seen.insert(step) {
                continue;
            }
            let (handler_id, attempts) = match undos.iter().find(|undo| undo.step == step) {
                Some(undo) => {
                    let id = &undo.context.id;
                    (id.clone(), tally.map(|tally| tally.attempts(id)))
                }
                // There is no handler for it any more: the letter waits until there is one again.
                None => (format!("{}/{step}", rollback_id(cx.event().function_id())), Some(0)),
            };
            let steps = steps(&plan.only(step), &completed);
            self.put(cx.event(), handler_id, error, attempts, steps).await;
        }
    }

    /// Writes the dead letters of a rollback that did not get to its end.
    pub(in crate::dispatcher) async fn bury_all(
        &self,
        event: &FailureEvent,
        undos: &[&Undo],
        error: &FailureError,
        steps: &[CompletedStep],
    ) {
        for undo in undos.iter().filter(|_| !self.letters.is_empty()) {
            let id = undo.context.id.clone();
            self.put(event, id, error.clone(), Some(0), steps.to_vec()).await;
        }
    }

    async fn put(
        &self,
        event: &FailureEvent,
        handler_id: String,
        error: FailureError,
        attempts: Option<u32>,
        steps: Vec<CompletedStep>,
    ) {
        let letter = DeadLetter {
            handler_id,
            event: event.clone(),
            error,
            attempts,
            failed_at: SystemTime::now(),
            steps,
        };
        self.letters.put(&letter).await;
    }
}

/// What an undo need not do again: its own part of the plan, and as much of what has completed as is its own. Nobody
/// else's output has to travel with it.
fn steps(plan: &Plan, completed: &[CompletedStep]) -> Vec<CompletedStep> {
    let is_own = |step: &&CompletedStep| match step.name.as_deref() {
        Some(name) => plan.undo.iter().any(|own| name.starts_with(&undo_key(own))),
        None => step.step_id != hash("plan", 0),
    };
    plan.as_step().into_iter().chain(completed.iter().filter(is_own).cloned()).collect()
}
