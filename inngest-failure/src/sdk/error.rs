//! Errors of handlers as the SDK takes them, and the SDK's as handlers take them.

use std::{any::type_name, time::Duration};

use inngest::result::{DevError, Error, NonRetryableError, RetryAfterError};

use super::layer::{Answer, answer};
use crate::{
    dispatcher::{Look, RunError},
    error::{HandlerError, ParseError},
    event::ErrorBody,
    server::retry_after,
    step::StepFault,
};

/// An error of the SDK, as of a function that handlers share with the SDK's own, as a handler's error: one that is not
/// to be retried stays one, and so does one that is to be retried after a while.
///
/// The SDK's errors implement no `std::error::Error`, so that `?` does not take them.
///
/// # Examples
///
/// ```
/// use inngest::result::{DevError, NonRetryableError};
/// use inngest_failure::{HandlerError, on_failure, sdk};
///
/// /// Used by functions of the SDK as well.
/// async fn refund() -> Result<(), DevError> {
///     Err(DevError::NoRetry(NonRetryableError { message: "no such order".to_owned(), cause: None }))
/// }
///
/// #[on_failure(function = "checkout")]
/// async fn undo_checkout() -> Result<(), HandlerError> {
///     refund().await.map_err(sdk::handler_error)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// assert!(!undo_checkout().await.unwrap_err().is_retriable());
/// # }
/// ```
pub fn handler_error(error: DevError) -> HandlerError {
    let with_cause = |message: String, cause: Option<String>| match cause {
        Some(cause) => format!("{message}: {cause}"),
        None => message,
    };
    match error {
        DevError::Basic(message) => message.into(),
        DevError::RetryAt(RetryAfterError { message, after, cause }) => {
            HandlerError::retry_after(with_cause(message, cause), after)
        }
        DevError::NoRetry(NonRetryableError { message, cause }) => {
            HandlerError::non_retriable(with_cause(message, cause))
        }
    }
}

/// The answer of a handler that failed, and whether it has failed for good.
pub(super) fn failed(error: &RunError, is_last: bool) -> (Error, bool) {
    let Look { message, is_retriable, delay } = Look::at(error);
    let is_over = !is_retriable || is_last;
    if !is_over {
        tracing::warn!(error = message, wait = ?delay, "handler failed, Inngest will try it again");
    } else {
        tracing::error!(error = message, "handler failed for good");
    }
    let described = error.describe();
    answer(Answer::error(&ErrorBody::of(&described), is_retriable, delay));
    // What the SDK has no field for is in the message, which is the whole chain.
    (sdk_error(message, described.stack, is_retriable, delay), is_over)
}

/// Notes the answer of a step that failed and is to be tried again, for which the SDK has less to say.
pub(super) fn step_failed(fault: &StepFault) {
    let StepFault { step_id, error, delay } = fault;
    tracing::warn!(
        step = step_id,
        error = error.message,
        wait = ?delay,
        "step failed, Inngest will try it again",
    );
    answer(Answer::error(&ErrorBody::of(error), true, *delay));
}

fn sdk_error(
    message: String,
    cause: Option<String>,
    is_retriable: bool,
    delay: Option<Duration>,
) -> Error {
    Error::Dev(match (is_retriable, delay) {
        (false, _) => DevError::NoRetry(NonRetryableError { message, cause }),
        (true, Some(delay)) => {
            let after = Duration::from_secs(retry_after(delay));
            DevError::RetryAt(RetryAfterError { message, after, cause })
        }
        (true, None) => DevError::Basic(message),
    })
}

/// The SDK has not kept the failure event, but made something else of its data.
pub(super) struct LostData {
    message: String,
}

impl LostData {
    pub(super) fn unwritten<T>(error: serde_json::Error) -> Self {
        Self::new::<T>("can't be written as JSON again", &error)
    }

    pub(super) fn unread<T>(error: ParseError) -> Self {
        Self::new::<T>("is no failure event's any more", &error)
    }

    fn new<T>(what: &str, error: &dyn std::fmt::Display) -> Self {
        let data = type_name::<T>();
        Self {
            message: format!(
                "what the SDK has made of the event's data, `{data}`, {what}: {error}; let the server's data type be \
                 `serde_json::Value`, `sdk::EventData<T>` or an untagged enum that keeps all of it"
            ),
        }
    }

    /// The same data comes with every attempt.
    pub(super) fn into_sdk(self) -> Error {
        let Self { message } = self;
        tracing::error!(error = message, "not a failure event, nothing has run");
        answer(Answer::error(&ErrorBody::new("ParseError", message.clone()), false, None));
        sdk_error(message, None, false, None)
    }
}
