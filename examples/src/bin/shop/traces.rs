//! Where it is known from what failed runs had done: a folder, in place of Inngest's API.
//!
//! The example's own, `data/traces`, are the answers of a real Inngest server's API about the failed checkouts in
//! `data/events.jsonl`; `data/README.md` says what was replaced in them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use inngest_failure::{Api, BoxFuture, RunTrace, TraceError, TraceSource};

/// A folder with a file for each run.
pub(crate) struct Traces {
    folder: PathBuf,
    /// Who is asked for what is not there.
    api: Option<Api>,
}

impl Traces {
    /// The traces that belong to the example's own events.
    pub(crate) fn shipped() -> Self {
        Self::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/traces"))
    }

    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, api: None }
    }

    /// The same, with Inngest's API for runs that are not in the folder.
    pub(crate) fn or_ask(self, api: Api) -> Self {
        Self { api: Some(api), ..self }
    }

    fn read(&self, run_id: &str) -> Result<RunTrace, TraceError> {
        // It came with an event, and becomes a part of a path.
        if !run_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(TraceError::other(format!("`{run_id}` is no run id")));
        }
        let path = self.folder.join(format!("{run_id}.json"));
        let json = fs::read(&path).map_err(|error| match error.kind() {
            // No retry will mend that.
            io::ErrorKind::NotFound => TraceError::Unsupported {
                message: format!("there is no trace `{}`; put it there", path.display()),
            },
            _ => TraceError::other(format!("cannot read `{}`: {error}", path.display())),
        })?;
        RunTrace::from_slice(&json).map_err(TraceError::other)
    }
}

impl TraceSource for Traces {
    fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
        Box::pin(async move {
            match (self.read(run_id), &self.api) {
                (Err(TraceError::Unsupported { .. }), Some(api)) => api.trace(run_id).await,
                (result, _) => result,
            }
        })
    }
}
