//! Steps at an endpoint: what the server remembers, what it asks for, and what it is told.

use std::collections::HashMap;

use super::{
    Memos,
    operation::{Failed, Operation, Report},
    pass::{Met, Outcome, StepFailure, Ticket},
};

/// What a call says of its run's steps.
pub(crate) struct Asked {
    /// What the server remembers of the steps.
    pub(crate) memos: Memos,
    /// The hashed ids of steps in the order in which they have completed.
    pub(crate) completed: Vec<String>,
    /// The hashed id of the one step that is to run.
    pub(crate) target: Option<String>,
    /// Whether a step that is found alone may run at once.
    pub(crate) immediate: bool,
    /// Whether no attempt follows this one.
    pub(crate) is_last: bool,
}

/// What decides at an endpoint.
pub(crate) struct Remote {
    memos: Memos,
    ranks: HashMap<String, usize>,
    target: Option<String>,
    target_is_met: bool,
    immediate: bool,
    is_last: bool,
    /// How many remembered steps the handler has come to.
    recalled: usize,
    report: Option<Report>,
}

/// What becomes of the new steps.
pub(super) enum Choice {
    Run(Ticket),
    /// They were reported.
    Report,
    Wait,
}

impl Remote {
    pub(crate) fn new(asked: Asked) -> Self {
        let Asked { memos, completed, target, immediate, is_last } = asked;
        let mut ranks = HashMap::with_capacity(completed.len());
        for hashed in completed {
            let rank = ranks.len();
            ranks.entry(hashed).or_insert(rank);
        }
        // A step that is asked for and remembered was asked for twice.
        let is_done = target.as_ref().is_some_and(|target| memos.contains(target));
        Self {
            memos,
            ranks,
            immediate: immediate && target.is_none(),
            target: target.filter(|_| !is_done),
            target_is_met: false,
            is_last,
            recalled: 0,
            report: None,
        }
    }

    /// The rank in which the step had completed, if it had: what is not among those that the server lists follows
    /// them.
    pub(super) fn rank(&mut self, hashed: &str) -> Option<usize> {
        self.target_is_met |= self.target.as_deref() == Some(hashed);
        if !self.memos.contains(hashed) {
            return None;
        }
        self.recalled += 1;
        Some(self.ranks.get(hashed).copied().unwrap_or(self.ranks.len()))
    }

    /// The outcome of a step that has a rank.
    pub(super) fn outcome(&self, hashed: &str) -> Outcome {
        self.memos.outcome(hashed)
    }

    pub(super) fn unmet(&self) -> usize {
        self.memos.len() - self.recalled
    }

    /// Whether the step that is asked for has not turned up.
    pub(super) fn awaits_target(&self) -> bool {
        self.target.is_some() && !self.target_is_met
    }

    pub(super) fn has_report(&self) -> bool {
        self.report.is_some()
    }

    pub(super) fn take(&mut self) -> Option<Report> {
        self.report.take()
    }

    /// What becomes of the new steps, in the order in which they were met; there is one at least.
    pub(super) fn choose<'a>(&mut self, fresh: impl Iterator<Item = (Ticket, &'a Met)>) -> Choice {
        let fresh: Vec<_> = match &self.target {
            None => fresh.collect(),
            Some(target) if self.target_is_met => {
                fresh.filter(|(_, met)| met.hashed == *target).collect()
            }
            Some(_) => Vec::new(),
        };
        match fresh.as_slice() {
            [] => Choice::Wait,
            [(ticket, met)] if met.runs() && (self.immediate || self.target.is_some()) => {
                Choice::Run(*ticket)
            }
            found => {
                self.report = Some(Report {
                    operations: found.iter().map(|(_, met)| Operation::found(met)).collect(),
                    failed: None,
                    outcome: "steps_found",
                });
                Choice::Report
            }
        }
    }

    /// A step that had run is done.
    pub(super) fn finish(&mut self, met: &Met, result: Result<String, StepFailure>) {
        self.report = Some(match result {
            Ok(json) => Report {
                operations: vec![Operation::ran(met, json)],
                failed: None,
                outcome: "step_ran",
            },
            Err(StepFailure { error, is_retriable, delay }) => {
                let is_final = !is_retriable || self.is_last;
                let operations = vec![Operation::failed(met, &error, is_final)];
                let step_id = met.id.clone();
                let delay = delay.filter(|_| !is_final);
                let failed =
                    Failed { step_id, message: error.message, is_final, is_retriable, delay };
                Report { operations, failed: Some(failed), outcome: "step_failed" }
            }
        });
    }

    /// The handler has dropped a step that had started. If it was the one that was asked for, discovery goes on.
    pub(super) fn lose(&mut self, met: &Met) {
        if self.target.as_ref() == Some(&met.hashed) {
            self.target = None;
        }
    }

    /// The step that was asked for has not turned up.
    pub(super) fn give_target_up(&mut self) {
        self.report = self.missing();
    }

    /// What there is to report if the step that was asked for has not turned up.
    pub(crate) fn missing(&self) -> Option<Report> {
        let target = self.target.as_ref().filter(|_| !self.target_is_met)?;
        let operations = vec![Operation::not_found(target.clone())];
        Some(Report { operations, failed: None, outcome: "step_not_found" })
    }
}
