//! An HTTP client that posts JSON, shows no secret, and knows what a refusal means.

use std::{error::Error, fmt, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderValue, Request, StatusCode, Uri, header},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use inngest_failure::HandlerError;
use serde_json::Value;

/// How long a receiver may tell us to wait. It is no authority on more.
const MAX_WAIT: Duration = Duration::from_secs(10 * 60);

/// How much of an answer is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

#[derive(Clone)]
pub(crate) struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    pub(crate) fn new() -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .expect("the provider speaks the protocol versions that it says it does")
            .https_or_http()
            .enable_http1()
            .build();
        Self(legacy::Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Posts the JSON once, and says in a word what was answered.
    pub(crate) async fn post(
        &self,
        service: &'static str,
        url: &Url,
        headers: &[(&'static str, HeaderValue)],
        body: &Value,
    ) -> Result<String, HandlerError> {
        let mut request = Request::post(url.0.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "inngest-failure-example");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::from(body.to_string()))?;
        // What the client says of its own failure names the host at most, which is no secret.
        let answer = self.0.request(request).await.map_err(|error| Unreached { service, error })?;

        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        if head.status.is_success() {
            return Ok(format!("sent, {}", head.status));
        }
        let wait = head.headers.get(header::RETRY_AFTER).and_then(wait);
        let word = body.ok().and_then(|body| word(&body.to_bytes()));
        Err(refusal(Refused { service, status: head.status, word }, wait))
    }
}

/// What a refusal means for the next attempt.
fn refusal(refused: Refused, wait: Option<Duration>) -> HandlerError {
    match (refused.status, wait) {
        (StatusCode::TOO_MANY_REQUESTS, Some(wait)) => HandlerError::retry_after(refused, wait),
        // Later it may be taken, and the dispatcher knows how long to wait.
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT, _) => refused.into(),
        (status, _) if status.is_server_error() => refused.into(),
        // A wrong key, a webhook that was removed, a body that is not taken: a redirect too, for a key goes nowhere else.
        _ => HandlerError::non_retriable(refused),
    }
}

/// The seconds of a `retry-after`. It might be a date, which neither of the two sends.
fn wait(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}

/// An answer that is one word, as Slack's `no_service`. Nothing else of an answer is shown: it may repeat what was sent.
fn word(answer: &[u8]) -> Option<String> {
    let answer = std::str::from_utf8(answer).ok()?.trim();
    let is_word = answer.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (is_word && (1..=40).contains(&answer.len())).then(|| answer.to_owned())
}

/// The service was reached, and took nothing.
#[derive(Debug)]
struct Refused {
    service: &'static str,
    status: StatusCode,
    word: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {}", self.service, self.status)?;
        match &self.word {
            Some(word) => write!(f, ": `{word}`"),
            None => Ok(()),
        }
    }
}

impl Error for Refused {}

/// The service was not reached, or did not answer.
#[derive(Debug)]
struct Unreached {
    service: &'static str,
    error: legacy::Error,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't reach {}", self.service)
    }
}

impl Error for Unreached {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// A text that nobody is shown: it has neither `Debug` nor `Display`.
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// Where to post to. It may be a secret as a whole, so it has neither `Debug` nor `Display`.
#[derive(Clone)]
pub(crate) struct Url(Uri);

impl Url {
    /// `name` says in errors where the URL is from.
    pub(crate) fn new(name: &str, url: &str) -> Result<Self, String> {
        let uri: Uri = url.trim().parse().map_err(|_| {
            format!("`{name}` is not a URL; copy it once more from where it was shown")
        })?;
        let is_local = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        match uri.scheme_str() {
            Some("https") => Ok(Self(uri)),
            Some("http") if is_local => Ok(Self(uri)),
            _ => Err(format!(
                "`{name}` is not safe to send a secret to; give a URL that begins with `https://`"
            )),
        }
    }

    /// The URL of a path below this one.
    pub(crate) fn join(self, path: &str) -> Self {
        let mut parts = self.0.into_parts();
        let base = parts.path_and_query.as_ref().map_or("", |base| base.path());
        let path = format!("{}{path}", base.trim_end_matches('/'));
        parts.path_and_query = Some(path.parse().expect("two paths make a path"));
        Self(Uri::from_parts(parts).expect("a path was replaced by another one"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let refused = |status: u16, wait| {
            let status = StatusCode::from_u16(status).unwrap();
            refusal(Refused { service: "Slack", status, word: Some("no_service".into()) }, wait)
        };
        let wait = Some(Duration::from_secs(30));
        assert_eq!(refused(429, wait).retry_delay(), wait);
        assert_eq!(refused(429, None).retry_delay(), None);
        for status in [429, 408, 500, 503] {
            assert!(refused(status, None).is_retriable(), "{status}");
        }
        for status in [301, 400, 403, 404, 410] {
            assert!(!refused(status, None).is_retriable(), "{status}");
        }
        let shown = refused(404, None).chain().to_string();
        assert_eq!(shown, "Slack answered 404 Not Found: `no_service`");
    }

    #[test]
    fn a_wait_is_bounded_and_a_word_is_a_word() {
        let waits = |value| wait(&HeaderValue::from_static(value));
        assert_eq!(waits("30"), Some(Duration::from_secs(30)));
        assert_eq!(waits("18446744073709551615"), Some(MAX_WAIT));
        assert_eq!(waits("Fri, 27 Nov 2026 00:00:00 GMT"), None);
        assert_eq!(waits("-1"), None);
        assert_eq!(word(b"no_service\n").as_deref(), Some("no_service"));
        for answer in ["", "/services/T1", "{}", &"a".repeat(41)] {
            assert_eq!(word(answer.as_bytes()), None, "{answer}");
        }
    }

    #[test]
    fn a_secret_goes_over_https_or_stays_on_the_machine() {
        let url = |url| Url::new("DD_URL", url).map(|url| url.join("/api/v1/events").0.to_string());
        assert_eq!(url("https://a.example").unwrap(), "https://a.example/api/v1/events");
        assert_eq!(url("http://127.0.0.1:1/b/?c").unwrap(), "http://127.0.0.1:1/b/api/v1/events");
        for text in ["http://a.example", "a.example", "/a", "ftp://a", "https://", ""] {
            let fault = url(text).unwrap_err();
            assert!(fault.starts_with("`DD_URL` is not "), "{text}: {fault}");
        }
    }
}
