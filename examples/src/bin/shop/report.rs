//! The table of what happened.

use std::fmt;

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use examples::{shop::COUNT, tidy};
use inngest_failure::{Dispatch, FailureEvent, HandlerRun};
use serde_json::Value;

/// The table of what happened.
///
/// Beside each failure, which takes two lines, stand the handlers that ran, a line each.
pub(crate) struct Report {
    table: Table,
}

impl Default for Report {
    fn default() -> Self {
        let mut table = Table::new();
        // In a terminal the columns share its width; in a pipe no line is broken.
        table
            .load_preset(UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(["line", "failed function, why", "handler", "attempts", "outcome"]);
        Self { table }
    }
}

impl Report {
    /// `undone` are the steps of the failed run that were undone, in order.
    pub(crate) fn add(
        &mut self,
        line: usize,
        event: &FailureEvent,
        dispatch: &Dispatch,
        undone: &[String],
    ) {
        let function_id = tidy(event.function_id(), 60);
        let why = tidy(&event.error().message, 40);
        let mut failure = [[line.to_string(), function_id], [String::new(), why]].into_iter();

        let mut runs: Vec<&HandlerRun> = dispatch.runs.iter().collect();
        // A dispatch has its runs by the handlers' ids, of which those of undos end with their steps.
        runs.sort_by_key(|run| {
            let (_, step) = run.handler_id.split_once('/')?;
            Some(undone.iter().position(|other| other == step).unwrap_or(undone.len()))
        });

        let unhandled = ["none".to_owned(), "0".to_owned(), "unhandled".to_owned()];
        let mut handled = runs
            .into_iter()
            // The catch-all runs every time: its result is the count below the table.
            .filter(|run| run.handler_id != COUNT || run.result.is_err())
            .map(|run| [run.handler_id.clone(), run.attempts.to_string(), outcome(run)])
            .chain(dispatch.is_unhandled().then_some(unhandled));

        loop {
            let (left, right) = (failure.next(), handled.next());
            if left.is_none() && right.is_none() {
                break;
            }
            let (left, right) = (left.unwrap_or_default(), right.unwrap_or_default());
            self.table.add_row(left.into_iter().chain(right));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.table)
    }
}

fn outcome(run: &HandlerRun) -> String {
    match &run.result {
        // The undo of a step that is not among those that the failed run had completed.
        Ok(Value::Null) if run.attempts == 0 => "had not completed".to_owned(),
        Ok(Value::Null) => "ok".to_owned(),
        Ok(Value::String(text)) => tidy(text, 100),
        Ok(value) => tidy(&value.to_string(), 100),
        Err(error) => tidy(&format!("failed: {error}"), 200),
    }
}
