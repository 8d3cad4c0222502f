//! What became of all failures, in numbers.

use std::{collections::BTreeMap, fmt};

use super::{
    super::output::{count, grouped, table, tidy},
    engine::{Done, Preview},
};
use crate::dispatcher::RunError;

#[derive(Default)]
pub(super) struct Report {
    handlers: BTreeMap<String, Counts>,
    events: u64,
    unhandled: u64,
    /// Whether nothing has run.
    is_preview: bool,
    /// Failures from before the time that was asked for.
    pub(super) older: u64,
    /// Events of other names.
    pub(super) others: u64,
    /// What could not be read.
    pub(super) faults: u64,
    /// Failures of which the ledger does not tell what became of them.
    unrecorded: u64,
}

#[derive(Default)]
struct Counts {
    succeeded: u64,
    failed: u64,
    rate_limited: u64,
    before: u64,
    would_run: u64,
    attempts: u64,
}

impl Report {
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn failed_runs(&self) -> u64 {
        self.handlers.values().map(|counts| counts.failed).sum()
    }

    /// Whether every failure was handled, and everything could be read.
    pub(super) fn is_well(&self) -> bool {
        let counts = || self.handlers.values();
        self.faults + self.unrecorded == 0
            && counts().all(|counts| counts.failed + counts.rate_limited == 0)
            && (self.unhandled == 0 || self.is_preview)
    }

    /// Counts a failure, and gives the lines that there are to say about it. Nothing more is to be handled if the ledger
    /// is of no use.
    pub(super) fn add(&mut self, done: Done, stop_reason: &mut Option<String>) -> Vec<String> {
        let mut lines = Vec::new();
        self.events += 1;
        for id in done.before {
            self.handlers.entry(id).or_default().before += 1;
        }
        for run in done.runs {
            let counts = self.handlers.entry(run.handler_id.clone()).or_default();
            counts.attempts += u64::from(run.attempts);
            match &run.result {
                Ok(_) => counts.succeeded += 1,
                Err(error @ RunError::RateLimited) => {
                    counts.rate_limited += 1;
                    lines.push(format!("{} {error}", run.handler_id));
                }
                Err(error) => {
                    counts.failed += 1;
                    let attempts = count(run.attempts.into(), "attempt");
                    let error = tidy(&error.to_string(), 300);
                    lines.push(format!(
                        "{} failed for good after {attempts}: {error}",
                        run.handler_id
                    ));
                }
            }
        }
        if done.is_unhandled {
            self.unhandled += 1;
            lines.push(
                "unhandled: no handler that names the function takes it, and no fallback"
                    .to_owned(),
            );
        }
        if let Some(error) = done.ledger_error {
            self.unrecorded += 1;
            stop_reason.get_or_insert_with(|| "stopped, for the ledger is of no use,".to_owned());
            lines.push(error);
        }
        lines
    }

    /// Counts a failure for which nothing is run.
    pub(super) fn preview(&mut self, preview: Preview) {
        self.is_preview = true;
        self.events += 1;
        self.unhandled += u64::from(preview.is_unhandled);
        for id in preview.before {
            self.handlers.entry(id).or_default().before += 1;
        }
        for id in preview.would_run {
            self.handlers.entry(id).or_default().would_run += 1;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.handlers.is_empty() {
            let mut table = match self.is_preview {
                true => table(["handler", "would run", "done before"]),
                false => {
                    table(["handler", "succeeded", "failed", "limited", "done before", "attempts"])
                }
            };
            for (id, counts) in &self.handlers {
                let Counts { succeeded, failed, rate_limited, before, would_run, attempts } =
                    *counts;
                match self.is_preview {
                    true => table.add_row([id.clone(), grouped(would_run), grouped(before)]),
                    false => {
                        table.add_row([id.clone()].into_iter().chain(
                            [succeeded, failed, rate_limited, before, attempts].map(grouped),
                        ))
                    }
                };
            }
            writeln!(f, "{table}")?;
        }
        write!(f, "{}", count(self.events, "failure event"))?;
        for (number, what) in [
            (self.unhandled, "unhandled"),
            (self.older, "older and left out"),
            (self.others, "of another kind and skipped"),
            (self.faults, "not readable"),
            (self.unrecorded, "not in the ledger"),
        ] {
            if number > 0 {
                write!(f, ", {} {what}", grouped(number))?;
            }
        }
        writeln!(f)
    }
}
