//! An event that a handler waits for.

use std::time::Duration;

/// An event to wait for: see [`Step::wait_for_event`](super::Step::wait_for_event).
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is given to a step"]
pub struct Wait {
    pub(super) event: String,
    pub(super) timeout: Duration,
    pub(super) expression: Option<String>,
}

impl Wait {
    /// The next event of this name, if it comes in time.
    pub fn new(event: impl Into<String>, timeout: Duration) -> Self {
        Self { event: event.into(), timeout, expression: None }
    }

    /// Only one for which the CEL expression holds: `event` is the failure event that started the handler, `async` the one
    /// that comes.
    pub fn matching(mut self, expression: impl Into<String>) -> Self {
        self.expression = Some(expression.into());
        self
    }
}
