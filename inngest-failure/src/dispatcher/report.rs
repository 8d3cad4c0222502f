//! What became of a failure.

use std::{fmt, time::Duration};

use serde_json::Value;

use crate::{
    error::{HandlerError, ParseError},
    event::FailureError,
    panic::{Panic, catch},
};

/// What became of one failure event: a run for each handler that took it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Dispatch {
    /// The composite id of the function that had failed.
    pub function_id: String,
    /// The id of the run that had failed.
    pub run_id: String,
    /// One run per handler, sorted by the handlers' ids.
    pub runs: Vec<HandlerRun>,
    pub(super) unhandled: bool,
}

impl Dispatch {
    /// Whether neither a handler that names the function nor a fallback took the failure. Handlers
    /// for every function (`*`) may have run all the same.
    pub fn is_unhandled(&self) -> bool {
        self.unhandled
    }

    /// Whether every run succeeded, which says nothing if there was none: see
    /// [`is_unhandled`](Self::is_unhandled). One that did not take place for its rate limit has not succeeded.
    pub fn is_ok(&self) -> bool {
        self.runs.iter().all(|run| run.result.is_ok())
    }
}

/// What became of one handler.
#[derive(Debug)]
#[non_exhaustive]
pub struct HandlerRun {
    /// The handler's id.
    pub handler_id: String,
    /// What it returned, null for nothing; or how its last attempt ended.
    pub result: Result<Value, RunError>,
    /// How many attempts were made, also such in which an argument could not be taken; none if the handler was
    /// rate-limited, or if it undoes a step that the failed run had not completed. With steps it may be more than the handler's `retries` and one, for each step has these to itself.
    pub attempts: u32,
    /// How long it took, waits between attempts and for its `throttle` and `concurrency` included.
    pub elapsed: Duration,
}

/// There is no handler of the id in a dead letter: it was renamed, or removed, or its crate is not linked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownHandler {
    /// The id in the letter.
    pub handler_id: String,
    pub(super) nearest: Option<String>,
}

impl fmt::Display for UnknownHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no handler `{}`", self.handler_id)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; the nearest is `{nearest}`: was it renamed?"),
            None => f.write_str("; put it back, or give another one its `id`"),
        }
    }
}

impl std::error::Error for UnknownHandler {}

/// How a handler's last attempt ended, if not well.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// It returned an error, or one of its arguments could not be taken.
    Failed(HandlerError),
    /// The original event's data does not fit the type that the handler takes; it was not tried again.
    Payload(ParseError),
    /// It took longer than its `timeout`.
    TimedOut,
    /// It panicked.
    Panicked {
        /// What it panicked with.
        message: String,
        /// Where: `file:line:column`, or `an unknown place` if the program has put a panic hook of
        /// its own in place of the dispatcher's.
        location: String,
    },
    /// Its `rate_limit` was used up, so it did not run, and will not for this failure.
    RateLimited,
}

/// The error with its causes, as a log line shows it. They are not given once more as its `source`.
impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.chain().fmt(f),
            Self::Payload(error) => error.fmt(f),
            Self::TimedOut => f.write_str("timed out"),
            Self::Panicked { message, location } => write!(f, "panicked at {location}: {message}"),
            Self::RateLimited => f.write_str("did not run, for its `rate_limit` is used up"),
        }
    }
}

impl std::error::Error for RunError {}

impl RunError {
    /// The error as Inngest has it. It may be the user's own, so that to look at it may panic.
    pub(crate) fn describe(&self) -> FailureError {
        self.describe_as(HandlerError::describe)
    }

    /// The same as a person needs it, who wants to know which step it was.
    pub(crate) fn describe_with_step(&self) -> FailureError {
        self.describe_as(HandlerError::describe_with_step)
    }

    fn describe_as(&self, of_handler: impl FnOnce(&HandlerError) -> FailureError) -> FailureError {
        let look = || match self {
            Self::Failed(error) => of_handler(error),
            Self::Panicked { message, location } => {
                Panic { message: message.clone(), location: location.clone() }.describe()
            }
            Self::Payload(error) => FailureError::own("ParseError", error.to_string()),
            Self::TimedOut => {
                FailureError::own("TimedOut", "the handler took longer than its `timeout`")
            }
            Self::RateLimited => FailureError::own("RateLimited", self.to_string()),
        };
        catch(look).unwrap_or_else(|Panic { message, location }| {
            let message = format!("an error that panicked when it was looked at: {message}");
            let mut error = FailureError::own("Error", message);
            error.stack = Some(format!("panicked at {location}"));
            error
        })
    }
}
