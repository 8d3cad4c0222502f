//! Which failures a handler takes: the rule as a matcher, and as a CEL expression for the server.

mod cel;
#[cfg(test)]
mod equivalence;
mod expression;
mod glob;
mod index;

use std::fmt;

#[cfg(any(feature = "serve", feature = "sdk"))]
pub(crate) use self::cel::is_understood;
pub(crate) use self::cel::triggers;
pub use self::{cel::Trigger, expression::check_expression};
pub(crate) use self::{glob::Glob, index::Index};
use crate::event::{FailureEvent, FailureKind};

/// Which failures a handler takes.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub(crate) target: Target,
    /// Only failures whose `data.error.name` is this.
    pub(crate) error: Option<String>,
    /// Cancelled runs too.
    pub(crate) cancelled: bool,
}

/// Whose failures a handler takes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Those of the functions that the handler names: by composite id, or by a pattern.
    Named(Glob),
    /// Those of every function of the environment, or of one app.
    Every { app: Option<String> },
    /// Those of every function, or of every one of one app, if no handler that names the function
    /// takes the failure.
    Fallback { app: Option<String> },
}

/// What of a failure decides who handles it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) kind: FailureKind,
    pub(crate) function_id: &'a str,
    pub(crate) error_name: Option<&'a str>,
}

impl<'a> From<&'a FailureEvent> for Subject<'a> {
    fn from(event: &'a FailureEvent) -> Self {
        Self {
            kind: event.kind(),
            function_id: event.function_id(),
            error_name: event.wire_error_name(),
        }
    }
}

impl Selector {
    /// Whether it takes a function's failures whatever other handlers do: every selector but `*`
    /// and the fallback.
    pub(crate) fn names_functions(&self) -> bool {
        matches!(self.target, Target::Named(_))
    }

    /// The one function that it names, if it does not name them by a pattern.
    pub(crate) fn exact_id(&self) -> Option<&str> {
        match &self.target {
            Target::Named(glob) => glob.exact(),
            Target::Every { .. } | Target::Fallback { .. } => None,
        }
    }

    /// Whether a selector that names no app can be one for functions of this app: a composite id does not say
    /// where its app ends.
    #[cfg(feature = "serve")]
    pub(crate) fn may_name_app(&self, app: &str) -> bool {
        match &self.target {
            Target::Named(glob) => is_of_app(&glob.pieces()[0], app),
            Target::Every { .. } | Target::Fallback { .. } => false,
        }
    }

    /// Whether it takes failures of this function.
    pub(crate) fn covers(&self, function_id: &str) -> bool {
        match &self.target {
            Target::Named(glob) => glob.matches(function_id),
            Target::Every { app } | Target::Fallback { app } => match app {
                Some(app) => is_of_app(function_id, app),
                None => true,
            },
        }
    }

    /// Whether it takes a failure of this kind with this error, whichever function failed.
    pub(super) fn admits(&self, subject: Subject<'_>) -> bool {
        let kind = subject.kind == FailureKind::Failed || self.cancelled;
        kind && self.error.as_deref().is_none_or(|error| subject.error_name == Some(error))
    }

    /// Whether it takes the failure. Of a fallback: if no handler that names the function does.
    pub(crate) fn matches(&self, subject: Subject<'_>) -> bool {
        self.admits(subject) && self.covers(subject.function_id)
    }
}

/// A composite id does not say where the app ends: the app `shop` is taken to have the functions of
/// an app `shop-eu` too.
fn is_of_app(function_id: &str, app: &str) -> bool {
    function_id.strip_prefix(app).is_some_and(|rest| rest.starts_with('-'))
}

/// As a table for operators shows it.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Named(glob) => write!(f, "{glob}")?,
            Target::Every { app: None } => f.write_str("*")?,
            Target::Every { app: Some(app) } => write!(f, "* of {app}")?,
            Target::Fallback { app: None } => f.write_str("fallback")?,
            Target::Fallback { app: Some(app) } => write!(f, "fallback of {app}")?,
        }
        if let Some(error) = &self.error {
            write!(f, ", error {error}")?;
        }
        if self.cancelled {
            f.write_str(", or cancelled")?;
        }
        Ok(())
    }
}
