//! A call: one attempt of one handler.

use std::{borrow::Cow, ops::Range, sync::Arc, time::Instant};

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderMap, Response, StatusCode, request};
use http_body::Body as HttpBody;
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::{Instrument, field::Empty};

use super::{Body, Denial, Inner, response};
use crate::{
    api::ApiError,
    dispatcher::{Called, Look, RunError, outcome, shown},
    error::{BoxError, ParseError},
    event::{ErrorBody, FailureEvent, call_from_str, place},
    panic::drop_caught,
    step::{Asked, Ended, Failed, Memos, Pass, Remote, Report},
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
    /// Whether also a step that is found alone is to be reported before it runs.
    disable_immediate_execution: Option<bool>,
    stack: Option<Stack>,
}

/// What a call says of the order of its steps.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "the order of the steps")]
struct Stack {
    /// The hashed ids in the order in which the steps have completed.
    stack: Option<Vec<String>>,
}

/// What a call is about.
struct Call {
    event: FailureEvent,
    ctx: Ctx,
    /// What is remembered of its steps, if the handler takes any.
    memos: Option<Memos>,
}

/// A call whose body had another shape than most.
#[derive(Deserialize)]
struct AnyCall<'a> {
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    ctx: Ctx,
    #[serde(default)]
    use_api: bool,
    #[serde(borrow)]
    steps: Option<&'a RawValue>,
}

/// Why a call does not get as far as its handler.
enum Misfit {
    /// The body is no call, or its event no failure event.
    Call(ParseError),
    /// The events or the steps are too large to be sent along, and could not be fetched.
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

        let info = &self.dispatcher.functions()[handler];
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
        let step =
            query(parts.uri.query(), "stepId").filter(|step| !matches!(&**step, "" | "step"));
        #[cfg(feature = "testing")]
        let probe: Option<Arc<crate::testing::Probe>> = parts.extensions.get().cloned();
        let answer = async {
            let with_steps = self.dispatcher.takes_steps(handler);
            let (response, ctx, outcome) = match self.read_call(body, with_steps).await {
                Ok(Call { event, mut ctx, memos }) => {
                    #[cfg(feature = "testing")]
                    let event = match probe.as_ref().and_then(|probe| probe.trace()) {
                        Some(trace) => event.with_test_trace(trace),
                        None => event,
                    };
                    span.record("run_id", shown(&ctx.run_id)).record("attempt", ctx.attempt);
                    span.record("function_id", shown(event.function_id()));
                    span.record("failed_run_id", shown(event.run_id()));
                    let (response, outcome) = match (memos, step) {
                        (Some(memos), step) => {
                            let asked = Asked {
                                memos,
                                completed: ctx.completed(),
                                target: step.map(Cow::into_owned),
                                immediate: ctx.disable_immediate_execution != Some(true),
                                attempt: ctx.attempt,
                                is_last: ctx.is_last(info.retries),
                            };
                            let pass = Pass::remote(
                                Remote::new(asked),
                                self.api.clone(),
                                #[cfg(feature = "testing")]
                                probe,
                            );
                            self.run(handler, event, &ctx, Some(pass)).await
                        }
                        // It took steps when it was asked for this one.
                        (None, Some(step)) => reported(Report::not_found(step.into_owned())),
                        (None, None) => self.run(handler, event, &ctx, None).await,
                    };
                    (response, ctx, outcome)
                }
                Err((misfit, ctx)) => {
                    span.record("run_id", shown(&ctx.run_id)).record("attempt", ctx.attempt);
                    let (response, outcome) = misfit.response(ctx.is_last(info.retries));
                    (response, ctx, outcome)
                }
            };
            span.record("outcome", outcome);
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

    /// The failure event, the run's context and its steps.
    async fn read_call(&self, body: Bytes, with_steps: bool) -> Result<Call, (Misfit, Ctx)> {
        let misfit = |error| (Misfit::Call(error), Ctx::default());
        let body =
            ByteString::try_from(body).map_err(|error| misfit(ParseError::not_utf8(&error)))?;
        if let Some((event, ctx, steps)) = FailureEvent::from_call::<Ctx>(&body, with_steps)
            && ctx.use_api == Some(false)
        {
            return match steps.map(|steps| read_memos(&body, steps)).transpose() {
                Ok(memos) => Ok(Call { event, ctx, memos }),
                Err(error) => Err((Misfit::Call(error), ctx)),
            };
        }
        // Rare, or broken: look again, more slowly.
        let call: AnyCall<'_> = call_from_str(&body).map_err(misfit)?;
        if call.use_api || call.ctx.use_api == Some(true) {
            return self.fetch(call.ctx, with_steps).await;
        }
        let event = call.event.map_or("null", RawValue::get);
        let memos = || match (with_steps, call.steps) {
            (false, _) => Ok(None),
            (true, None) => Ok(Some(Memos::default())),
            (true, Some(steps)) => read_memos(&body, place(&body, steps.get())).map(Some),
        };
        let read = || Ok((event.parse()?, memos()?));
        match read() {
            Ok((event, memos)) => Ok(Call { event, ctx: call.ctx, memos }),
            Err(error) => Err((Misfit::Call(error), call.ctx)),
        }
    }

    /// The failure event and the steps of a run that is too large for them to be sent along.
    async fn fetch(&self, ctx: Ctx, with_steps: bool) -> Result<Call, (Misfit, Ctx)> {
        match self.try_fetch(&ctx.run_id, with_steps).await {
            Ok((event, memos)) => Ok(Call { event, ctx, memos }),
            Err(error) => Err((Misfit::Fetch(error), ctx)),
        }
    }

    async fn try_fetch(
        &self,
        run_id: &str,
        with_steps: bool,
    ) -> Result<(FailureEvent, Option<Memos>), ApiError> {
        let event = self.api.first_event(run_id).await?.parse().map_err(|error: ParseError| {
            let message = "what Inngest gives for the event of the run is none of a failure";
            ApiError::new(message, error)
        })?;
        let memos = match with_steps {
            true => Some(self.fetch_memos(run_id).await?),
            false => None,
        };
        Ok((event, memos))
    }

    async fn fetch_memos(&self, run_id: &str) -> Result<Memos, ApiError> {
        let broken =
            |error| ApiError::new("what Inngest gives for the steps of the run are none", error);
        let steps = ByteString::try_from(self.api.steps(run_id).await?)
            .map_err(|error| broken(ParseError::not_utf8(&error)))?;
        let place = 0..steps.len();
        read_memos(&steps, place).map_err(broken)
    }

    async fn run(
        &self,
        handler: usize,
        event: FailureEvent,
        ctx: &Ctx,
        pass: Option<Arc<Pass>>,
    ) -> (Response<Body>, &'static str) {
        let info = &self.dispatcher.functions()[handler];
        if tracing::enabled!(tracing::Level::WARN) && !self.dispatcher.takes(handler, &event) {
            tracing::warn!(
                selector = info.selector,
                function_id = shown(event.function_id()),
                "the handler's selector does not take this failure, but Inngest chose it, so it runs; sync the \
                 app if the selector has changed",
            );
        }
        let called = self.dispatcher.call(
            handler,
            event.clone(),
            ctx.attempt,
            ctx.max_attempts,
            pass.clone(),
            &self.api,
        );
        let Called { result, steps } = called.await;
        match steps {
            // What has become of a step is reported first: a side effect is to be remembered.
            Some(Ended::Remote { report: Some(report), .. }) => {
                drop_caught(result);
                return reported(report);
            }
            Some(Ended::Remote { not_found: Some(report), .. }) if result.is_ok() => {
                return reported(report);
            }
            // A rollback does not go through an undo again that is done.
            Some(Ended::Remote { unmet: unmet @ 1.., .. })
                if !matches!(result, Err(RunError::TimedOut))
                    && !self.dispatcher.is_rollback(handler) =>
            {
                tracing::warn!(
                    unmet,
                    "the handler returned without coming to all steps that are remembered of its run: it was changed, \
                     or its steps depend on more than the failure and each other's results",
                );
            }
            _ => {}
        }
        let outcome = outcome(&result);
        let (response, is_over) = match &result {
            Ok(value) => (response::json(StatusCode::OK, value), true),
            Err(error) => failed(error, ctx.is_last(info.retries)),
        };
        if is_over {
            let result = result.as_ref().map(|_| ());
            let attempts = ctx.attempt.saturating_add(1);
            let end = self.dispatcher.end(handler, &event, result, attempts, pass.as_deref());
            // Rarely more than a counter.
            Box::pin(end).await;
        }
        drop_caught(result);
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

impl Ctx {
    /// The hashed ids of the steps in the order in which they have completed.
    fn completed(&mut self) -> Vec<String> {
        self.stack.take().and_then(|stack| stack.stack).unwrap_or_default()
    }

    /// Whether no attempt follows this one.
    fn is_last(&self, retries: u32) -> bool {
        let max_attempts = self.max_attempts.unwrap_or(retries + 1);
        self.attempt.saturating_add(1) >= max_attempts
    }
}

/// The memoised steps at this place of the body.
fn read_memos(body: &ByteString, steps: Range<usize>) -> Result<Memos, ParseError> {
    Memos::read(body.clone(), steps).map_err(|error| ParseError::steps(&error))
}

/// The answer for a handler that has not come to its end, but to a step.
fn reported(report: Report) -> (Response<Body>, &'static str) {
    let mut response = response::json(StatusCode::PARTIAL_CONTENT, &report.operations);
    if let Some(Failed { step_id, message, is_final, is_retriable, delay }) = report.failed {
        if is_final {
            tracing::warn!(
                step = step_id,
                error = message,
                "step failed for good, which the handler is told",
            );
        } else {
            tracing::warn!(step = step_id, error = message, wait = ?delay, "step failed, Inngest will try it again");
        }
        // An operation that says that the step has failed for good is enough for the server: the header is the error's.
        response::set_retry(&mut response, is_retriable, delay);
    }
    (response, report.outcome)
}

/// The answer for a handler that failed, and whether it has failed for good.
fn failed(error: &RunError, is_last_attempt: bool) -> (Response<Body>, bool) {
    let Look { message, is_retriable, delay } = Look::at(error);
    let is_over = !is_retriable || is_last_attempt;
    if !is_over {
        tracing::warn!(error = message, wait = ?delay, "handler failed, Inngest will try it again");
    } else {
        tracing::error!(error = message, "handler failed for good");
    }
    let body = ErrorBody::of(&error.describe());
    if !is_retriable {
        return (response::error(StatusCode::BAD_REQUEST, &body, false), is_over);
    }
    let mut response = response::error(StatusCode::INTERNAL_SERVER_ERROR, &body, true);
    response::set_retry(&mut response, true, delay);
    (response, is_over)
}

impl Misfit {
    fn response(&self, is_last_attempt: bool) -> (Response<Body>, &'static str) {
        match self {
            // The same bytes come with every attempt.
            Self::Call(error) => {
                tracing::error!(%error, "not a call for a failure handler, nothing has run");
                let body = ErrorBody::new("ParseError", error.to_string());
                (response::error(StatusCode::BAD_REQUEST, &body, false), "not_a_failure")
            }
            Self::Fetch(error) => {
                let chain = error.chain();
                const MESSAGE: &str =
                    "the event or the steps could not be fetched, nothing has run";
                match is_last_attempt {
                    false => tracing::warn!(error = chain, "{MESSAGE}"),
                    true => tracing::error!(
                        error = chain,
                        "{MESSAGE}, and nothing will: this was the last attempt"
                    ),
                }
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
    use http::HeaderValue;

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
