//! Where traces come from.

use std::{error::Error, fmt, sync::Arc};

use super::RunTrace;
use crate::{
    __private::BoxFuture,
    error::{BoxError, HandlerError},
};

/// Where the traces of failed runs come from.
///
/// By default that is Inngest's API. Give a dispatcher another source with
/// [`trace_source`](crate::DispatcherBuilder::trace_source): a proxy, a store, files in a test.
///
/// # Examples
///
/// ```
/// use std::{fs, path::PathBuf};
///
/// use inngest_failure::{BoxFuture, RunTrace, TraceError, TraceSource};
///
/// /// A folder with a file for each run.
/// struct Folder(PathBuf);
///
/// impl TraceSource for Folder {
///     fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
///         Box::pin(async move {
///             let json = fs::read(self.0.join(run_id)).map_err(TraceError::other)?;
///             RunTrace::from_slice(&json).map_err(TraceError::other)
///         })
///     }
/// }
/// ```
pub trait TraceSource: Send + Sync {
    /// The trace of the run with this id, once the run has ended.
    ///
    /// # Errors
    ///
    /// [`TraceError`] if it is not to be had; whoever wanted it is tried again, unless it is
    /// [`Unsupported`](TraceError::Unsupported).
    fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>>;
}

impl<S: TraceSource + ?Sized> TraceSource for Arc<S> {
    fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
        (**self).trace(run_id)
    }
}

/// Why the trace of a run is not to be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum TraceError {
    /// There is no such run there, or not yet.
    UnknownRun {
        /// The run's id.
        run_id: String,
    },
    /// There are no traces there: no retry will mend that.
    Unsupported {
        /// Where, and what to do about it.
        message: String,
    },
    /// The trace says that the run has not ended, and so may lack what it did last.
    Unfinished {
        /// The run's id.
        run_id: String,
    },
    /// Anything else.
    Other(BoxError),
}

impl TraceError {
    /// As a handler's error, which no retry mends where there are no traces at all.
    pub(crate) fn into_handler_error(self) -> HandlerError {
        match self {
            Self::Unsupported { .. } => HandlerError::non_retriable(self),
            error => error.into(),
        }
    }

    /// Any error.
    pub fn other(error: impl Into<BoxError>) -> Self {
        Self::Other(error.into())
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRun { run_id } => write!(
                f,
                "there is no trace of run `{run_id}`: Inngest does not know the run; see that the API is that of the \
                 environment in which it failed"
            ),
            Self::Unsupported { message } => f.write_str(message),
            Self::Unfinished { run_id } => {
                write!(f, "the trace of run `{run_id}` says that the run has not ended yet")
            }
            Self::Other(error) => write!(f, "the trace of the run could not be had: {error}"),
        }
    }
}

impl Error for TraceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // Its message is in this one.
            Self::Other(error) => error.source(),
            _ => None,
        }
    }
}
