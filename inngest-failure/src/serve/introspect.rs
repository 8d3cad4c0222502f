//! Introspection: what Inngest may know of the app, and more for whoever proves to be Inngest.

use http::{Response, StatusCode, request};
use http_body::Body as HttpBody;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Body, Denial, Inner,
    response::{self, FRAMEWORK, LANGUAGE},
};
use crate::{
    api::{
        Mode,
        keys::{EventKey, SigningKey},
        signature::Refusal,
    },
    error::BoxError,
};

/// Schema `2024-05-24`.
#[derive(Serialize)]
pub(super) struct Unauthenticated {
    /// Null for a request that is not signed, false for one that is badly signed.
    authentication_succeeded: Option<bool>,
    function_count: usize,
    has_event_key: bool,
    has_signing_key: bool,
    has_signing_key_fallback: bool,
    mode: &'static str,
    schema_version: &'static str,
}

/// What whoever asks may know.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Inspection<'a> {
    Open(Unauthenticated),
    Whole(Box<Authenticated<'a>>),
}

#[derive(Serialize)]
pub(super) struct Authenticated<'a> {
    #[serde(flatten)]
    open: Unauthenticated,
    app_id: &'a str,
    api_origin: &'a str,
    env: Option<&'a str>,
    event_api_origin: &'a str,
    event_key_hash: Option<String>,
    extra: Value,
    framework: &'static str,
    sdk_language: &'static str,
    sdk_version: &'static str,
    serve_origin: Option<&'a str>,
    serve_path: Option<&'a str>,
    signing_key_fallback_hash: Option<&'a str>,
    signing_key_hash: Option<&'a str>,
}

impl Inner {
    pub(super) async fn introspect<B>(
        &self,
        parts: &request::Parts,
        body: B,
    ) -> Result<Response<Body>, Denial>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        let answer = match self.authenticate(parts, body).await {
            Ok((_, is_signed)) => response::json(StatusCode::OK, &self.inspection(is_signed)),
            Err(Denial::Signature(refusal)) => {
                let succeeded = match refusal {
                    Refusal::Missing => None,
                    _ => Some(false),
                };
                tracing::debug!(%refusal, "introspection by someone unknown");
                response::json(StatusCode::OK, &self.unauthenticated(succeeded))
            }
            Err(denial) => return Err(denial),
        };
        Ok(answer)
    }

    pub(super) fn inspection(&self, is_signed: bool) -> Inspection<'_> {
        match is_signed {
            true => Inspection::Whole(Box::new(self.authenticated())),
            false => Inspection::Open(self.unauthenticated(None)),
        }
    }

    fn unauthenticated(&self, authentication_succeeded: Option<bool>) -> Unauthenticated {
        Unauthenticated {
            authentication_succeeded,
            function_count: self.functions.len(),
            has_event_key: self.api.event_key().is_some(),
            has_signing_key: self.api.signing_key().is_some(),
            has_signing_key_fallback: self.api.signing_key_fallback().is_some(),
            mode: match self.api.mode() {
                Mode::Cloud => "cloud",
                Mode::Dev => "dev",
            },
            schema_version: "2024-05-24",
        }
    }

    fn authenticated(&self) -> Authenticated<'_> {
        let handlers: Vec<Value> = self
            .dispatcher
            .functions()
            .iter()
            .map(|handler| {
                json!({
                    "id": handler.id,
                    "name": handler.name,
                    "selector": handler.selector,
                    "description": handler.description,
                    "rust_name": handler.rust_name,
                    "location": handler.location.to_string(),
                })
            })
            .collect();
        Authenticated {
            open: self.unauthenticated(Some(true)),
            app_id: &self.app_id,
            api_origin: self.api.api_origin(),
            env: self.api.env(),
            event_api_origin: self.api.event_api_origin(),
            event_key_hash: self.api.event_key().map(EventKey::fingerprint),
            extra: json!({ "handlers": handlers }),
            framework: FRAMEWORK,
            sdk_language: LANGUAGE,
            sdk_version: env!("CARGO_PKG_VERSION"),
            serve_origin: self.serve_origin.as_deref(),
            serve_path: self.serve_path.as_deref(),
            signing_key_fallback_hash: self.api.signing_key_fallback().map(SigningKey::fingerprint),
            signing_key_hash: self.api.signing_key().map(SigningKey::fingerprint),
        }
    }
}
