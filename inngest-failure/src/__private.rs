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
    selector::check_expression,
};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What goes through the arguments of a handler: it asks what they need, or takes their values.
#[derive(Debug)]
pub enum Arguments<'a> {
    Needs(&'a mut Needs),
    Values(&'a Context),
}

impl<'a> Arguments<'a> {
    /// The next argument's value. Where the arguments are only asked, nobody waits for it.
    pub fn take<T: FromFailure>(
        &mut self,
    ) -> impl Future<Output = Result<T, CallError>> + Send + use<'a, T> {
        let cx = match self {
            Self::Needs(needs) => {
                T::needs(needs);
                None
            }
            Self::Values(cx) => Some(*cx),
        };
        async move {
            match cx {
                Some(cx) => T::from_failure(cx)
                    .await
                    .map_err(|rejection| CallError::Rejected(rejection.into())),
                None => std::future::pending().await,
            }
        }
    }
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    label = "not what a handler returns",
    note = "a handler returns nothing, or `Result<T, E>` in which `T` implements `serde::Serialize` and `E` turns into `HandlerError`, as text and errors do",
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

impl<T: HandlerValue, E: IntoHandlerError> HandlerOutput for Result<T, E> {
    fn into_output(self) -> Result<Value, CallError> {
        let value = self.map_err(|error| CallError::Failed(error.into_handler_error()))?;
        value.into_value().map_err(|error| {
            let message = format!("what the handler returned can't be written as JSON: {error}");
            CallError::Failed(HandlerError::non_retriable(message))
        })
    }
}

/// `Serialize`, with a message of its own.
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`, which does not implement `serde::Serialize`",
    label = "the value can't be written as JSON",
    note = "derive `serde::Serialize` for `{Self}`, or return `Result<(), _>`"
)]
pub trait HandlerValue {
    fn into_value(self) -> serde_json::Result<Value>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize> HandlerValue for T {
    fn into_value(self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}

/// `Into<HandlerError>`, with a message of its own.
#[diagnostic::on_unimplemented(
    message = "a handler can't fail with `{Self}`, which does not turn into `HandlerError`",
    label = "the error does not turn into `HandlerError`",
    note = "`HandlerError` takes text and every `std::error::Error` that is `Send + Sync + 'static`, boxed or not",
    note = "implement `std::error::Error` for `{Self}`, or return `Result<_, HandlerError>`; a `Box<dyn Error>` must be a `Box<dyn Error + Send + Sync>`"
)]
pub trait IntoHandlerError {
    fn into_handler_error(self) -> HandlerError;
}

#[diagnostic::do_not_recommend]
impl<E: Into<HandlerError>> IntoHandlerError for E {
    fn into_handler_error(self) -> HandlerError {
        self.into()
    }
}

/// Boxes a handler's future where the compiler can say that it isn't `Send`.
pub fn boxed<'a, T>(future: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
    Box::pin(future)
}

/// The type of a text, asked for where the text stands.
pub const fn text(text: &'static str) -> &'static str {
    text
}

/// A constant is not known to the attribute, so the compiler checks it.
#[track_caller]
pub const fn check_text(text: &str) {
    assert!(
        !text.trim_ascii().is_empty(),
        "this constant is blank; let it say what the argument is about"
    );
}

/// An app's id is no pattern.
#[track_caller]
pub const fn check_app(app: &str) {
    check_text(app);
    assert!(!has_star(app), "`app` takes no `*`; leave `app` out, or write a handler for each app");
}

/// The id of a function one of whose steps is undone is no pattern.
#[track_caller]
pub const fn check_function(function: &str) {
    check_text(function);
    assert!(
        !has_star(function),
        "`function` takes no `*` beside `step`; write a handler for each function"
    );
}

const fn has_star(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'*' {
            return true;
        }
        i += 1;
    }
    false
}
