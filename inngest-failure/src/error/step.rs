//! What a step fails with.

use std::{error::Error, fmt};

use super::handler::Meaning;
use crate::event::FailureError;

/// A step that failed for good: its retries are used up, its error said that no retry will mend it, its result does not
/// fit its type, or it was misused.
///
/// A handler that does not recover from it, but returns it, alone or as the cause of another error, has failed for
/// good too: the step is not tried again. `?` turns it into a [`HandlerError`](crate::HandlerError), so a handler whose
/// last expression is a step ends with `Ok(step.run(..).await?)`.
///
/// # Examples
///
/// ```
/// use inngest_failure::{HandlerError, Step, on_failure};
///
/// # async fn refund() -> Result<(), HandlerError> { Ok(()) }
/// # async fn ask_a_person(_: &str) -> Result<(), HandlerError> { Ok(()) }
/// #[on_failure(function = "checkout")]
/// async fn undo_checkout(step: Step) -> Result<(), HandlerError> {
///     if let Err(error) = step.run("refund", refund).await {
///         step.run("ask", || ask_a_person(&error.message)).await?;
///     }
///     Ok(())
/// }
/// ```
#[non_exhaustive]
pub struct StepError {
    /// The step's id, as the handler gave it.
    pub step_id: String,
    /// The class of the error, which in Rust is `Error`; `Panic` or `TimedOut` where that is what happened; of an invoked
    /// function, what its SDK says; `StepError` if the step could not be made, or if its result does not fit its type.
    pub name: String,
    /// What a person needs to know.
    pub message: String,
    /// The stack trace, if there is one.
    pub stack: Option<String>,
    /// Its inner error is the whole [`FailureError`].
    meaning: Box<Meaning>,
}

impl StepError {
    /// What the step failed with.
    pub(crate) fn new(step_id: &str, error: FailureError) -> Self {
        Self {
            step_id: step_id.to_owned(),
            name: error.name.clone(),
            message: error.message.clone(),
            stack: error.stack.clone(),
            meaning: Box::new(Meaning::non_retriable(Box::new(error))),
        }
    }

    /// A step that could not be made, or whose result is of no use.
    pub(crate) fn misuse(step_id: &str, message: impl Into<String>) -> Self {
        Self::new(step_id, FailureError::own(MISUSE, message))
    }
}

/// The name of a step's error that is none of its closure's.
const MISUSE: &str = "StepError";

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            MISUSE => f.write_str(&self.message),
            _ => write!(f, "step `{}` failed: {}", self.step_id, self.message),
        }
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepError")
            .field("step_id", &self.step_id)
            .field("name", &self.name)
            .field("message", &self.message)
            .field("stack", &self.stack)
            .finish_non_exhaustive()
    }
}

impl Error for StepError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.meaning)
    }
}
