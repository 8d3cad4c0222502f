//! How far it is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    super::output::{count, say},
    report::Report,
};

/// How often there is a line.
const EVERY: Duration = Duration::from_secs(10);

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    label: &'static str,
    said: Instant,
}

impl Progress {
    /// `bytes` are all that there is to read, if that is known.
    pub(super) fn new(bytes: Option<u64>, label: &'static str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let (bar, template) = match bytes {
                Some(bytes) => {
                    (ProgressBar::new(bytes), "{wide_bar} {percent}%, {msg}, {eta} left")
                }
                None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {msg}, {elapsed}"),
            };
            bar.enable_steady_tick(Duration::from_millis(200));
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Self { bar, label, said: Instant::now() }
    }

    /// So many bytes are read.
    pub(super) fn read(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    /// Another failure is handled.
    pub(super) fn done(&mut self, report: &Report) {
        if self.bar.is_none() && self.said.elapsed() < EVERY {
            return;
        }
        let message = format!(
            "{} {}, {} failed",
            count(report.events(), "failure"),
            self.label,
            count(report.failed_runs(), "run"),
        );
        match &self.bar {
            Some(bar) => bar.set_message(message),
            None => {
                say(&message);
                self.said = Instant::now();
            }
        }
    }

    /// A line for the user.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => say(line),
        }
    }

    /// Hides the bar while something else is written.
    pub(super) fn hidden<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    pub(super) fn end(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
