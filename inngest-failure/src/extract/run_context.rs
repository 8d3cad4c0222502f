//! Which handler runs, and which attempt it is.

use std::convert::Infallible;

use super::{Context, FromFailure};

/// Which handler runs, and which attempt it is.
///
/// # Examples
///
/// ```
/// use inngest_failure::{HandlerError, RunContext, on_failure};
///
/// #[on_failure(function = "checkout", retries = 5)]
/// async fn refund(run: RunContext) -> Result<(), HandlerError> {
///     if run.is_last_attempt() {
///         eprintln!("{}: attempt {} is the last", run.handler_id, run.attempt + 1);
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunContext {
    /// The attempt, counted from 0 as Inngest does: of the step that has failed, if it was one for which the handler is called again,
    /// and else of the handler's own code since the last step that completed. In process it is that of the attempt's
    /// beginning.
    pub attempt: u32,
    /// How many attempts there are at most: the handler's `retries` and the first one.
    pub max_attempts: u32,
    /// The handler's id.
    pub handler_id: String,
}

impl RunContext {
    /// Whether no attempt follows if this one fails.
    pub fn is_last_attempt(&self) -> bool {
        self.attempt.saturating_add(1) >= self.max_attempts
    }
}

impl FromFailure for RunContext {
    type Rejection = Infallible;

    async fn from_failure(cx: &Context) -> Result<Self, Infallible> {
        Ok(cx.run())
    }
}
