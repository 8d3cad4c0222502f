//! An error as Inngest takes it.

use serde::Serialize;

use crate::dispatcher::{RunError, catch};

/// `{name, message, stack?, cause?}`.
#[derive(Debug, Serialize)]
pub(super) struct ErrorBody {
    name: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Box<Self>>,
}

impl ErrorBody {
    pub(super) fn new(name: &'static str, message: String) -> Self {
        Self { name, message, stack: None, cause: None }
    }

    /// What a handler failed with. The error is the user's own, so that to look at it may panic.
    pub(super) fn of(error: &RunError) -> Self {
        let look = || match error {
            RunError::Failed(error) => {
                let mut messages: Vec<String> = error.messages().collect();
                let mut body = None;
                while let Some(message) = messages.pop() {
                    body = Some(Self { cause: body.map(Box::new), ..Self::new("Error", message) });
                }
                body.unwrap_or_else(|| Self::new("Error", String::new()))
            }
            RunError::Panicked { message, location } => Self {
                stack: Some(format!("panicked at {location}")),
                ..Self::new("Panic", message.clone())
            },
            RunError::Payload(error) => Self::new("ParseError", error.to_string()),
            RunError::TimedOut => {
                Self::new("TimedOut", "the handler took longer than its `timeout`".to_owned())
            }
            RunError::RateLimited => Self::new("RateLimited", error.to_string()),
        };
        catch(look).unwrap_or_else(|panic| {
            let message =
                format!("an error that panicked when it was looked at: {}", panic.message);
            Self {
                stack: Some(format!("panicked at {}", panic.location)),
                ..Self::new("Error", message)
            }
        })
    }
}
