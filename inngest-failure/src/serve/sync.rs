//! Sync: telling Inngest which functions there are.

use std::{error::Error, fmt};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header, request, uri::Scheme,
};
use http_body::Body as HttpBody;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Body, Denial, Inner,
    call::query,
    introspect::Inspection,
    response::{self, FRAMEWORK, LANGUAGE, SYNC_KIND},
};
use crate::{
    api::{Answer, ApiError, Mode, SDK},
    error::BoxError,
    rate::Rate,
    registry::HandlerInfo,
    selector::Trigger,
};

const SERVER_KIND: HeaderName = HeaderName::from_static("x-inngest-server-kind");
const EXPECTED_SERVER_KIND: HeaderName = HeaderName::from_static("x-inngest-expected-server-kind");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How much of what a server says is repeated.
const MAX_REPEATED_CHARS: usize = 500;

/// What Inngest made of a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Synced {
    /// Whether the functions differ from those of the sync before.
    pub modified: bool,
}

/// Why a sync came to nothing.
///
/// Its `Display` has the fault and, where there is one, the remedy, its `source()` the cause where there is one; its `Debug`, so that an
/// `unwrap` reads well, has all of them.
pub struct SyncError {
    error: ApiError,
}

impl fmt::Debug for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error.chain())
    }
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for SyncError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

fn log_failure(error: &ApiError) {
    tracing::error!(error = error.chain(), "sync failed");
}

/// An Inngest function.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Function<'a> {
    id: &'a str,
    name: &'a str,
    triggers: Vec<FunctionTrigger<'a>>,
    steps: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttle: Option<RateLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency: Option<&'a str>,
}

#[derive(Serialize)]
struct FunctionTrigger<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expression: Option<&'a str>,
}

#[derive(Serialize)]
struct RateLimit {
    limit: u32,
    period: String,
}

/// An expression that gives the seconds.
#[derive(Serialize)]
struct Priority {
    run: String,
}

impl From<Rate> for RateLimit {
    fn from(rate: Rate) -> Self {
        Self { limit: rate.limit, period: rate.period() }
    }
}

impl<'a> Function<'a> {
    fn new(id: &'a str, handler: &'a HandlerInfo, url: &str) -> Self {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("fnId", id)
            .append_pair("stepId", "step")
            .finish();
        let trigger = |trigger: &'a Trigger| FunctionTrigger {
            event: trigger.event,
            expression: trigger.expression.as_deref(),
        };
        Self {
            id,
            name: &handler.name,
            triggers: handler.triggers.iter().map(trigger).collect(),
            steps: json!({
                "step": {
                    "id": "step",
                    "name": "step",
                    "runtime": { "type": "http", "url": format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' }) },
                    "retries": { "attempts": handler.retries },
                },
            }),
            concurrency: handler.concurrency,
            throttle: handler.throttle.map(Into::into),
            rate_limit: handler.rate_limit.map(Into::into),
            priority: handler.priority.map(|priority| Priority { run: priority.to_string() }),
            idempotency: handler.idempotency,
        }
    }
}

/// What is posted to Inngest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Registration<'a> {
    url: &'a str,
    deploy_type: &'static str,
    framework: &'static str,
    app_name: &'a str,
    functions: Vec<Function<'a>>,
    sdk: &'static str,
    v: &'static str,
}

/// What is answered to Inngest in band.
#[derive(Serialize)]
struct InBand<'a> {
    app_id: &'a str,
    env: Option<&'a str>,
    framework: &'static str,
    functions: Vec<Function<'a>>,
    inspection: Inspection<'a>,
    platform: Option<&'static str>,
    sdk_author: &'static str,
    sdk_language: &'static str,
    sdk_version: &'static str,
    url: &'a str,
}

impl Inner {
    pub(super) async fn sync<B>(
        &self,
        parts: &request::Parts,
        body: B,
    ) -> Result<Response<Body>, Denial>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        let wants_in_band = parts.headers.get(SYNC_KIND).is_some_and(|kind| kind == "in_band");
        if wants_in_band && self.in_band {
            return self.sync_in_band(parts, body).await;
        }
        let synced = match self.url_of_request(parts) {
            Ok(url) => {
                let deploy_id = query(parts.uri.query(), "deployId");
                let server_kind = parts.headers.get(SERVER_KIND);
                self.register(&url, deploy_id.as_deref(), server_kind).await
            }
            Err(error) => Err(error),
        };
        Ok(match synced {
            Ok(Synced { modified }) => response::json(
                StatusCode::OK,
                &json!({ "message": "successfully synced", "modified": modified }),
            ),
            Err(error) => {
                log_failure(&error);
                response::json(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    &json!({ "message": error.chain(), "modified": false }),
                )
            }
        })
    }

    async fn sync_in_band<B>(
        &self,
        parts: &request::Parts,
        body: B,
    ) -> Result<Response<Body>, Denial>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        #[derive(Deserialize)]
        struct Request {
            url: String,
        }
        let (body, is_signed) = self.authenticate(parts, body).await?;
        let request: Request = serde_json::from_slice(&body).map_err(|error| {
            Denial::Broken(format!("a sync in band is `{{\"url\": ..}}`: {error}").into())
        })?;
        let url = self.url_in_band(&request.url)?;
        let in_band = InBand {
            app_id: &self.app_id,
            env: self.api.env(),
            framework: FRAMEWORK,
            functions: self.functions(&url),
            inspection: self.inspection(is_signed),
            platform: None,
            sdk_author: "inngest-failure",
            sdk_language: LANGUAGE,
            sdk_version: env!("CARGO_PKG_VERSION"),
            url: &url,
        };
        let mut response = response::json(StatusCode::OK, &in_band);
        response.headers_mut().insert(SYNC_KIND, HeaderValue::from_static("in_band"));
        tracing::info!(app_id = self.app_id, url, "synced in band");
        Ok(response)
    }

    pub(super) async fn sync_at_start(&self) -> Result<Synced, SyncError> {
        let synced = match (&self.serve_origin, self.own_url()) {
            (_, Some(url)) => self.register(&url, None, None).await,
            (Some(_), None) => Err(ApiError::of_message(
                "there is no serve path to sync; set `INNGEST_SERVE_PATH`, or give the endpoint's builder a \
                 `.serve_path(..)`"
                    .to_owned(),
            )),
            (None, None) => Err(ApiError::of_message(
                "there is no serve origin to sync; set `INNGEST_SERVE_ORIGIN`, or give the endpoint's builder a \
                 `.serve_origin(..)`"
                    .to_owned(),
            )),
        };
        synced.map_err(|error| {
            log_failure(&error);
            SyncError { error }
        })
    }

    /// Posts the functions to Inngest.
    async fn register(
        &self,
        url: &str,
        deploy_id: Option<&str>,
        server_kind: Option<&HeaderValue>,
    ) -> Result<Synced, ApiError> {
        let registration = Registration {
            url,
            deploy_type: "ping",
            framework: FRAMEWORK,
            app_name: &self.app_id,
            functions: self.functions(url),
            sdk: SDK,
            v: "0.1",
        };
        let body = serde_json::to_vec(&registration)
            .map_err(|error| ApiError::new("the functions can't be written as JSON", error))?;
        let mut path = "/fn/register".to_owned();
        if let Some(deploy_id) = deploy_id {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("deployId", deploy_id)
                .finish();
            path = format!("{path}?{query}");
        }
        let headers = server_kind.map(|kind| (EXPECTED_SERVER_KIND, kind.clone()));
        let answer =
            self.api.request(Method::POST, &path, headers.as_slice(), Bytes::from(body)).await?;
        let synced = self.registered(&answer)?;
        tracing::info!(
            app_id = self.app_id,
            url,
            functions = self.functions.len(),
            modified = synced.modified,
            "synced",
        );
        Ok(synced)
    }

    /// What Inngest answered.
    fn registered(&self, answer: &Answer) -> Result<Synced, ApiError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Registered {
            ok: Option<bool>,
            modified: bool,
            error: Option<String>,
        }
        let origin = self.api.api_origin();
        let status = answer.status();
        let read: Result<Registered, _> = serde_json::from_slice(answer.body());
        let said = match &read {
            Ok(Registered { error: Some(error), .. }) => self.repeated(error),
            _ => self.repeated(&String::from_utf8_lossy(answer.body())),
        };
        match (status, read) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                Err(ApiError::of_message(match self.api.signing_keys().count() {
                    0 => format!(
                        "Inngest at `{origin}` wants a signing key ({status}: {said}); set `INNGEST_SIGNING_KEY`"
                    ),
                    1 => format!(
                        "Inngest at `{origin}` refuses the signing key ({status}: {said}); see that \
                         `INNGEST_SIGNING_KEY` is that of this environment"
                    ),
                    _ => format!(
                        "Inngest at `{origin}` refuses both signing keys ({status}: {said}); see that \
                         `INNGEST_SIGNING_KEY` or `INNGEST_SIGNING_KEY_FALLBACK` is that of this environment"
                    ),
                }))
            }
            (status, _) if !status.is_success() => Err(ApiError::of_message(format!(
                "Inngest at `{origin}` refuses the functions ({status}): {said}"
            ))),
            (_, Ok(Registered { error: None, ok: Some(true), modified })) => {
                Ok(Synced { modified })
            }
            (_, Ok(Registered { error: None, ok: None, modified: true })) => {
                Ok(Synced { modified: true })
            }
            _ => Err(ApiError::of_message(format!(
                "`{origin}` answers {status}, but not as Inngest does: {said}; see that the API's origin is right"
            ))),
        }
    }

    /// What a server said, as much of it as helps, and no secret that it may have repeated.
    fn repeated(&self, text: &str) -> String {
        let text = self.api.redact(text.trim());
        match text.char_indices().nth(MAX_REPEATED_CHARS) {
            Some((end, _)) => format!("{}..", &text[..end]),
            None if text.is_empty() => "nothing".to_owned(),
            None => text,
        }
    }

    fn functions<'a>(&'a self, url: &str) -> Vec<Function<'a>> {
        let handlers = self.dispatcher.functions();
        let mut functions: Vec<(&str, usize)> =
            self.functions.iter().map(|(id, &handler)| (id.as_str(), handler)).collect();
        functions.sort_unstable();
        let function = |(id, handler): (&'a str, usize)| Function::new(id, &handlers[handler], url);
        functions.into_iter().map(function).collect()
    }

    /// Where the endpoint is, if that was configured.
    fn own_url(&self) -> Option<String> {
        Some(format!("{}{}", self.serve_origin.as_ref()?, self.serve_path.as_ref()?))
    }

    /// Where the endpoint is: as configured, and for the rest as Inngest says.
    fn url_in_band(&self, url: &str) -> Result<String, Denial> {
        let url = url.split('#').next().unwrap_or_default();
        let parsed: Option<Uri> = url.parse().ok();
        let parts = parsed
            .as_ref()
            .and_then(|url| Some((url.scheme_str()?, url.authority()?, url.path_and_query()?)));
        let Some((scheme, authority, path)) = parts else {
            return Err(Denial::Broken("a sync in band is `{\"url\": ..}`: that is no URL".into()));
        };
        let origin = self.serve_origin.clone().unwrap_or_else(|| format!("{scheme}://{authority}"));
        let path = self.serve_path.as_deref().unwrap_or(path.as_str());
        Ok(format!("{origin}{path}"))
    }

    /// Where the endpoint is: as configured, and for the rest as the request says.
    fn url_of_request(&self, parts: &request::Parts) -> Result<String, ApiError> {
        let path = self.serve_path.as_deref().unwrap_or(parts.uri.path());
        if let Some(origin) = &self.serve_origin {
            return Ok(format!("{origin}{path}"));
        }
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = host.or(parts.uri.authority().map(http::uri::Authority::as_str));
        let authority = authority.and_then(|text| text.parse::<http::uri::Authority>().ok());
        let Some(authority) = authority.filter(|authority| !authority.as_str().contains('@'))
        else {
            return Err(ApiError::of_message(
                "the request does not say under which `Host` Inngest reaches this app; set `INNGEST_SERVE_ORIGIN`"
                    .to_owned(),
            ));
        };
        let forwarded = parts.headers.get(FORWARDED_PROTO).and_then(|proto| proto.to_str().ok());
        // A proxy behind a proxy adds its own after a comma.
        let forwarded = forwarded.and_then(|protos| protos.split(',').next()).map(str::trim);
        let scheme = match (forwarded, parts.uri.scheme().map(Scheme::as_str), self.api.mode()) {
            (Some("http"), ..) | (None, Some("http"), _) | (None, None, Mode::Dev) => "http",
            _ => "https",
        };
        Ok(format!("{scheme}://{authority}{path}"))
    }
}
