//! The REST API, version 2: at which of two places it is, and asking again while the server is busy.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::de::IgnoredAny;

use super::{Answer, Api, ApiError, Mode};

/// How often one thing is asked for: the server may be busy, or not yet have noted that a run is over. Whoever needs it
/// is tried again besides.
const ATTEMPTS: u32 = 4;

/// How long to wait before it is asked for again, the first time; then twice as long, and so on.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// What has come of one question.
pub(super) enum Asked<T> {
    Done(T),
    /// It may be another one soon.
    Again(T),
}

impl<T> Asked<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Asked<U> {
        match self {
            Self::Done(result) => Asked::Done(f(result)),
            Self::Again(result) => Asked::Again(f(result)),
        }
    }
}

/// Why there was no answer to read.
pub(super) enum Refused {
    /// The API is there, and does not know what it was asked for.
    Unknown,
    /// There is no such part of the API, at neither place: the message says so.
    Unsupported(String),
    /// Anything else.
    Other(ApiError),
}

/// Asks a few times, until what has come is final.
pub(super) async fn ask_again<T, F>(ask: impl Fn() -> F) -> T
where
    F: Future<Output = Asked<T>>,
{
    let mut wait = FIRST_WAIT;
    for _ in 1..ATTEMPTS {
        match ask().await {
            Asked::Again(_) => {}
            Asked::Done(result) => return result,
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    match ask().await {
        Asked::Again(result) | Asked::Done(result) => result,
    }
}

impl Api {
    /// Asks once, at each place where it may be. `what` is the one thing that is asked for, and `kind` what a server that
    /// lacks this part of the API has none of.
    pub(super) async fn ask(
        &self,
        path_and_query: &str,
        what: &str,
        kind: &str,
    ) -> Result<Bytes, Asked<Refused>> {
        // The cloud has it at the first of these, a server of one's own at the second.
        let mut bases = ["/v2", "/api/v2"];
        if self.mode() == Mode::Dev {
            bases.reverse();
        }
        let mut is_unknown = false;
        for base in bases {
            let path = format!("{base}{path_and_query}");
            let answer = match self.request(Method::GET, &path, &[], Bytes::new()).await {
                Ok(answer) => answer,
                Err(error) => return Err(Asked::Again(Refused::Other(error))),
            };
            match answer.status() {
                // A proxy may say so as well, and the other place have it.
                StatusCode::NOT_FOUND => is_unknown |= is_json(&answer),
                // So says a server that has the API without this part of it.
                StatusCode::NOT_IMPLEMENTED => {}
                status if status.is_success() => return Ok(answer.into_body()),
                status => {
                    let error = Refused::Other(self.refused(what, status));
                    return match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
                    {
                        true => Err(Asked::Again(error)),
                        false => Err(Asked::Done(error)),
                    };
                }
            }
        }
        Err(Asked::Done(match is_unknown {
            true => Refused::Unknown,
            false => Refused::Unsupported(self.unsupported(kind)),
        }))
    }

    pub(super) fn unsupported(&self, kind: &str) -> String {
        format!(
            "Inngest at `{}` has no {kind}, neither at `/v2` nor at `/api/v2`; update a server of your own, and see that \
             `INNGEST_API_BASE_URL` is the API's if it is set",
            self.api_origin(),
        )
    }

    fn refused(&self, what: &str, status: StatusCode) -> ApiError {
        let remedy = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "; see that `INNGEST_SIGNING_KEY` is that of the environment"
            }
            _ => "",
        };
        ApiError::of_message(format!(
            "Inngest at `{}` does not give {what}: {status}{remedy}",
            self.api_origin()
        ))
    }
}

/// A server that has this part of the API says in JSON that it does not know what it was asked for.
fn is_json(answer: &Answer) -> bool {
    serde_json::from_slice::<IgnoredAny>(answer.body()).is_ok()
}
