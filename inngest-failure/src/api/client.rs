//! Calling the API.

use std::{
    error::Error,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tower_service::Service;

use super::{Api, Mode, SDK};
use crate::{
    __private::BoxFuture,
    dispatcher::shown,
    error::{BoxError, NonRetriable, chain},
    step::Event,
};

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read. What is too large for a call is fetched, and the state of a run may have 32 MB,
/// as Inngest's documentation has it.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// An HTTP client of any kind.
#[derive(Clone)]
pub(super) struct Client {
    exchange: Arc<dyn Exchange>,
}

/// Sends a request and reads the answer.
trait Exchange: Send + Sync {
    fn exchange(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Answer, BoxError>>;
}

/// An answer, read to its end.
pub(crate) type Answer = Response<Bytes>;

impl Client {
    pub(super) fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Bytes>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        // A service need not be `Sync`: whoever sends takes a clone.
        Self { exchange: Arc::new(UserClient(Mutex::new(service))) }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self { exchange: Arc::new(OwnClient::default()) }
    }
}

/// A client that the user brought.
struct UserClient<S>(Mutex<S>);

impl<S, B> Exchange for UserClient<S>
where
    S: Service<Request<Bytes>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn exchange(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Answer, BoxError>> {
        let mut service = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
            read(service.call(request).await.map_err(Into::into)?).await
        })
    }
}

/// The client for users who bring none. It is made when it is first used: most processes that handle
/// calls never make one.
#[derive(Default)]
struct OwnClient(OnceLock<legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>>);

impl Exchange for OwnClient {
    fn exchange(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Answer, BoxError>> {
        let client = self.0.get_or_init(|| {
            let connector = HttpsConnectorBuilder::new()
                .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
                .expect("the provider speaks the protocol versions that it says it does")
                .https_or_http()
                .enable_http1()
                .build();
            legacy::Client::builder(TokioExecutor::new()).build(connector)
        });
        let response = client.request(request.map(Full::new));
        Box::pin(async move { read(response.await?).await })
    }
}

/// What stands at a URL, for whoever asks.
#[cfg(feature = "cli")]
pub(crate) async fn fetch(url: &str) -> Result<Answer, ApiError> {
    let failed = |error: BoxError| ApiError::new(format!("can't get `{url}`"), error);
    let request = Request::builder()
        .uri(url)
        .header(header::USER_AGENT, SDK)
        .body(Bytes::new())
        .map_err(|error| failed(error.into()))?;
    let exchange = OwnClient::default().exchange(request);
    let answer = match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(answer) => answer.map_err(failed)?,
        Err(_) => {
            let seconds = TIMEOUT.as_secs();
            return Err(ApiError::of_message(format!(
                "`{url}` did not answer within {seconds} seconds"
            )));
        }
    };
    if !answer.status().is_success() {
        return Err(ApiError::of_message(format!("`{url}` answers {}", answer.status())));
    }
    Ok(answer)
}

async fn read<B>(response: Response<B>) -> Result<Answer, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let (parts, body) = response.into_parts();
    let body = match read_bounded(body, MAX_ANSWER_BYTES).await {
        Ok(body) => body,
        Err(ReadError::TooLarge) => return Err(AnswerTooLarge.into()),
        Err(ReadError::Broken(error)) => return Err(error),
    };
    Ok(Response::from_parts(parts, body))
}

/// An answer that is larger than any that is read.
#[derive(Debug)]
struct AnswerTooLarge;

impl fmt::Display for AnswerTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is larger than {MAX_ANSWER_BYTES} bytes")
    }
}

impl Error for AnswerTooLarge {}

/// Why a body could not be read.
pub(crate) enum ReadError {
    TooLarge,
    Broken(BoxError),
}

/// Reads a body to its end, as long as it is no larger than this. One that comes in one piece is not copied.
pub(crate) async fn read_bounded<B>(body: B, max_bytes: usize) -> Result<Bytes, ReadError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let announced = body.size_hint().lower();
    if announced > max_bytes as u64 {
        return Err(ReadError::TooLarge);
    }
    // What is announced need not come: no more is reserved than is soon there.
    const MAX_RESERVED: u64 = 256 * 1024;
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ReadError::Broken(error.into()))?;
        let Ok(mut data) = frame.into_data() else { continue };
        if data.remaining() > max_bytes - first.len().max(whole.len()) {
            return Err(ReadError::TooLarge);
        }
        if first.is_empty() {
            first = data.copy_to_bytes(data.remaining());
            continue;
        }
        if whole.is_empty() {
            whole.reserve(announced.min(MAX_RESERVED) as usize);
            whole.extend_from_slice(&first);
        }
        whole.put(data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

impl Api {
    /// Calls the API with whichever of the keys it takes, and returns what it answered.
    pub(crate) async fn request(
        &self,
        method: Method,
        path_and_query: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Answer, ApiError> {
        let url = format!("{}{path_and_query}", self.inner.api_origin);
        let mut keys = self.signing_keys();
        let mut key = keys.next();
        loop {
            let mut request = Request::builder()
                .method(&method)
                .uri(&url)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::USER_AGENT, SDK)
                .header("x-inngest-sdk", SDK);
            if let Some(key) = key {
                request = request.header(header::AUTHORIZATION, key.authorization());
            }
            if let Some(env) = &self.inner.env {
                request = request.header("x-inngest-env", env);
            }
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request
                .body(body.clone())
                .map_err(|error| ApiError::new(format!("can't ask Inngest for `{url}`"), error))?;

            let answer = self.exchange(&self.inner.api_origin, request).await?;
            let is_refused =
                matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            match keys.next().filter(|_| is_refused) {
                Some(next) => key = Some(next),
                None => return Ok(answer),
            }
        }
    }

    async fn exchange(&self, origin: &str, request: Request<Bytes>) -> Result<Answer, ApiError> {
        let exchange = self.inner.client.exchange.exchange(request);
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let message = match error.is::<AnswerTooLarge>() {
                    true => format!("what Inngest at `{origin}` answered is of no use"),
                    false => format!("can't reach Inngest at `{origin}`; {}", self.remedy()),
                };
                Err(ApiError::new(message, error))
            }
            Err(_) => {
                let seconds = TIMEOUT.as_secs();
                let message =
                    format!("Inngest at `{origin}` did not answer within {seconds} seconds");
                Err(ApiError::of_message(message))
            }
        }
    }

    /// The first of the events that started a run: all that there is, for a run that is not a batch.
    pub(crate) async fn first_event(&self, run_id: &str) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        struct Events<'a>(#[serde(borrow)] Vec<&'a RawValue>);
        let what = format!("the events of run `{}`", shown(run_id));
        let answer = self.of_run(run_id, "events", "batch").await?;
        let origin = &self.inner.api_origin;
        let events: Events<'_> = serde_json::from_slice(&answer).map_err(|error| {
            // Its text may repeat the answer.
            let error = format!("at line {} column {}", error.line(), error.column());
            ApiError::new(
                format!("what Inngest at `{origin}` gives for {what} is no list of events"),
                error,
            )
        })?;
        let first = events.0.first().ok_or_else(|| {
            ApiError::of_message(format!("Inngest at `{origin}` says that {what} are none"))
        })?;
        Ok(first.get().to_owned())
    }

    /// A part of what Inngest has of a run.
    async fn of_run(&self, run_id: &str, what: &str, path: &str) -> Result<Bytes, ApiError> {
        let what = format!("the {what} of run `{}`", shown(run_id));
        // It becomes a part of a path.
        if run_id.is_empty()
            || !run_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(ApiError::of_message(format!(
                "{what} can't be asked for: that is no run's id"
            )));
        }
        let path = format!("/v0/runs/{run_id}/{path}");
        let answer = self.request(Method::GET, &path, &[], Bytes::new()).await?;
        if !answer.status().is_success() {
            let (origin, status) = (&self.inner.api_origin, answer.status());
            return Err(ApiError::of_message(format!(
                "Inngest at `{origin}` does not give {what}: {status}"
            )));
        }
        Ok(answer.into_body())
    }

    /// What Inngest remembers of a run's steps: a JSON object.
    pub(crate) async fn steps(&self, run_id: &str) -> Result<Bytes, ApiError> {
        self.of_run(run_id, "steps", "actions").await
    }

    /// Sends events, and returns their ids.
    pub(crate) async fn send_events(&self, events: &[Event]) -> Result<Vec<String>, ApiError> {
        #[derive(Deserialize)]
        struct Sent {
            ids: Vec<String>,
        }
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let key = match (&self.inner.event_key, self.inner.mode) {
            (Some(key), _) => key.secret(),
            // Any will do.
            (None, Mode::Dev) => "dev",
            (None, Mode::Cloud) => {
                let message = "there is no event key to send events with; set `INNGEST_EVENT_KEY` to the key that the \
                               dashboard shows";
                return Err(ApiError::new("no event was sent", NonRetriable::new(message)));
            }
        };
        let body = serde_json::to_vec(events)
            .map_err(|error| ApiError::new("no event was sent", NonRetriable::new(error)))?;
        let origin = &self.inner.event_api_origin;
        let mut request = Request::builder()
            .method(Method::POST)
            // What has the key in it is shown to nobody.
            .uri(format!("{origin}/e/{key}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, SDK)
            .header("x-inngest-sdk", SDK);
        if let Some(env) = &self.inner.env {
            request = request.header("x-inngest-env", env);
        }
        let request = request.body(Bytes::from(body)).map_err(|_| {
            ApiError::of_message(format!("the event key can't be a part of a URL at `{origin}`"))
        })?;
        let answer = self.exchange(origin, request).await.map_err(|error| {
            // A client of the user's may name the URL.
            ApiError::of_message(self.redact(&error.chain()))
        })?;
        if !answer.status().is_success() {
            let status = answer.status();
            let remedy = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    "; is `INNGEST_EVENT_KEY` right?"
                }
                _ => "",
            };
            return Err(ApiError::of_message(format!(
                "Inngest at `{origin}` has not taken the event: {status}{remedy}"
            )));
        }
        let sent: Sent = serde_json::from_slice(answer.body()).map_err(|error| {
            // Its text may repeat the answer.
            let error = format!("at line {} column {}", error.line(), error.column());
            ApiError::new(
                format!("what Inngest at `{origin}` says of the sent event has no ids"),
                error,
            )
        })?;
        Ok(sent.ids)
    }

    fn remedy(&self) -> &'static str {
        match self.inner.mode {
            Mode::Dev => {
                "start the dev server (`npx inngest-cli@latest dev`), or set `INNGEST_DEV` to its URL, or to `0` \
                 for the cloud"
            }
            Mode::Cloud => {
                "see that this machine may connect to it, and that `INNGEST_BASE_URL` is right if it is set"
            }
        }
    }
}

/// A call of the API that gave no answer, or none that could be used.
#[derive(Debug)]
pub(crate) struct ApiError {
    message: String,
    source: Option<BoxError>,
}

impl ApiError {
    pub(crate) fn new(message: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self { message: message.into(), source: Some(source.into()) }
    }

    /// The message with those of its causes.
    pub(crate) fn chain(&self) -> String {
        chain(self).to_string()
    }

    pub(crate) fn of_message(message: String) -> Self {
        Self { message, source: None }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
