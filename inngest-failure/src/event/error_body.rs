//! An error as Inngest takes it.

use std::borrow::Cow;

use serde::Serialize;

use super::FailureError;

/// `{name, message, stack?, cause?}`.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody {
    name: Cow<'static, str>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Box<Self>>,
}

impl ErrorBody {
    pub(crate) fn new(name: &'static str, message: String) -> Self {
        Self { name: name.into(), message, stack: None, cause: None }
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
