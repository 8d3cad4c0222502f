//! Setting an endpoint up, and checking that the server can take it.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri};
use tower_service::Service;

use super::{Endpoint, Inner};
use crate::{
    api::{Api, ApiBuilder, Environment, Mode, Values},
    dispatcher::{Dispatcher, FailedApp},
    error::{BoxError, BuildError, Problem},
    registry::HandlerInfo,
    server::{MAX_CALL_BYTES, check_triggers},
};

/// Sets an [`Endpoint`] up.
///
/// What it is not given comes from the environment: see [`serve`](super).
///
/// # Examples
///
/// ```
/// use inngest_failure::{Dispatcher, handlers, on_failure, serve::Endpoint};
///
/// #[on_failure(function = "checkout")]
/// async fn undo_checkout() {}
///
/// # let dispatcher = Dispatcher::builder().without_inventory().app("shop").register(handlers![undo_checkout]).build()?;
/// let error = Endpoint::builder(dispatcher, "shop").dev(true).build().unwrap_err();
/// assert!(error.to_string().contains("give the endpoint an app id of its own"));
/// # Ok::<(), inngest_failure::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct EndpointBuilder {
    dispatcher: Dispatcher,
    app_id: String,
    base: Option<Api>,
    api: ApiBuilder,
    serve_origin: Option<String>,
    serve_path: Option<String>,
    in_band: Option<bool>,
    body_limit: usize,
    body_timeout: Duration,
}

impl EndpointBuilder {
    pub(super) fn new(dispatcher: Dispatcher, app_id: String) -> Self {
        Self {
            base: dispatcher.api().cloned(),
            dispatcher,
            app_id,
            api: Api::builder(),
            serve_origin: None,
            serve_path: None,
            in_band: None,
            body_limit: MAX_CALL_BYTES,
            body_timeout: Duration::from_secs(30),
        }
    }

    /// Keys, mode and origins at once; by default the dispatcher's, if it has any, or the environment's. The
    /// methods for each part go before it.
    pub fn api(mut self, api: Api) -> Self {
        self.base = Some(api);
        self
    }

    /// The signing key, `signkey-<env>-<hex>`; by default `INNGEST_SIGNING_KEY`.
    pub fn signing_key(mut self, key: impl Into<String>) -> Self {
        self.api = self.api.signing_key(key);
        self
    }

    /// The signing key that is tried next; by default `INNGEST_SIGNING_KEY_FALLBACK`.
    pub fn signing_key_fallback(mut self, key: impl Into<String>) -> Self {
        self.api = self.api.signing_key_fallback(key);
        self
    }

    /// The key that events are sent with; by default `INNGEST_EVENT_KEY`.
    pub fn event_key(mut self, key: impl Into<String>) -> Self {
        self.api = self.api.event_key(key);
        self
    }

    /// Where the API is; by default `INNGEST_API_BASE_URL`, then `INNGEST_BASE_URL`.
    pub fn api_origin(mut self, url: impl Into<String>) -> Self {
        self.api = self.api.api_origin(url);
        self
    }

    /// Where events are sent to; by default `INNGEST_EVENT_API_BASE_URL`, then `INNGEST_BASE_URL`.
    pub fn event_api_origin(mut self, url: impl Into<String>) -> Self {
        self.api = self.api.event_api_origin(url);
        self
    }

    /// Dev mode, in which unsigned calls are believed, or cloud mode; by default as `INNGEST_DEV` says.
    pub fn dev(mut self, dev: bool) -> Self {
        self.api = self.api.dev(dev);
        self
    }

    /// Dev mode with the dev server at this URL; by default the one in `INNGEST_DEV`.
    pub fn dev_server(mut self, url: impl Into<String>) -> Self {
        self.api = self.api.dev_server(url);
        self
    }

    /// The name of the environment, such as a branch's; by default `INNGEST_ENV`.
    pub fn env(mut self, name: impl Into<String>) -> Self {
        self.api = self.api.env(name);
        self
    }

    /// The HTTP client that calls the API: see [`ApiBuilder::client`].
    pub fn client<S, B>(mut self, client: S) -> Self
    where
        S: Service<Request<Bytes>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.api = self.api.client(client);
        self
    }

    /// Where Inngest reaches the endpoint, such as `https://shop.example.com`; by default
    /// `INNGEST_SERVE_ORIGIN`, then what the request for a sync says.
    pub fn serve_origin(mut self, origin: impl Into<String>) -> Self {
        self.serve_origin = Some(origin.into());
        self
    }

    /// The path there, such as `/api/failures`; by default `INNGEST_SERVE_PATH`, then that of the
    /// request for a sync. A router that cuts off a part of the path before it passes a request on, as
    /// `axum::Router::nest_service` does, leaves too little for that.
    pub fn serve_path(mut self, path: impl Into<String>) -> Self {
        self.serve_path = Some(path.into());
        self
    }

    /// Whether a sync may be answered with the functions, where Inngest asks for that; by default it may,
    /// unless `INNGEST_ALLOW_IN_BAND_SYNC` says otherwise.
    pub fn in_band_sync(mut self, allowed: bool) -> Self {
        self.in_band = Some(allowed);
        self
    }

    /// The largest body that is read, in bytes; by default 4 MiB, which is what Inngest allows a call.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// How long a body may take to arrive; by default 30 seconds.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// Checks everything and makes the endpoint.
    ///
    /// A warning is logged if no handler is a `fallback` or for every function (`*`), for then failures of functions
    /// that nothing names never arrive.
    ///
    /// # Errors
    ///
    /// [`BuildError`] with every problem at once: cloud mode without a signing key; a variable, key or URL
    /// that is wrong; an app id that is blank, has characters that an id can't have, or is that of failed
    /// functions; a handler's id that can't be a function's; a trigger expression that Inngest would not evaluate as it is
    /// meant, or that is too long.
    pub fn build(self) -> Result<Endpoint, BuildError> {
        self.resolve(&|name| std::env::var_os(name))
    }

    pub(crate) fn resolve(self, env: &Environment<'_>) -> Result<Endpoint, BuildError> {
        let mut problems = Vec::new();
        let api = match self.base {
            Some(base) => self.api.based_on(base),
            None => self.api,
        };
        let api = api.resolve(env, &mut problems);
        // A key that is wrong is reported as that alone.
        if problems.is_empty() && api.mode() == Mode::Cloud && api.signing_keys().next().is_none() {
            problems.push(Problem::no_signing_key());
        }
        let mut values = Values { env: Some(env), problems: &mut problems };
        let serve_origin =
            values.url(self.serve_origin, ".serve_origin(..)", &["INNGEST_SERVE_ORIGIN"]);
        let path = values.take(self.serve_path, ".serve_path(..)", "INNGEST_SERVE_PATH");
        let serve_path = values.parse(path, path_of_url, "write it as `/api/failures`");
        let in_band = self.in_band.or_else(|| values.flag("INNGEST_ALLOW_IN_BAND_SYNC"));

        check_app_id(&self.app_id, &self.dispatcher, &mut problems);
        for handler in self.dispatcher.functions() {
            check_handler(handler, &mut problems);
        }
        if !problems.is_empty() {
            return Err(BuildError::new(problems));
        }
        if !self.dispatcher.takes_unnamed() {
            tracing::warn!(
                app_id = self.app_id,
                "no handler is a `fallback` or for `*`: failures of functions that no handler names never arrive here",
            );
        }
        let handlers = self.dispatcher.functions().iter().enumerate();
        let functions: HashMap<String, usize> =
            handlers.map(|(i, handler)| (format!("{}-{}", self.app_id, handler.id), i)).collect();
        Ok(Endpoint {
            inner: Arc::new(Inner {
                dispatcher: self.dispatcher,
                app_id: self.app_id,
                api,
                serve_origin,
                serve_path,
                in_band: in_band.unwrap_or(true),
                body_limit: self.body_limit,
                body_timeout: self.body_timeout,
                functions,
            }),
        })
    }
}

/// What is wrong with it is said without repeating it, as of a URL.
fn path_of_url(path: &str) -> Result<String, String> {
    let uri: Option<Uri> =
        path.parse().ok().filter(|_| path.starts_with('/') && !path.contains('#'));
    match uri {
        Some(uri) if uri.query().is_none() && uri.host().is_none() => Ok(path.to_owned()),
        _ => Err("is no path".to_owned()),
    }
}

fn problem(fault: String, remedy: &str) -> Problem {
    Problem { location: None, handler: None, fault, remedy: remedy.to_owned() }
}

/// The first character that an id can't have: ids stand in URLs and in composite ids.
fn misplaced(id: &str) -> Option<char> {
    id.chars().find(|&c| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
}

fn check_app_id(app_id: &str, dispatcher: &Dispatcher, problems: &mut Vec<Problem>) {
    const OWN: &str = "give the endpoint an app id of its own";
    if app_id.trim().is_empty() {
        problems.push(problem("the endpoint's app id is blank".to_owned(), OWN));
    } else if let Some(c) = misplaced(app_id) {
        problems.push(problem(
            format!("the endpoint's app id {app_id:?} has a {c:?} in it"),
            "write it with letters, digits, `-`, `_` and `.`",
        ));
    }
    let Some(why) = dispatcher.is_failed_app(app_id) else { return };
    let (whose, location, handler) = match why {
        FailedApp::Default => ("the dispatcher's `app`".to_owned(), None, None),
        FailedApp::Of(handler) => (
            format!("the app of `{}`", handler.selector),
            Some(handler.location),
            Some(handler.rust_name),
        ),
    };
    problems.push(Problem {
        location,
        handler,
        fault: format!(
            "the endpoint's app id `{app_id}` is also {whose}, whose functions its sync would erase"
        ),
        remedy: format!(
            "{OWN}, such as `{app_id}-failures`{}",
            match why {
                FailedApp::Of(_) =>
                    "; if the function's app is another one, name it with `app = \"..\"`",
                FailedApp::Default => "",
            },
        ),
    });
}

fn check_handler(handler: &HandlerInfo, problems: &mut Vec<Problem>) {
    if let Some(c) = misplaced(&handler.id) {
        problems.push(handler.problem(
            format!(
                "its id {:?} has a {c:?} in it, which the id of an Inngest function can't have",
                handler.id
            ),
            "give it an `id = \"..\"` of letters, digits, `-`, `_` and `.`",
        ));
    }
    check_triggers(handler, problems);
}

/// Shows no secret.
impl fmt::Debug for EndpointBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointBuilder")
            .field("app_id", &self.app_id)
            .field("base", &self.base)
            .field("api", &self.api)
            .field("body_limit", &self.body_limit)
            .field("body_timeout", &self.body_timeout)
            .field("dispatcher", &self.dispatcher)
            .finish_non_exhaustive()
    }
}
