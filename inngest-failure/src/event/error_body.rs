//! An error as Inngest takes it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::FailureError;

/// `{name, message, stack?, cause?}`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    name: Cow<'static, str>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Box<Self>>,
}

impl ErrorBody {
    #[cfg(any(feature = "serve", feature = "sdk"))]
    pub(crate) fn new(name: &'static str, message: String) -> Self {
        Self { name: name.into(), message, stack: None, cause: None }
    }

    /// An error in exactly this form; of one in another form, what a person needs of it.
    #[cfg(any(feature = "serve", feature = "sdk"))]
    pub(crate) fn read(json: &str) -> FailureError {
        match serde_json::from_str::<Self>(json) {
            Ok(body) => body.into(),
            Err(_) => FailureError::from_body(json),
        }
    }

    pub(crate) fn of(error: &FailureError) -> Self {
        Self {
            name: error.name.clone().into(),
            message: error.message.clone(),
            stack: error.stack.clone(),
            cause: error.cause.as_deref().map(|cause| Box::new(Self::of(cause))),
        }
    }
}

impl From<ErrorBody> for FailureError {
    fn from(body: ErrorBody) -> Self {
        let mut error = Self::own(body.name, body.message);
        error.stack = body.stack;
        error.cause = body.cause.map(|cause| Box::new((*cause).into()));
        error
    }
}
