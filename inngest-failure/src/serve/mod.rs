//! The handlers as an Inngest app: the server syncs it, calls each handler when its function has failed,
//! retries it, and shows it on the dashboard.
//!
//! ```
//! use inngest_failure::{Dispatcher, Failure, HandlerError, handlers, on_failure, serve::Endpoint};
//!
//! #[on_failure(function = "checkout", retries = 5)]
//! async fn undo_checkout(failure: Failure) -> Result<(), HandlerError> {
//!     Ok(())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dispatcher = Dispatcher::builder()
//!     .app("shop")
//!     .without_inventory()
//!     .register(handlers![undo_checkout])
//!     .build()?;
//! let endpoint = Endpoint::builder(dispatcher, "shop-failures").dev(true).build()?;
//! let app: axum::Router = axum::Router::new().route_service("/api/failures", endpoint);
//! # Ok(())
//! # }
//! ```
//!
//! # One app, one function per handler
//!
//! The endpoint is an Inngest app of its own, whatever app the failed functions are of: a sync replaces all
//! functions of its app, so two endpoints with one app id would erase each other. Each handler
//! is one function of it, started by `inngest/function.failed`, and with `cancelled` by `inngest/function.cancelled`, with the handler's selector as the trigger's
//! expression; so the dashboard shows each one's runs, and its retries, concurrency and flow control
//! are the server's.
//!
//! A handler with [`Step`](crate::Step)s is called once for each, and once more to return: the server keeps the results.
//!
//! Since the server selects, a failure that no handler takes never arrives here. A handler with
//! `fallback` takes those.
//!
//! # Configuration
//!
//! Keys, mode and origins are an [`Api`]'s: from the builder, from the dispatcher's `api`, or
//! from the environment. Three variables more are the endpoint's own:
//!
//! | variable | what it is |
//! |---|---|
//! | `INNGEST_SERVE_ORIGIN` | where Inngest reaches this endpoint, such as `https://shop.example.com`; by default what the sync request says |
//! | `INNGEST_SERVE_PATH` | the path there; by default what the sync request says |
//! | `INNGEST_ALLOW_IN_BAND_SYNC` | `0` turns syncs off that answer with the functions instead of posting them |
//!
//! # Security
//!
//! In cloud mode, which is the default, a call is believed only if it carries a signature by the signing
//! key or its fallback that is no more than five minutes away from this machine's clock. Nothing
//! of a request is parsed before that holds, and a body is read no further than its limit.
//! A `PUT` that asks for a sync is not signed; set the serve origin, so that its `Host` does not decide where
//! Inngest calls.

mod body;
mod builder;
mod call;
mod introspect;
mod response;
mod sync;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, Request, Response, StatusCode, header, request};
use http_body::Body as HttpBody;
use tower_service::Service;

pub use self::{
    body::Body,
    builder::EndpointBuilder,
    sync::{SyncError, Synced},
};
use crate::{
    __private::BoxFuture,
    api::{
        Api, ReadError, read_bounded,
        signature::{self, Claim, Refusal},
    },
    dispatcher::Dispatcher,
    error::BoxError,
    event::ErrorBody,
};

/// The handlers of a [`Dispatcher`] as an Inngest app, over HTTP.
///
/// It is a `tower::Service<http::Request<B>>` for any body `B` and answers with an `http::Response`, so axum,
/// hyper and `lambda_http` take it as it is: see the [examples] of the repository. Mount it at one URL, for
/// the methods `GET`, `POST` and `PUT`. It keeps nothing between calls, so that there may be any number
/// of replicas; a clone is the same endpoint.
///
/// [examples]: https://github.com/inngest-failure/inngest-failure/tree/main/examples/src/bin
///
/// # Examples
///
/// ```
/// use inngest_failure::{Dispatcher, handlers, on_failure, serve::Endpoint};
///
/// #[on_failure(function = "checkout")]
/// async fn undo_checkout() {}
///
/// let dispatcher = Dispatcher::builder()
///     .app("shop")
///     .without_inventory()
///     .register(handlers![undo_checkout])
///     .build()?;
/// let endpoint = Endpoint::builder(dispatcher, "shop-failures")
///     .signing_key("signkey-prod-12345678")
///     .serve_origin("https://shop.example.com")
///     .serve_path("/api/failures")
///     .build()?;
/// # Ok::<(), inngest_failure::BuildError>(())
/// ```
///
/// # Cancel safety
///
/// If a connection goes away, its server drops the call's future. An `async` handler in it is dropped at its current
/// `.await`; a plain `fn` that has started runs to its end, perhaps beside the next attempt. Inngest calls again.
///
/// # Panics
///
/// Its future panics if it is not polled on a Tokio runtime with its timer enabled.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    dispatcher: Dispatcher,
    app_id: String,
    api: Api,
    serve_origin: Option<String>,
    serve_path: Option<String>,
    in_band: bool,
    body_limit: usize,
    body_timeout: Duration,
    /// The synced ids, each with the position of its handler.
    functions: HashMap<String, usize>,
}

impl Endpoint {
    /// Sets up an endpoint that is the Inngest app `app_id`, which is no app of failed functions.
    pub fn builder(dispatcher: Dispatcher, app_id: impl Into<String>) -> EndpointBuilder {
        EndpointBuilder::new(dispatcher, app_id.into())
    }

    /// Registers the app with Inngest, as a `PUT` to the endpoint does: for the start of a program.
    ///
    /// The endpoint need not be reachable yet. `INNGEST_SERVE_ORIGIN` and `INNGEST_SERVE_PATH`, or the builder's
    /// equivalents, say where it will be.
    ///
    /// # Errors
    ///
    /// [`SyncError`], which is logged as well, if the serve origin or path is not known, or if Inngest can't be
    /// reached, refuses the key or refuses the functions.
    ///
    /// # Panics
    ///
    /// If it is not awaited on a Tokio runtime with I/O and timer enabled.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, Inngest may have registered the app or not; to sync again does no harm.
    pub async fn sync(&self) -> Result<Synced, SyncError> {
        self.inner.sync_at_start().await
    }
}

impl Inner {
    async fn respond<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let answered = match parts.method {
            Method::POST => self.call(&parts, body).await,
            Method::PUT => self.sync(&parts, body).await,
            Method::GET => self.introspect(&parts, body).await,
            _ => Err(Denial::Method),
        };
        answered.unwrap_or_else(|denial| denial.response(&parts.method))
    }

    /// The body, if the request is to be believed, and whether it was signed.
    ///
    /// In cloud mode a request without a recent signature is refused before its body is read, and
    /// nothing is parsed before the signature holds.
    async fn authenticate<B>(
        &self,
        parts: &request::Parts,
        body: B,
    ) -> Result<(Bytes, bool), Denial>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        let mut headers = parts.headers.get_all(signature::HEADER).iter();
        let header = headers.next().map(http::HeaderValue::as_bytes);
        if headers.next().is_some() {
            return Err(Denial::Signature(Refusal::Malformed));
        }
        let claim = self.api.claim(header, SystemTime::now()).map_err(Denial::Signature)?;
        let body = self.read(&parts.headers, body).await?;
        match claim {
            Claim::Open => Ok((body, false)),
            Claim::Signed(signature) => match self.api.verify(&signature, &body) {
                Ok(()) => Ok((body, true)),
                Err(refusal) => Err(Denial::Signature(refusal)),
            },
        }
    }

    async fn read<B>(&self, headers: &HeaderMap, body: B) -> Result<Bytes, Denial>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        let limit = self.body_limit;
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if announced
            .and_then(|length| length.parse().ok())
            .is_some_and(|length: u64| length > limit as u64)
        {
            return Err(Denial::TooLarge { limit });
        }
        match tokio::time::timeout(self.body_timeout, read_bounded(body, limit)).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(ReadError::TooLarge)) => Err(Denial::TooLarge { limit }),
            Ok(Err(ReadError::Broken(error))) => Err(Denial::Broken(error)),
            Err(_) => Err(Denial::Slow { timeout: self.body_timeout }),
        }
    }
}

/// Why a request gets nowhere.
enum Denial {
    Method,
    Signature(Refusal),
    TooLarge { limit: usize },
    Broken(BoxError),
    Slow { timeout: Duration },
}

impl Denial {
    fn response(self, method: &Method) -> Response<Body> {
        let (status, name, message) = match self {
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "an Inngest endpoint answers GET (introspection), POST (calls) and PUT (sync)"
                    .to_owned(),
            ),
            Self::Signature(refusal) => {
                (StatusCode::UNAUTHORIZED, "Unauthorized", refusal.to_string())
            }
            Self::TooLarge { limit } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "PayloadTooLarge",
                format!(
                    "the body is larger than {limit} bytes; the endpoint's `body_limit` sets the limit"
                ),
            ),
            Self::Broken(error) => (
                StatusCode::BAD_REQUEST,
                "BadRequest",
                format!("the body could not be read: {error}"),
            ),
            Self::Slow { timeout } => (
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeout",
                format!("the body did not come within {timeout:?}"),
            ),
        };
        tracing::warn!(%method, status = status.as_u16(), reason = message, "request refused, nothing has run");
        let mut response = response::error(status, &ErrorBody::new(name, message), true);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response
                .headers_mut()
                .insert(header::ALLOW, http::HeaderValue::from_static("GET, POST, PUT"));
        }
        response
    }
}

/// Always ready, and never fails: what goes wrong is an answer.
impl<B> Service<Request<B>> for Endpoint
where
    B: HttpBody + Send + 'static,
    B::Data: Buf + Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = EndpointFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> EndpointFuture {
        let inner = Arc::clone(&self.inner);
        EndpointFuture { response: Box::pin(async move { inner.respond(request).await }) }
    }
}

/// Shows no secret.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("app_id", &self.inner.app_id)
            .field("api", &self.inner.api)
            .field("dispatcher", &self.inner.dispatcher)
            .finish_non_exhaustive()
    }
}

/// The future of an [`Endpoint`] called as a service.
///
/// # Panics
///
/// As [`Endpoint`].
///
/// # Cancel safety
///
/// As [`Endpoint`].
#[must_use = "futures do nothing unless polled"]
pub struct EndpointFuture {
    response: BoxFuture<'static, Response<Body>>,
}

impl Future for EndpointFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.response.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for EndpointFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointFuture").finish_non_exhaustive()
    }
}
