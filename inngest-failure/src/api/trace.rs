//! Traces from the API: REST v2.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::de::IgnoredAny;

use super::{Answer, Api, ApiError, Mode};
use crate::{
    __private::BoxFuture,
    dispatcher::shown,
    trace::{RunTrace, TraceError, TraceSource},
};

/// How often a trace is asked for, in one call of a handler: the server may be busy, or not yet have noted that the run is
/// over. Whoever needs the trace is tried again besides.
const ATTEMPTS: u32 = 4;

/// How long to wait before it is asked for again, the first time; then twice as long, and so on.
const FIRST_WAIT: Duration = Duration::from_millis(100);

impl TraceSource for Api {
    fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
        Box::pin(async move {
            let mut wait = FIRST_WAIT;
            for _ in 1..ATTEMPTS {
                match self.ask(run_id).await {
                    Asked::Again(_) => {}
                    Asked::Done(result) => return result,
                }
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            match self.ask(run_id).await {
                Asked::Again(result) | Asked::Done(result) => result,
            }
        })
    }
}

/// What has come of one question.
enum Asked {
    Done(Result<RunTrace, TraceError>),
    /// It may be another one soon.
    Again(Result<RunTrace, TraceError>),
}

impl Api {
    async fn ask(&self, run_id: &str) -> Asked {
        // It becomes a part of a path.
        if run_id.is_empty()
            || !run_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Asked::Done(Err(TraceError::UnknownRun { run_id: shown(run_id).to_owned() }));
        }
        // The cloud has it at the first of these, a server of one's own at the second.
        let mut paths = ["/v2", "/api/v2"];
        if self.mode() == Mode::Dev {
            paths.reverse();
        }
        let mut is_unknown = false;
        for base in paths {
            let path = format!("{base}/runs/{run_id}/trace?includeOutput=true");
            let answer = match self.request(Method::GET, &path, &[], Bytes::new()).await {
                Ok(answer) => answer,
                Err(error) => return Asked::Again(Err(failed(error))),
            };
            match answer.status() {
                // A proxy may say so as well, and the other place have it.
                StatusCode::NOT_FOUND => is_unknown |= is_json(&answer),
                status if status.is_success() => return self.read(run_id, &answer),
                status => {
                    let error = self.refused(run_id, status);
                    return match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
                    {
                        true => Asked::Again(Err(error)),
                        false => Asked::Done(Err(error)),
                    };
                }
            }
        }
        if is_unknown {
            return Asked::Done(Err(TraceError::UnknownRun { run_id: run_id.to_owned() }));
        }
        Asked::Done(Err(TraceError::Unsupported {
            message: format!(
                "Inngest at `{}` has no traces, neither at `/v2` nor at `/api/v2`; update a server of your own, and see \
                 that `INNGEST_API_BASE_URL` is the API's if it is set",
                self.api_origin(),
            ),
        }))
    }

    fn read(&self, run_id: &str, answer: &Answer) -> Asked {
        match RunTrace::from_slice(answer.body()) {
            Ok(trace) if trace.is_unfinished() => Asked::Again(Ok(trace)),
            Ok(trace) => Asked::Done(Ok(trace)),
            Err(error) => {
                let message = format!(
                    "what Inngest at `{}` gives for the trace of run `{run_id}` is none",
                    self.api_origin()
                );
                Asked::Done(Err(failed(ApiError::new(message, error))))
            }
        }
    }

    fn refused(&self, run_id: &str, status: StatusCode) -> TraceError {
        let remedy = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "; see that `INNGEST_SIGNING_KEY` is that of the environment"
            }
            _ => "",
        };
        failed(ApiError::of_message(format!(
            "Inngest at `{}` does not give the trace of run `{run_id}`: {status}{remedy}",
            self.api_origin()
        )))
    }
}

/// A server that knows traces says in JSON that it does not know the run.
fn is_json(answer: &Answer) -> bool {
    serde_json::from_slice::<IgnoredAny>(answer.body()).is_ok()
}

fn failed(error: ApiError) -> TraceError {
    TraceError::other(error.chain())
}
