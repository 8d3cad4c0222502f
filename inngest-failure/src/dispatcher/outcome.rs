//! What has become of a run, in short.

use std::time::Duration;

use serde_json::Value;

use super::RunError;
use crate::panic::{Panic, catch};

/// What an error says of itself. It is the user's own, so that to look at it may panic.
pub(crate) struct Look {
    pub(crate) message: String,
    pub(crate) is_retriable: bool,
    pub(crate) delay: Option<Duration>,
}

impl Look {
    pub(crate) fn at(error: &RunError) -> Self {
        let look = || Self {
            message: error.to_string(),
            is_retriable: match error {
                RunError::Failed(error) => error.is_retriable(),
                RunError::TimedOut | RunError::Panicked { .. } => true,
                RunError::Payload(_) | RunError::RateLimited => false,
            },
            delay: match error {
                RunError::Failed(error) => error.retry_delay(),
                _ => None,
            },
        };
        catch(look).unwrap_or_else(|Panic { message, location }| Self {
            message: format!(
                "an error that panicked at {location} when it was looked at: {message}"
            ),
            is_retriable: true,
            delay: None,
        })
    }
}

pub(super) const SUCCEEDED: &str = "succeeded";

/// The run's outcome as a span field.
pub(crate) fn outcome(result: &Result<Value, RunError>) -> &'static str {
    result.as_ref().map_or_else(outcome_of, |_| SUCCEEDED)
}

pub(super) fn outcome_of(error: &RunError) -> &'static str {
    match error {
        RunError::Failed(_) => "failed",
        RunError::Payload(_) => "payload",
        RunError::TimedOut => "timed_out",
        RunError::Panicked { .. } => "panicked",
        RunError::RateLimited => "rate_limited",
    }
}
