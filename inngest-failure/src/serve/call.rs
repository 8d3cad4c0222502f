//! A call: one attempt of one handler.

use std::{borrow::Cow, time::Instant};

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request};
use http_body::Body as HttpBody;
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::{Instrument, field::Empty};

use super::{Body, Denial, Inner, error_body::ErrorBody, response};
use crate::{
    api::ApiError,
    dispatcher::{Look, RunError, drop_caught, outcome, shown},
    error::{BoxError, ParseError},
    event::FailureEvent,
};

/// What a call says of the run that it belongs to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ctx {
    run_id: String,
    attempt: u32,
    /// Old servers don't say.
    max_attempts: Option<u32>,
    /// Whether the events and the steps are too large to be sent along. The body says so twice: here, and after
    /// the events.
    use_api: Option<bool>,
}

/// A call whose body had another shape than most.
#[derive(Deserialize)]
struct AnyCall<'a> {
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    ctx: Ctx,
    #[serde(default)]
    use_api: bool,
}

/// Why a call does not get as far as its handler.
enum Misfit {
    /// The body is no call, or its event no failure event.
    Event(ParseError),
    /// The events are too large to be sent along, and could not be fetched.
    Fetch(ApiError),
}

impl Inner {
    pub(super) async fn call<B>(
        &self,
        parts: &request::Parts,
        body: B,
    ) -> Result<Response<Body>, Denial>
    where
        B: HttpBody,
        B::Error: Into<BoxError>,
    {
        let started = Instant::now();
        let (body, _) = self.authenticate(parts, body).await?;
        let function = query(parts.uri.query(), "fnId").unwrap_or_default();
        let Some(&handler) = self.functions.get(&*function) else {
            return Ok(self.unknown_function(&function));
        };

        let info = &self.dispatcher.handlers()[handler];
        let span = tracing::error_span!(
            "call",
            handler_id = info.id,
            run_id = Empty,
            attempt = Empty,
            outcome = Empty,
            function_id = Empty,
            failed_run_id = Empty,
            trace_id = Empty,
            parent_span_id = Empty,
        );
        if !span.is_disabled()
            && let Some(TraceParent { trace_id, parent_id }) = TraceParent::of(&parts.headers)
        {
            span.record("trace_id", trace_id).record("parent_span_id", parent_id);
        }
        let answer = async {
            let (response, ctx, outcome) = match self.read_call(body).await {
                Ok((event, ctx)) => {
                    span.record("run_id", shown(&ctx.run_id)).record("attempt", ctx.attempt);
                    span.record("function_id", shown(event.function_id()));
                    span.record("failed_run_id", shown(event.run_id()));
                    let (response, outcome) = self.run(handler, event, &ctx).await;
                    (response, ctx, outcome)
                }
                Err((misfit, ctx)) => {
                    span.record("run_id", shown(&ctx.run_id)).record("attempt", ctx.attempt);
                    let (response, outcome) = misfit.response();
                    (response, ctx, outcome)
                }
            };
            tracing::info!(
                handler_id = info.id,
                run_id = shown(&ctx.run_id),
                attempt = ctx.attempt,
                outcome,
                status = response.status().as_u16(),
                duration = ?started.elapsed(),
                "call answered",
            );
            response
        };
        Ok(answer.instrument(span.clone()).await)
    }

    /// The failure event and the run's context.
    async fn read_call(&self, body: Bytes) -> Result<(FailureEvent, Ctx), (Misfit, Ctx)> {
        let misfit = |error| (Misfit::Event(error), Ctx::default());
        let body =
            ByteString::try_from(body).map_err(|error| misfit(ParseError::not_utf8(&error)))?;
        if let Some((event, ctx)) = FailureEvent::from_call::<Ctx>(&body)
            && ctx.use_api == Some(false)
        {
            return Ok((event, ctx));
        }
        // Rare, or broken: look again, more slowly.
        let call: AnyCall<'_> = crate::event::call_from_str(&body).map_err(misfit)?;
        if call.use_api || call.ctx.use_api == Some(true) {
            return self.fetch(call.ctx).await;
        }
        let event = call.event.map_or("null", RawValue::get);
        match event.parse() {
            Ok(event) => Ok((event, call.ctx)),
            Err(error) => Err((Misfit::Event(error), call.ctx)),
        }
    }

    /// The failure event of a run that is too large for its events to be sent along.
    async fn fetch(&self, ctx: Ctx) -> Result<(FailureEvent, Ctx), (Misfit, Ctx)> {
        let event = match self.api.first_event(&ctx.run_id).await {
            Ok(event) => event,
            Err(error) => return Err((Misfit::Fetch(error), ctx)),
        };
        match event.parse::<FailureEvent>() {
            Ok(event) => Ok((event, ctx)),
            Err(error) => {
                let error = ApiError::new(
                    "what Inngest gives for the event of the run is none of a failure",
                    error,
                );
                Err((Misfit::Fetch(error), ctx))
            }
        }
    }

    async fn run(
        &self,
        handler: usize,
        event: FailureEvent,
        ctx: &Ctx,
    ) -> (Response<Body>, &'static str) {
        let info = &self.dispatcher.handlers()[handler];
        if tracing::enabled!(tracing::Level::WARN) && !self.dispatcher.takes(handler, &event) {
            tracing::warn!(
                selector = info.selector,
                function_id = shown(event.function_id()),
                "the handler's selector does not take this failure, but Inngest chose it, so it runs; sync the \
                 app if the selector has changed",
            );
        }
        let result = self.dispatcher.call(handler, event, ctx.attempt, ctx.max_attempts).await;
        let outcome = outcome(&result);
        let response = match result {
            Ok(value) => response::json(StatusCode::OK, &value),
            Err(error) => {
                let max_attempts = ctx.max_attempts.unwrap_or(info.retries + 1);
                let response = failed(&error, ctx.attempt.saturating_add(1) >= max_attempts);
                drop_caught(error);
                response
            }
        };
        (response, outcome)
    }

    fn unknown_function(&self, function: &str) -> Response<Body> {
        let mut known: Vec<&str> = self.functions.keys().map(String::as_str).collect();
        known.sort_unstable();
        tracing::error!(
            function = shown(function),
            known = ?known,
            "called for a function that this app does not have; sync the app",
        );
        let message = match function {
            "" => "the call names no function: its URL has no `fnId`".to_owned(),
            _ => format!("this app has no function `{}`; sync the app", shown(function)),
        };
        let body = ErrorBody::new("UnknownFunction", message);
        response::error(StatusCode::INTERNAL_SERVER_ERROR, &body, true)
    }
}

/// The answer for a handler that failed.
fn failed(error: &RunError, is_last_attempt: bool) -> Response<Body> {
    let Look { message, is_retriable, delay } = Look::at(error);
    if is_retriable && !is_last_attempt {
        tracing::warn!(error = message, wait = ?delay, "handler failed, Inngest will try it again");
    } else {
        tracing::error!(error = message, "handler failed for good");
    }
    let body = ErrorBody::of(error);
    if !is_retriable {
        return response::error(StatusCode::BAD_REQUEST, &body, false);
    }
    let mut response = response::error(StatusCode::INTERNAL_SERVER_ERROR, &body, true);
    if let Some(delay) = delay {
        // Whole seconds, none of them too early. A longer text would be taken for a date.
        const MAX_SECONDS: u64 = 9_999_999;
        let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
        let seconds = seconds.min(MAX_SECONDS);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

impl Misfit {
    fn response(&self) -> (Response<Body>, &'static str) {
        match self {
            // The same bytes come with every attempt.
            Self::Event(error) => {
                tracing::error!(%error, "not a call for a failure handler, nothing has run");
                let body = ErrorBody::new("ParseError", error.to_string());
                (response::error(StatusCode::BAD_REQUEST, &body, false), "not_a_failure")
            }
            Self::Fetch(error) => {
                let chain = error.chain();
                tracing::warn!(error = chain, "the event could not be fetched, nothing has run");
                let body = ErrorBody::new("ApiError", chain);
                (response::error(StatusCode::INTERNAL_SERVER_ERROR, &body, true), "not_fetched")
            }
        }
    }
}

/// The first value of a query's parameter.
pub(super) fn query<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Where the call stands in the server's trace: W3C Trace Context.
struct TraceParent<'a> {
    trace_id: &'a str,
    parent_id: &'a str,
}

impl<'a> TraceParent<'a> {
    fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
        let (version, trace_id, parent_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, len: usize| {
            text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_set = |text: &str| text.bytes().any(|b| b != b'0');
        // A later version may have more parts, version 00 has none.
        let has_more = version == "00" && parts.next().is_some();
        let valid = is_hex(version, 2) && version != "ff" && is_hex(flags, 2) && !has_more;
        let valid = valid && is_hex(trace_id, 32) && is_set(trace_id);
        (valid && is_hex(parent_id, 16) && is_set(parent_id))
            .then_some(Self { trace_id, parent_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_counts_only_if_it_is_a_whole_one() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(value));
            TraceParent::of(&headers)
                .map(|found| (found.trace_id.to_owned(), found.parent_id.to_owned()))
        };
        let found = of("00-684513db87f533855d47dca50191a18e-43bd3ee5bff04e44-01").unwrap();
        assert_eq!(found.0, "684513db87f533855d47dca50191a18e");
        assert_eq!(found.1, "43bd3ee5bff04e44");
        assert!(of("01-684513db87f533855d47dca50191a18e-43bd3ee5bff04e44-01-x").is_some());
        for broken in [
            "",
            "00-684513db87f533855d47dca50191a18e-43bd3ee5bff04e44",
            "00-684513db87f533855d47dca50191a18e-43bd3ee5bff04e44-01-x",
            "ff-684513db87f533855d47dca50191a18e-43bd3ee5bff04e44-01",
            "00-00000000000000000000000000000000-43bd3ee5bff04e44-01",
            "00-684513db87f533855d47dca50191a18e-0000000000000000-01",
            "00-684513DB87F533855D47DCA50191A18E-43bd3ee5bff04e44-01",
        ] {
            assert!(of(broken).is_none(), "{broken}");
        }
    }
}
