//! Traces from the API: REST v2.

use bytes::Bytes;

use super::{
    Api, ApiError,
    rest::{Asked, Refused, ask_again},
};
use crate::{
    __private::BoxFuture,
    dispatcher::shown,
    trace::{RunTrace, TraceError, TraceSource},
};

impl TraceSource for Api {
    fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
        Box::pin(async move { Ok(self.fetch_trace(run_id).await?.0) })
    }
}

impl Api {
    /// The trace as the API gives it, for who needs more of it than a [`RunTrace`] keeps.
    #[cfg(feature = "cli")]
    pub(crate) async fn raw_trace(&self, run_id: &str) -> Result<Bytes, TraceError> {
        let (trace, json) = self.fetch_trace(run_id).await?;
        match trace.is_unfinished() {
            true => Err(TraceError::Unfinished { run_id: run_id.to_owned() }),
            false => Ok(json),
        }
    }

    /// The trace, and the text from which it was read. It is the caller's affair if the run has not ended.
    async fn fetch_trace(&self, run_id: &str) -> Result<(RunTrace, Bytes), TraceError> {
        // It becomes a part of a path.
        if run_id.is_empty()
            || !run_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(TraceError::UnknownRun { run_id: shown(run_id).to_owned() });
        }
        let path = format!("/runs/{run_id}/trace?includeOutput=true");
        let what = format!("the trace of run `{run_id}`");
        ask_again(|| async {
            match self.ask(&path, &what, "traces").await {
                Ok(json) => self.read(run_id, json),
                Err(refused) => refused.map(|refused| Err(trace_error(run_id, refused))),
            }
        })
        .await
    }

    fn read(&self, run_id: &str, json: Bytes) -> Asked<Result<(RunTrace, Bytes), TraceError>> {
        match RunTrace::from_slice(&json) {
            Ok(trace) if trace.is_unfinished() => Asked::Again(Ok((trace, json))),
            Ok(trace) => Asked::Done(Ok((trace, json))),
            Err(error) => {
                let message = format!(
                    "what Inngest at `{}` gives for the trace of run `{run_id}` is none",
                    self.api_origin()
                );
                Asked::Done(Err(failed(ApiError::new(message, error))))
            }
        }
    }
}

fn trace_error(run_id: &str, refused: Refused) -> TraceError {
    match refused {
        Refused::Unknown => TraceError::UnknownRun { run_id: run_id.to_owned() },
        Refused::Unsupported(message) => TraceError::Unsupported { message },
        Refused::Other(error) => failed(error),
    }
}

fn failed(error: ApiError) -> TraceError {
    TraceError::other(error.chain())
}
