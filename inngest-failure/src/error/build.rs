//! Everything that is wrong with the wiring, found before the first event.

use std::{error::Error, fmt};

/// Everything that is wrong with the handlers and the dispatcher's settings.
///
/// Its `Display`, and its `Debug`, so that an `unwrap` reads well, is a list of all problems, each
/// with its place in the source, the fault and the remedy.
///
/// # Examples
///
/// ```
/// use inngest_failure::Dispatcher;
///
/// let error = Dispatcher::builder().without_inventory().build().unwrap_err();
/// assert_eq!(error.problems().len(), 1);
/// ```
pub struct BuildError {
    problems: Vec<Problem>,
}

impl BuildError {
    /// The problems, sorted by their place in the source; those without a place come first.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { problems }
    }
}

/// One thing that is wrong with the wiring.
///
/// Its `Display` is the place, the fault and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Problem {
    /// Where the handler's attribute stands, if the problem is with a handler.
    pub location: Option<Location>,
    /// The handler's Rust name, such as `shop::payments::refund`, if the problem is with a handler.
    pub handler: Option<&'static str>,
    /// What is wrong.
    pub fault: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// Cloud mode without a key.
    #[cfg(any(feature = "serve", feature = "sdk"))]
    pub(crate) fn no_signing_key() -> Self {
        Self {
            location: None,
            handler: None,
            fault: "there is no signing key, so that calls could not be told from forged ones".to_owned(),
            remedy: "set `INNGEST_SIGNING_KEY` to the key that the dashboard shows, or choose dev mode with \
                     `INNGEST_DEV=1` where no one else can reach the endpoint"
                .to_owned(),
        }
    }
}

/// A place in the source.
///
/// Its `Display` is `file:line`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Location {
    /// The file, as the compiler names it.
    pub file: &'static str,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(handler), Some(location)) = (self.handler, self.location) {
            write!(f, "`{handler}` ({location}): ")?;
        }
        write!(f, "{}; {}", self.fault, self.remedy)
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        write!(f, "{n} problem{} with the failure handlers:", if n == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            write!(f, "\n  - {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for BuildError {}
