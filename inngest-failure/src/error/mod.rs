//! Everything that can go wrong, and what the caller may make of it.

mod build;
mod handler;
mod parse;
mod step;

pub use self::{
    build::{BuildError, Location, Problem},
    handler::{HandlerError, NonRetriable, ResultExt, RetryAfter},
    parse::ParseError,
    step::StepError,
};

pub(crate) use self::handler::chain;

/// What most crates call an error of any kind.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
