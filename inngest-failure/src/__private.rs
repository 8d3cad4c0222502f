//! What the code that `#[on_failure]` writes refers to. Not for use by hand: it changes without
//! notice, in lockstep with the macro crate.

use std::pin::Pin;

pub use inventory;
use serde::Serialize;
pub use serde_json::Value;

pub use crate::{
    error::HandlerError,
    extract::{Context, FromFailure, Needs},
    registry::{BlockingCall, Call, CallError, Entry, Handler, Registration},
};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    label = "not what a handler returns",
    note = "a handler returns nothing, or `Result<T, E>` in which `T` implements `serde::Serialize` and `E` turns into `HandlerError`, as every error does",
    note = "a function that returns a future is written as an `async fn`"
)]
pub trait HandlerOutput {
    fn into_output(self) -> Result<Value, CallError>;
}

impl HandlerOutput for () {
    fn into_output(self) -> Result<Value, CallError> {
        Ok(Value::Null)
    }
}

impl<T: Serialize, E: Into<HandlerError>> HandlerOutput for Result<T, E> {
    fn into_output(self) -> Result<Value, CallError> {
        let value = self.map_err(|error| CallError::Failed(error.into()))?;
        serde_json::to_value(value).map_err(|error| {
            let message = format!("what the handler returned can't be written as JSON: {error}");
            CallError::Failed(HandlerError::non_retriable(message))
        })
    }
}

/// Boxes a handler's future where the compiler can say that it isn't `Send`.
pub fn boxed<'a, T>(future: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
    Box::pin(future)
}

/// An argument could not be taken.
pub fn rejected(rejection: impl Into<HandlerError>) -> CallError {
    CallError::Rejected(rejection.into())
}
