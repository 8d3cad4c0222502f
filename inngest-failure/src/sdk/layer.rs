//! What the SDK's server lacks: signatures that are demanded, and answers that say all of an error.

use std::{
    cell::Cell,
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_02::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_04::{Body as HttpBody, Full, Limited, SizeHint, combinators::UnsyncBoxBody};
use tower_service::Service;

use crate::{
    __private::BoxFuture,
    api::{
        Api, Mode, SDK,
        signature::{self, Claim, Refusal},
    },
    error::{BoxError, BuildError, Problem},
    event::ErrorBody,
    server::{MAX_CALL_BYTES, retry_after},
};

const SIGNATURE: &str = signature::HEADER;
const SERVER_KIND: &str = "x-inngest-server-kind";
const NO_RETRY: &str = "x-inngest-no-retry";

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A tower layer for the SDK's route of an axum 0.6 router: it refuses calls that Inngest has not signed, and lets
/// Inngest know what the SDK does not tell it.
///
/// **Without it anybody may run the server's functions**: `inngest` 0.1.1 checks a signature only if there is one, and takes
/// one from the future.
///
/// - In cloud mode a `POST` needs a signature of the last 5 minutes, with the signing key or its fallback, of which the SDK
///   knows only the first. Whatever is refused gets a 401 before the SDK sees it, and nothing of it is parsed. In dev mode
///   (`INNGEST_DEV=1`) a signature is checked if there is one and a key.
/// - The `PUT` of a sync passes as it is. So does the `GET` of an introspection; a signature with the fallback key counts
///   there too.
/// - A handler's error reaches Inngest whole, and as one that is not to be retried where it is one. So does
///   `DevError::NoRetry` of the SDK's own functions, though without its message: the SDK's answer, the text `no retry error`,
///   gets the header `x-inngest-no-retry: true`.
///
/// Put it on the SDK's route alone, for it refuses every unsigned `POST`: on a `Router` that has only this route, which
/// is then merged into that of the other routes. It reads up to 4 MiB, which is what Inngest allows
/// a call; axum's own limit, 2 MB, is raised with its `DefaultBodyLimit`.
///
/// # Examples
///
/// ```
/// # use axum_06 as axum;
/// use axum::{Router, extract::DefaultBodyLimit, routing::get};
/// use inngest::{client::Inngest, handler::Handler, result::Error, serve};
/// use inngest_failure::{Api, sdk};
/// use serde_json::Value;
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), inngest_failure::BuildError> {
/// let handler: Handler<Value, Error> = Handler::new(&Inngest::new("shop"));
/// let api = Api::builder().dev(false).signing_key("signkey-prod-12345678").build()?;
/// let inngest = get(serve::axum::introspect).put(serve::axum::register).post(serve::axum::invoke);
/// let app: Router = Router::new()
///     .route("/api/inngest", inngest)
///     .route_layer(DefaultBodyLimit::max(4 * 1024 * 1024))
///     .route_layer(sdk::Layer::new(api)?)
///     .with_state(Arc::new(handler));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Layer {
    api: Api,
}

impl Layer {
    /// With the keys and the mode that the environment has: `INNGEST_SIGNING_KEY`, `INNGEST_SIGNING_KEY_FALLBACK`,
    /// `INNGEST_DEV`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and with every variable whose value is wrong.
    pub fn from_env() -> Result<Self, BuildError> {
        Self::new(Api::from_env()?)
    }

    /// With the keys and the mode of this API.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if there is no signing key in cloud mode.
    pub fn new(api: Api) -> Result<Self, BuildError> {
        if api.mode() == Mode::Cloud && api.signing_keys().next().is_none() {
            return Err(BuildError::new(vec![Problem::no_signing_key()]));
        }
        Ok(Self { api })
    }
}

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { api: self.api.clone(), inner }
    }
}

/// The service that [`Layer`] makes of another.
#[derive(Clone, Debug)]
pub struct Guard<S> {
    api: Api,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Guard<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: HttpBody + From<Bytes> + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = GuardFuture<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> GuardFuture<S::Error> {
        let clone = self.inner.clone();
        // The one that is ready is the one to call.
        let mut inner = mem::replace(&mut self.inner, clone);
        let api = self.api.clone();
        let response = Box::pin(async move {
            let method = request.method().clone();
            let request = match admit(&api, request).await {
                Ok(request) => request,
                Err(denial) => return Ok(denial.response(&method)),
            };
            let answered = async {
                let response = inner.call(request).await;
                (response, ANSWER.with(Cell::take))
            };
            let (response, answer) = ANSWER.scope(Cell::new(None), answered).await;
            match response {
                Ok(response) => Ok(complete(response, answer).await),
                Err(error) => Err(error),
            }
        });
        GuardFuture { response }
    }
}

/// The mark of a request that went through the layer: what it was signed with is not there any more.
#[derive(Clone)]
struct Admitted;

/// The request as the SDK is to see it, if it is to see it.
async fn admit<B>(api: &Api, request: Request<B>) -> Result<Request<B>, Denial>
where
    B: HttpBody + From<Bytes>,
    B::Error: Into<BoxError>,
{
    let is_call = match *request.method() {
        Method::POST => true,
        // Axum answers one as the other.
        Method::GET | Method::HEAD => false,
        _ => return Ok(request),
    };
    if request.extensions().get::<Admitted>().is_some() {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let mut headers = parts.headers.get_all(SIGNATURE).iter();
    let header = headers.next().map(|header| header.as_bytes().to_owned());
    let is_one = headers.next().is_none();
    let claim = match is_one {
        true => api.claim(header.as_deref(), SystemTime::now()),
        false => Err(Refusal::Malformed),
    };
    let verdict = match claim {
        Ok(Claim::Open) => Ok(body),
        Ok(Claim::Signed(signature)) => {
            let bytes = read(&parts.headers, body).await?;
            match api.verify(&signature, &bytes) {
                Ok(()) => {
                    if let Some(signed) = api.sign_again(&signature, &bytes) {
                        parts.headers.insert(SIGNATURE, value(&signed));
                    }
                    Ok(B::from(bytes))
                }
                Err(refusal) => Err((refusal, B::from(bytes))),
            }
        }
        Err(refusal) => Err((refusal, body)),
    };
    parts.extensions.insert(Admitted);
    match (verdict, is_call) {
        (Ok(body), true) => {
            // The SDK has no more to ask, and would not know every key.
            parts.headers.remove(SIGNATURE);
            parts.headers.remove(SERVER_KIND);
            Ok(Request::from_parts(parts, body))
        }
        (Ok(body), false) => Ok(Request::from_parts(parts, body)),
        (Err((refusal, _)), true) => Err(Denial::Signature(refusal)),
        (Err((_, body)), false) => {
            // It is shown what anybody is. The SDK would believe a signature from the future.
            if header.is_some() {
                parts.headers.insert(SIGNATURE, HeaderValue::from_static("refused"));
            }
            Ok(Request::from_parts(parts, body))
        }
    }
}

async fn read<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Denial>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| length > MAX_CALL_BYTES)
    {
        return Err(Denial::TooLarge);
    }
    let body = Box::pin(Limited::new(body, MAX_CALL_BYTES));
    match tokio::time::timeout(BODY_TIMEOUT, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_04::LengthLimitError>() => Err(Denial::TooLarge),
        Ok(Err(error)) => Err(Denial::Broken(error)),
        Err(_) => Err(Denial::Slow),
    }
}

/// Why a request does not get as far as the SDK.
enum Denial {
    Signature(Refusal),
    TooLarge,
    Broken(BoxError),
    Slow,
}

impl Denial {
    fn response(self, method: &Method) -> Response<ResponseBody> {
        let (status, name, message) = match self {
            Self::Signature(refusal) => {
                (StatusCode::UNAUTHORIZED, "Unauthorized", refusal.to_string())
            }
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "PayloadTooLarge",
                format!(
                    "the body is larger than {MAX_CALL_BYTES} bytes, which is what Inngest allows a call"
                ),
            ),
            Self::Broken(error) => (
                StatusCode::BAD_REQUEST,
                "BadRequest",
                format!("the body could not be read: {error}"),
            ),
            Self::Slow => (
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeout",
                format!("the body did not come within {BODY_TIMEOUT:?}"),
            ),
        };
        tracing::warn!(%method, status = status.as_u16(), reason = message, "request refused, nothing has run");
        let answer = Answer::error(&ErrorBody::new(name, message), true, None);
        let mut response = Response::new(ResponseBody::empty());
        let headers = response.headers_mut();
        headers.insert("x-inngest-sdk", HeaderValue::from_static(SDK));
        headers.insert("x-inngest-req-version", HeaderValue::from_static("1"));
        headers.insert("x-inngest-framework", HeaderValue::from_static("axum"));
        answer.put(&mut response);
        *response.status_mut() = status;
        response
    }
}

/// What Inngest is to be told of an error, where the SDK has less to say.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    is_retriable: bool,
    delay: Option<Duration>,
    body: Bytes,
}

tokio::task_local! {
    /// What the handler that is called on this task has noted.
    static ANSWER: Cell<Option<Answer>>;
}

/// Notes what Inngest is to be told; nobody reads it if there is no [`Layer`].
pub(super) fn answer(answer: Answer) {
    let _ = ANSWER.try_with(|noted| noted.set(Some(answer)));
}

impl Answer {
    pub(super) fn error(body: &ErrorBody, is_retriable: bool, delay: Option<Duration>) -> Self {
        Self {
            status: match is_retriable {
                true => StatusCode::INTERNAL_SERVER_ERROR,
                false => StatusCode::BAD_REQUEST,
            },
            is_retriable,
            delay,
            // Texts alone can always be written.
            body: serde_json::to_vec(body).unwrap_or_default().into(),
        }
    }

    /// Puts it in the place of what the response has.
    fn put(self, response: &mut Response<ResponseBody>) {
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        // What they say of another body.
        for of_body in [header::CONTENT_ENCODING, header::TRANSFER_ENCODING, header::ETAG] {
            headers.remove(of_body);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        let no_retry = if self.is_retriable { "false" } else { "true" };
        headers.insert(NO_RETRY, HeaderValue::from_static(no_retry));
        match self.delay.filter(|_| self.is_retriable) {
            Some(delay) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after(delay)));
            }
            None => drop(headers.remove(header::RETRY_AFTER)),
        }
        *response.body_mut() = ResponseBody::whole(self.body);
    }
}

/// The SDK's answer, with what it leaves out of an error.
async fn complete<R>(response: Response<R>, answer: Option<Answer>) -> Response<ResponseBody>
where
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    /// What the SDK makes of every error that is not to be retried.
    const NO_RETRY_ERROR: &[u8] = br#""no retry error""#;

    let (mut parts, body) = response.into_parts();
    if parts.status != StatusCode::INTERNAL_SERVER_ERROR {
        return Response::from_parts(parts, ResponseBody::of(body));
    }
    if let Some(answer) = answer {
        let mut response = Response::from_parts(parts, ResponseBody::empty());
        answer.put(&mut response);
        return response;
    }
    if HttpBody::size_hint(&body).exact() != Some(NO_RETRY_ERROR.len() as u64) {
        return Response::from_parts(parts, ResponseBody::of(body));
    }
    match body.collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            if body == NO_RETRY_ERROR {
                parts.headers.insert(NO_RETRY, HeaderValue::from_static("true"));
            }
            Response::from_parts(parts, ResponseBody::whole(body))
        }
        Err(_) => Response::from_parts(parts, ResponseBody::empty()),
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a signature is digits and letters")
}

/// The body of an answer that went through [`Layer`].
pub struct ResponseBody {
    inner: UnsyncBoxBody<Bytes, BoxError>,
}

impl ResponseBody {
    fn of<R>(body: R) -> Self
    where
        R: HttpBody<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        Self { inner: body.map_err(Into::into).boxed_unsync() }
    }

    fn whole(bytes: Bytes) -> Self {
        Self::of(Full::new(bytes))
    }

    fn empty() -> Self {
        Self::whole(Bytes::new())
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_data(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BoxError>>> {
        Pin::new(&mut self.inner).poll_data(cx)
    }

    fn poll_trailers(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, BoxError>> {
        Pin::new(&mut self.inner).poll_trailers(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

/// The future of a [`Guard`].
///
/// # Panics
///
/// If it is not polled on a Tokio runtime with its timer enabled.
///
/// # Cancel safety
///
/// If it is dropped, so is the SDK's, and with it the handler.
#[must_use = "futures do nothing unless polled"]
pub struct GuardFuture<E> {
    response: BoxFuture<'static, Result<Response<ResponseBody>, E>>,
}

impl<E> Future for GuardFuture<E> {
    type Output = Result<Response<ResponseBody>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.response.as_mut().poll(cx)
    }
}

impl<E> fmt::Debug for GuardFuture<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardFuture").finish_non_exhaustive()
    }
}
