//! What every answer has in common.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::Body;
use crate::{api::SDK, event::ErrorBody, server::retry_after};

/// What this endpoint says that it runs on.
pub(super) const FRAMEWORK: &str = "tower";

/// What this crate calls itself where a sync or an introspection asks.
pub(super) const LANGUAGE: &str = "rust";

const REQ_VERSION: HeaderName = HeaderName::from_static("x-inngest-req-version");
const SDK_NAME: HeaderName = HeaderName::from_static("x-inngest-sdk");
const FRAMEWORK_NAME: HeaderName = HeaderName::from_static("x-inngest-framework");
const NO_RETRY: HeaderName = HeaderName::from_static("x-inngest-no-retry");
pub(super) const SYNC_KIND: HeaderName = HeaderName::from_static("x-inngest-sync-kind");

/// An answer with this JSON in it.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(body) {
        Ok(body) => bytes(status, body),
        // Only a map whose keys are no texts could not be written, and there is none.
        Err(error) => {
            tracing::error!(%error, "an answer can't be written as JSON");
            bytes(StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
        }
    }
}

/// An answer with an error in it, after which Inngest tries again or does not.
pub(super) fn error(status: StatusCode, body: &ErrorBody, retry: bool) -> Response<Body> {
    let mut response = json(status, body);
    set_retry(&mut response, retry, None);
    response
}

/// Says whether Inngest is to try again, and after how long if that is known.
pub(super) fn set_retry(response: &mut Response<Body>, retry: bool, delay: Option<Duration>) {
    let headers = response.headers_mut();
    let no_retry = if retry { "false" } else { "true" };
    headers.insert(NO_RETRY, HeaderValue::from_static(no_retry));
    if let (true, Some(delay)) = (retry, delay) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after(delay)));
    }
}

fn bytes(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(SDK_NAME, HeaderValue::from_static(SDK));
    headers.insert(REQ_VERSION, HeaderValue::from_static("2"));
    headers.insert(FRAMEWORK_NAME, HeaderValue::from_static(FRAMEWORK));
    response
}
