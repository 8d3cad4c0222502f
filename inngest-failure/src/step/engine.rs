//! Steps at an endpoint: what the server remembers, what it asks for, and what it is told.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::{
    Memos,
    operation::{Failed, Operation, Report, hash},
    pass::{Fault, Met, Outcome, Ticket},
};
use crate::dead_letter::CompletedStep;

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
    /// How many attempts came before this one.
    pub(crate) attempt: u32,
    /// Whether no attempt follows this one.
    pub(crate) is_last: bool,
}

/// What decides at an endpoint.
pub(crate) struct Remote {
    memos: Memos,
    ranks: HashMap<String, usize>,
    target: Option<String>,
    immediate: bool,
    attempt: u32,
    is_last: bool,
    /// How many remembered steps the handler has come to.
    recalled: usize,
    report: Option<Report>,
}

/// What becomes of the new steps.
pub(super) enum Choice {
    Run(Ticket),
    /// There is something to report.
    Report,
    Wait,
}

impl Remote {
    pub(crate) fn new(asked: Asked) -> Self {
        let Asked { memos, completed, target, immediate, attempt, is_last } = asked;
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
            attempt,
            is_last,
            recalled: 0,
            report: None,
        }
    }

    /// The rank in which the step had completed, if it had: what is not among those that the server lists follows
    /// them.
    pub(super) fn rank(&mut self, hashed: &str) -> Option<usize> {
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

    /// The steps that have completed; those of these ids have a name.
    pub(super) fn completed<'a>(
        &self,
        ids: impl Iterator<Item = &'a String>,
    ) -> Vec<CompletedStep> {
        let names: HashMap<String, &String> = ids.map(|id| (hash(id), id)).collect();
        let mut completed: Vec<(usize, CompletedStep)> = self
            .memos
            .hashes()
            .filter_map(|hashed| {
                let output = RawValue::from_string(self.memos.outcome(hashed).ok()?).ok()?;
                let name = names.get(hashed).map(|name| (*name).clone());
                let rank = self.ranks.get(hashed).copied().unwrap_or(self.ranks.len());
                Some((rank, CompletedStep { step_id: hashed.clone(), name, output }))
            })
            .collect();
        completed.sort_by(|(a, x), (b, y)| (a, &x.step_id).cmp(&(b, &y.step_id)));
        completed.into_iter().map(|(_, step)| step).collect()
    }

    pub(super) fn remembers(&self, hashed: &str) -> bool {
        self.memos.contains(hashed)
    }

    pub(super) fn unmet(&self) -> usize {
        self.memos.len() - self.recalled
    }

    /// Whether there is a step that is asked for.
    pub(super) fn has_target(&self) -> bool {
        self.target.is_some()
    }

    pub(super) fn is_target(&self, met: &Met) -> bool {
        self.target.as_ref() == Some(&met.hashed)
    }

    pub(super) fn has_report(&self) -> bool {
        self.report.is_some()
    }

    pub(super) fn take(&mut self) -> Option<Report> {
        self.report.take()
    }

    /// What becomes of the step that is asked for, if it is among the new ones.
    pub(super) fn target<'a>(
        &mut self,
        mut fresh: impl Iterator<Item = (Ticket, &'a Met)>,
    ) -> Choice {
        let target = self.target.as_ref();
        let found = target.and_then(|target| fresh.find(|(_, met)| met.hashed == *target));
        match found {
            None => Choice::Wait,
            Some((ticket, met)) if met.runs() => Choice::Run(ticket),
            Some((_, met)) => self.found(&[met]),
        }
    }

    /// What becomes of the new steps, in the order in which they were met; there is one at least. If one is asked for,
    /// nothing becomes of the others.
    pub(super) fn choose<'a>(&mut self, fresh: impl Iterator<Item = (Ticket, &'a Met)>) -> Choice {
        if self.has_target() {
            return Choice::Wait;
        }
        let (tickets, fresh): (Vec<Ticket>, Vec<&Met>) = fresh.unzip();
        match (fresh.as_slice(), tickets.as_slice()) {
            ([met], [ticket]) if met.runs() && self.immediate => Choice::Run(*ticket),
            _ => self.found(&fresh),
        }
    }

    fn found(&mut self, found: &[&Met]) -> Choice {
        let operations = found.iter().map(|met| Operation::found(met)).collect();
        self.report = Some(Report { operations, failed: None, outcome: "steps_found" });
        Choice::Report
    }

    /// A step that had run is done.
    pub(super) fn finish(&mut self, met: &Met, result: Result<String, Fault>) {
        let report = match result {
            Ok(json) => Report {
                operations: vec![Operation::ran(met, json)],
                failed: None,
                outcome: "step_ran",
            },
            Err(Fault { error, is_retriable, delay }) => {
                let is_last =
                    self.is_last || met.retries.is_some_and(|retries| self.attempt >= retries);
                let is_final = !is_retriable || is_last;
                let operations = vec![Operation::failed(met, &error, is_final)];
                let step_id = met.label.clone();
                let delay = delay.filter(|_| !is_final);
                let failed =
                    Failed { step_id, message: error.message, is_final, is_retriable, delay };
                Report { operations, failed: Some(failed), outcome: "step_failed" }
            }
        };
        match &mut self.report {
            None => self.report = Some(report),
            // A handler that goes on with a step that it had left for another may end both at once.
            Some(before) => {
                before.operations.extend(report.operations);
                before.failed = before.failed.take().or(report.failed);
            }
        }
    }

    /// The handler has dropped a step. If it was the one that was asked for, discovery goes on.
    pub(super) fn lose(&mut self, met: &Met) {
        if self.is_target(met) {
            self.target = None;
        }
    }

    /// The step that was asked for has not turned up.
    pub(super) fn give_target_up(&mut self) {
        self.report = self.missing();
    }

    /// What there is to report if the handler has not come to the step that was asked for, or does not await it.
    pub(super) fn missing(&self) -> Option<Report> {
        self.target.clone().map(Report::not_found)
    }
}
