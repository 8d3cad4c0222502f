//! One handler and one failure: attempts, time-outs, panics.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use tokio::{sync::OwnedSemaphorePermit, time::Instant as Deadline};
use tracing::{Instrument, Span, field::Empty};

#[cfg(any(feature = "serve", feature = "sdk"))]
use super::outcome::{SUCCEEDED, outcome_of};
use super::{
    Backoff, HandlerRun, Rollback, RunError,
    limits::Limits,
    once::{Running, blocking, flatten, within},
    outcome::{Look, outcome},
    rollback::{Tally, Undo, Undos},
};
#[cfg(feature = "api")]
use crate::api::Api;
use crate::{
    dead_letter::{CompletedStep, DeadLetter, Sinks},
    event::FailureEvent,
    extract::{Context, HandlerContext, States},
    metrics,
    panic::{self, Caught, Panic},
    registry::{Call, CallError, HandlerInfo, Wired},
    step::{Driven, Ended, Failing, Memory, Pass, drive},
    trace::Traces,
};

/// A handler that is ready to run.
#[derive(Debug)]
pub(super) struct Handler {
    context: Arc<HandlerContext>,
    runs: Runs,
    takes_steps: bool,
    #[cfg(any(feature = "serve", feature = "sdk"))]
    takes_trace: bool,
    retries: u32,
    timeout: Option<Duration>,
    limits: Limits,
    letters: Arc<Sinks>,
    counts: metrics::OfHandler,
}

/// What a handler runs.
#[derive(Debug)]
enum Runs {
    Function(Call),
    /// The undos of a function's steps, as one.
    Rollback(Undos),
}

/// What all handlers of a dispatcher share.
pub(super) struct Shared {
    pub(super) states: Arc<States>,
    pub(super) traces: Arc<Traces>,
    pub(super) rollback: Rollback,
    pub(super) letters: Arc<Sinks>,
}

impl Shared {
    fn context(&self, info: &HandlerInfo) -> Arc<HandlerContext> {
        Arc::new(HandlerContext {
            id: info.id.clone(),
            max_attempts: info.retries + 1,
            states: Arc::clone(&self.states),
            traces: Arc::clone(&self.traces),
        })
    }
}

impl Handler {
    pub(super) fn new(wired: &Wired, shared: &Shared) -> Self {
        Self {
            context: shared.context(&wired.info),
            runs: Runs::Function(wired.registration.call()),
            takes_steps: wired.takes_steps,
            #[cfg(any(feature = "serve", feature = "sdk"))]
            takes_trace: wired.takes_trace,
            retries: wired.info.retries,
            timeout: wired.info.timeout,
            limits: Limits::new(&wired.info),
            letters: Arc::clone(&shared.letters),
            counts: metrics::OfHandler::new(&wired.info.id),
        }
    }

    /// All handlers that undo steps of one function, as one.
    pub(super) fn rollback(info: &HandlerInfo, undos: &[&Wired], shared: &Shared) -> Self {
        let undo = |wired: &&Wired| Undo {
            step: wired.info.step.unwrap_or_default(),
            selector: wired.selector.clone(),
            context: shared.context(&wired.info),
            call: wired.registration.call(),
            takes_steps: wired.takes_steps,
            retries: wired.info.retries,
            timeout: wired.info.timeout,
        };
        let undos = undos.iter().map(undo).collect();
        let undos = Undos::new(undos, shared.rollback, Arc::clone(&shared.letters));
        Self {
            context: shared.context(info),
            runs: Runs::Rollback(undos),
            takes_steps: true,
            #[cfg(any(feature = "serve", feature = "sdk"))]
            takes_trace: true,
            retries: info.retries,
            timeout: None,
            limits: Limits::new(info),
            letters: Arc::clone(&shared.letters),
            counts: metrics::OfHandler::new(&info.id),
        }
    }

    /// Whether it undoes steps.
    pub(super) fn is_rollback(&self) -> bool {
        matches!(self.runs, Runs::Rollback(_))
    }

    /// Runs the handler, and reports a run for each undo if it is a rollback: for each of these, if some are named.
    pub(super) async fn run_all(
        &self,
        event: FailureEvent,
        steps: &[CompletedStep],
        only: Option<Vec<&str>>,
        tools: &Tools,
        dispatch: &Span,
    ) -> Vec<HandlerRun> {
        let Runs::Rollback(undos) = &self.runs else {
            return vec![self.run(event, steps, tools, dispatch, None).await];
        };
        let tally = Tally::new(only);
        let cx = Context::new(event.clone(), Arc::clone(&self.context));
        let run = Box::pin(self.run(event, steps, tools, dispatch, Some(&tally))).await;
        undos.runs(&cx, tally, run.result, run.elapsed)
    }

    /// Runs the handler until it succeeds or has failed for good. These steps have completed before.
    pub(super) async fn run(
        &self,
        event: FailureEvent,
        steps: &[CompletedStep],
        tools: &Tools,
        dispatch: &Span,
        tally: Option<&Tally<'_>>,
    ) -> HandlerRun {
        let span = tracing::error_span!(
            parent: dispatch,
            "handler",
            handler_id = self.context.id,
            run_id = super::shown(event.run_id()),
            attempt = Empty,
            outcome = Empty,
        );
        let started = Instant::now();
        let mut cx = Context::new(event, Arc::clone(&self.context));
        let mut unfinished = Unfinished { span: &span, ended: false, is_last: false };
        let mut memory = (!steps.is_empty()).then(|| Box::new(Memory::recalling(steps)));
        let (result, attempts) =
            self.attempts(&mut cx, &mut memory, tools, &span, tally).instrument(span.clone()).await;
        unfinished.ended = true;
        let elapsed = started.elapsed();
        span.record("outcome", outcome(&result));
        self.counts.run(outcome(&result));
        if let Err(error) = &result
            && !self.letters.is_empty()
        {
            let steps = || memory.map_or_else(Vec::new, |memory| memory.completed());
            Box::pin(self.bury(cx.event(), error, attempts, steps, tally).instrument(span.clone()))
                .await;
        }
        HandlerRun { handler_id: self.context.id.clone(), result, attempts, elapsed }
    }

    /// Writes the dead letter of a handler that has failed for good. A rollback writes those of its undos.
    async fn bury(
        &self,
        event: &FailureEvent,
        error: &RunError,
        attempts: u32,
        steps: impl FnOnce() -> Vec<CompletedStep>,
        tally: Option<&Tally<'_>>,
    ) {
        // A run that did not take place is what a rate limit is for.
        if self.letters.is_empty() || matches!(error, RunError::RateLimited) {
            return;
        }
        if let Runs::Rollback(undos) = &self.runs {
            // If it came to its end it has written those of its undos.
            if !matches!(error, RunError::Failed(_)) {
                let meant = undos.of(event, tally);
                undos.bury_all(event, &meant, &error.describe(), &steps()).await;
            }
            return;
        }
        let letter = DeadLetter {
            handler_id: self.context.id.clone(),
            event: event.clone(),
            error: error.describe_with_step(),
            attempts: Some(attempts),
            failed_at: SystemTime::now(),
            steps: steps(),
        };
        self.letters.put(&letter).await;
    }

    /// A run that Inngest has called is over: what is to be known of that beyond the answer.
    #[cfg(any(feature = "serve", feature = "sdk"))]
    pub(super) async fn end(
        &self,
        event: &FailureEvent,
        result: Result<(), &RunError>,
        attempts: u32,
        pass: Option<&Pass>,
    ) {
        self.counts.run(result.map_or_else(outcome_of, |()| SUCCEEDED));
        if let Err(error) = result {
            let steps = || pass.map(Pass::completed).unwrap_or_default();
            self.bury(event, error, attempts, steps, None).await;
        }
    }

    /// The handler's limits, which are whoever calls it's to keep.
    #[cfg(feature = "sdk")]
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether the handler takes steps.
    #[cfg(any(feature = "serve", feature = "sdk"))]
    pub(super) fn takes_steps(&self) -> bool {
        self.takes_steps
    }

    /// Makes one attempt, counted by whoever calls, inside the current span. Retries, limits and what is remembered of
    /// steps are that one's too.
    ///
    /// A plain `fn` whose time is over is waited for: the next attempt must not run beside it.
    #[cfg(any(feature = "serve", feature = "sdk"))]
    pub(super) async fn call(
        &self,
        event: FailureEvent,
        attempt: u32,
        max_attempts: Option<u32>,
        pass: Option<Arc<Pass>>,
        api: Option<&Api>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Called {
        let span = Span::current();
        let is_last = attempt >= max_attempts.map_or(self.retries, |max| max.saturating_sub(1));
        let mut unfinished = Unfinished { span: &span, ended: false, is_last };
        let mut cx = Context::new(event, Arc::clone(&self.context));
        cx.set_attempt(attempt);
        if let Some(max_attempts) = max_attempts {
            cx.set_max_attempts(max_attempts);
        }
        if let Some(pass) = pass {
            cx.set_pass(pass);
        }
        if let Some(api) = api.filter(|_| self.takes_trace) {
            cx.set_api(api.clone());
        }
        let attempted = self.attempt(&cx, permit, None).await;
        if let Some(running) = attempted.still_running {
            running.end().await;
        }
        unfinished.ended = true;
        let result = match attempted.end {
            End::Returned(result) => result,
            End::TimedOut { .. } | End::Stopped => Err(RunError::TimedOut),
        };
        Called { result, steps: attempted.pass.map(|pass| *pass) }
    }

    async fn attempts(
        &self,
        cx: &mut Context,
        memory: &mut Option<Box<Memory>>,
        tools: &Tools,
        span: &Span,
        tally: Option<&Tally<'_>>,
    ) -> (Result<Value, RunError>, u32) {
        if !self.limits.admit().await {
            tracing::warn!("handler did not run: its `rate_limit` is used up");
            return (Err(RunError::RateLimited), 0);
        }
        // How often what is tried again has failed: a step, or the code outside of steps since the last one.
        let mut failures = 0;
        let mut failures_outside = 0;
        let mut attempts = 0;
        loop {
            cx.set_attempt(failures);
            span.record("attempt", failures);
            if self.takes_steps {
                cx.set_pass(Pass::local(
                    memory.take().unwrap_or_default(),
                    self.retries,
                    #[cfg(feature = "api")]
                    tools.api.clone(),
                ));
            }
            let permit = self.limits.permit().await;
            let Attempted { end, pass, still_running } = self.attempt(cx, permit, tally).await;
            attempts += 1;
            let failing = match pass.map(|pass| *pass) {
                Some(Ended::Local { memory: grown, has_remembered, failing }) => {
                    // A handler whose every attempt has other steps would be tried for ever.
                    if has_remembered && grown.len() <= MAX_STEPS {
                        failures_outside = 0;
                    }
                    *memory = Some(grown);
                    failing
                }
                _ => None,
            };
            let wait = match (end, failing) {
                (End::Returned(Ok(value)), _) => {
                    tracing::debug!(attempt = failures, "handler succeeded");
                    return (Ok(value), attempts);
                }
                (End::Stopped | End::TimedOut { .. }, Some(failing)) => {
                    failures = failing.failures;
                    let wait = failing.delay.unwrap_or_else(|| tools.backoff.wait(failures));
                    let Failing { step_id, error, .. } = failing;
                    tracing::warn!(
                        step = step_id,
                        attempt = failures - 1,
                        error = error.message,
                        ?wait,
                        "step failed, will be tried again",
                    );
                    wait
                }
                (End::TimedOut { in_step: true }, None) => {
                    // The step has failed for good: it is for the handler to see.
                    failures = 0;
                    Duration::ZERO
                }
                (end, _) => {
                    let error = end.into_error();
                    let Look { message, is_retriable, delay } = Look::at(&error);
                    if failures_outside >= self.retries || !is_retriable {
                        tracing::error!(
                            attempt = failures_outside,
                            attempts,
                            error = message,
                            "handler failed for good"
                        );
                        return (Err(error), attempts);
                    }
                    failures_outside += 1;
                    let wait = delay.unwrap_or_else(|| tools.backoff.wait(failures_outside));
                    tracing::warn!(
                        attempt = failures_outside - 1,
                        error = message,
                        ?wait,
                        "handler failed, will be tried again"
                    );
                    failures = failures_outside;
                    panic::drop_caught(error);
                    wait
                }
            };
            tokio::time::sleep(wait).await;
            if let Some(running) = still_running {
                running.end().await;
            }
        }
    }

    /// Calls the handler once. A plain `fn` may still run when its time is over.
    async fn attempt(
        &self,
        cx: &Context,
        permit: Option<OwnedSemaphorePermit>,
        tally: Option<&Tally<'_>>,
    ) -> Attempted {
        let counted = self.counts.attempt();
        let attempted = self.attempt_uncounted(cx, permit, tally).await;
        counted.end(match &attempted.end {
            End::Returned(result) => outcome(result),
            // It has come to a step.
            End::Stopped => "stopped",
            End::TimedOut { .. } => "timed_out",
        });
        attempted
    }

    async fn attempt_uncounted(
        &self,
        cx: &Context,
        permit: Option<OwnedSemaphorePermit>,
        tally: Option<&Tally<'_>>,
    ) -> Attempted {
        let future = match &self.runs {
            Runs::Function(Call::Async(call)) => Ok(call(cx)),
            Runs::Function(Call::Blocking(call)) => Err(*call),
            Runs::Rollback(undos) => Ok(undos.run(cx, tally)),
        };
        match future {
            Ok(future) => {
                let future = Caught::new(future);
                // The larger future is boxed, for handlers without steps would be the slower for it.
                let (driven, pass) = match cx.pass() {
                    Some(pass) => {
                        let (driven, ended) = Box::pin(drive(pass, future, self.timeout)).await;
                        (driven, Some(Box::new(ended)))
                    }
                    None => match within(self.deadline(), || future).await {
                        Some(result) => (Driven::Returned(result), None),
                        None => (Driven::TimedOut { in_step: false }, None),
                    },
                };
                drop(permit);
                Attempted { end: driven.into(), pass, still_running: None }
            }
            Err(call) => {
                let (result, still_running) = blocking(call, cx, self.deadline(), permit).await;
                Attempted { end: End::Returned(result), pass: None, still_running }
            }
        }
    }

    fn deadline(&self) -> Option<Deadline> {
        self.timeout.and_then(|timeout| Deadline::now().checked_add(timeout))
    }
}

/// As many steps as Inngest allows a run.
const MAX_STEPS: usize = 1000;

/// What handlers run with, beside their own settings.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) backoff: Backoff,
    #[cfg(feature = "api")]
    pub(super) api: Option<Api>,
}

/// One attempt.
struct Attempted {
    end: End,
    /// What is left of its steps. Boxed, for most handlers have none, and every attempt would be the larger for it.
    pass: Option<Box<Ended>>,
    still_running: Option<Running>,
}

/// How an attempt ended.
enum End {
    Returned(Result<Value, RunError>),
    /// One of its steps has ended it.
    Stopped,
    TimedOut {
        in_step: bool,
    },
}

impl End {
    /// The error of an attempt that was no success, and that no step has ended.
    fn into_error(self) -> RunError {
        match self {
            Self::Returned(Err(error)) => error,
            Self::Returned(Ok(_)) | Self::Stopped | Self::TimedOut { .. } => RunError::TimedOut,
        }
    }
}

impl From<Driven<Result<Result<Value, CallError>, Panic>>> for End {
    fn from(driven: Driven<Result<Result<Value, CallError>, Panic>>) -> Self {
        match driven {
            Driven::Returned(result) => Self::Returned(flatten(result)),
            Driven::Stopped => Self::Stopped,
            Driven::TimedOut { in_step } => Self::TimedOut { in_step },
        }
    }
}

/// What one call of a handler has come to.
#[cfg(any(feature = "serve", feature = "sdk"))]
pub(crate) struct Called {
    /// What it returned, which counts if nothing has become of its steps.
    pub(crate) result: Result<Value, RunError>,
    pub(crate) steps: Option<Ended>,
}

/// Leaves a line in the log if the handler is dropped before it has ended.
struct Unfinished<'a> {
    span: &'a Span,
    ended: bool,
    /// Whether Inngest will not call again.
    is_last: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.span.record("outcome", "dropped");
            self.span.in_scope(|| match self.is_last {
                false => tracing::warn!("handler was dropped with its dispatch before it ended"),
                true => tracing::error!(
                    "handler was dropped in its last attempt, as when the connection goes away: it has failed for good, \
                     and left no dead letter"
                ),
            });
        }
    }
}
