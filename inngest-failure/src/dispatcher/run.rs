//! One handler and one failure: attempts, time-outs, panics.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{sync::OwnedSemaphorePermit, task::JoinHandle, time::Instant as Deadline};
use tracing::{Instrument, Span, field::Empty};

use super::{
    Backoff, HandlerRun, RunError,
    limits::Limits,
    panic::{self, Caught, Panic, catch},
};
use crate::{
    __private::BoxFuture,
    error::{HandlerError, ParseError},
    event::FailureEvent,
    extract::{Context, HandlerContext, States},
    registry::{BlockingCall, Call, CallError, Wired},
};

/// A handler that is ready to run.
#[derive(Debug)]
pub(super) struct Handler {
    context: Arc<HandlerContext>,
    call: Call,
    retries: u32,
    timeout: Option<Duration>,
    limits: Limits,
}

impl Handler {
    pub(super) fn new(wired: &Wired, states: &Arc<States>) -> Self {
        let context = HandlerContext {
            id: wired.info.id.clone(),
            max_attempts: wired.info.retries + 1,
            states: Arc::clone(states),
        };
        Self {
            context: Arc::new(context),
            call: wired.registration.call(),
            retries: wired.info.retries,
            timeout: wired.info.timeout,
            limits: Limits::new(&wired.info),
        }
    }

    /// Runs the handler until it succeeds or has failed for good.
    pub(super) async fn run(
        &self,
        event: FailureEvent,
        backoff: &Backoff,
        dispatch: &Span,
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
        let mut unfinished = Unfinished { span: &span, ended: false };
        let (result, attempts) =
            self.attempts(&mut cx, backoff, &span).instrument(span.clone()).await;
        unfinished.ended = true;
        span.record("outcome", outcome(&result));
        HandlerRun {
            handler_id: self.context.id.clone(),
            result,
            attempts,
            elapsed: started.elapsed(),
        }
    }

    /// Makes one attempt, counted by whoever calls, inside the current span. Retries and limits are that
    /// one's too.
    ///
    /// A plain `fn` whose time is over is waited for: the next attempt must not run beside it.
    #[cfg(feature = "serve")]
    pub(super) async fn call(
        &self,
        event: FailureEvent,
        attempt: u32,
        max_attempts: Option<u32>,
    ) -> Result<Value, RunError> {
        let span = Span::current();
        let mut unfinished = Unfinished { span: &span, ended: false };
        let mut cx = Context::new(event, Arc::clone(&self.context));
        cx.set_attempt(attempt);
        if let Some(max_attempts) = max_attempts {
            cx.set_max_attempts(max_attempts);
        }
        let (result, still_running) = self.attempt(&cx, None).await;
        if let Some(running) = still_running {
            running.end().await;
        }
        unfinished.ended = true;
        span.record("outcome", outcome(&result));
        result
    }

    async fn attempts(
        &self,
        cx: &mut Context,
        backoff: &Backoff,
        span: &Span,
    ) -> (Result<Value, RunError>, u32) {
        if !self.limits.admit().await {
            tracing::warn!("handler did not run: its `rate_limit` is used up");
            return (Err(RunError::RateLimited), 0);
        }
        let mut waits = None;
        let mut attempt = 0;
        loop {
            cx.set_attempt(attempt);
            span.record("attempt", attempt);
            let permit = self.limits.permit().await;
            let (result, still_running) = self.attempt(cx, permit).await;
            let attempts = attempt + 1;
            let error = match result {
                Ok(value) => {
                    tracing::debug!(attempt, "handler succeeded");
                    return (Ok(value), attempts);
                }
                Err(error) => error,
            };
            let Look { message, is_retriable, delay } = Look::at(&error);
            if attempt >= self.retries || !is_retriable {
                tracing::error!(attempt, attempts, error = message, "handler failed for good");
                return (Err(error), attempts);
            }
            let waits = waits.get_or_insert_with(|| backoff.waits());
            let wait = delay.or_else(|| waits.next()).unwrap_or_default();
            tracing::warn!(attempt, error = message, ?wait, "handler failed, will be tried again");
            panic::drop_caught(error);
            tokio::time::sleep(wait).await;
            if let Some(running) = still_running {
                running.end().await;
            }
            attempt += 1;
        }
    }

    /// Calls the handler once. A plain `fn` may still run when its time is over.
    async fn attempt(
        &self,
        cx: &Context,
        permit: Option<OwnedSemaphorePermit>,
    ) -> (Result<Value, RunError>, Option<Running>) {
        let deadline = self.timeout.and_then(|timeout| Deadline::now().checked_add(timeout));
        match self.call {
            Call::Async(call) => {
                let result = within(deadline, || Caught::new(call(cx))).await;
                drop(permit);
                (flatten(result), None)
            }
            Call::Blocking(call) => blocking(call, cx, deadline, permit).await,
        }
    }
}

/// Runs a plain `fn` on the blocking pool.
async fn blocking(
    call: for<'a> fn(&'a Context) -> BoxFuture<'a, Result<BlockingCall, CallError>>,
    cx: &Context,
    deadline: Option<Deadline>,
    permit: Option<OwnedSemaphorePermit>,
) -> (Result<Value, RunError>, Option<Running>) {
    let call = match within(deadline, || Caught::new(call(cx))).await {
        Some(Ok(Ok(call))) => call,
        Some(Ok(Err(error))) => return (Err(error.into()), None),
        Some(Err(panic)) => return (Err(panic.into()), None),
        None => return (Err(RunError::TimedOut), None),
    };
    let span = Span::current();
    let mut running = Running::start(move || {
        let _permit = permit;
        span.in_scope(|| catch(call))
    });
    let result = within(deadline, || &mut running.task).await;
    let Some(result) = result else {
        running.task.abort(); // which keeps it from starting, if it still waits for a thread
        return (Err(RunError::TimedOut), Some(running));
    };
    running.ended = true;
    let result = result.unwrap_or_else(|_| {
        // `catch` leaves no panic to the pool: the runtime shut down before the call began.
        let error = HandlerError::from("the runtime shut down before the handler could run");
        Ok(Err(CallError::Failed(error)))
    });
    (flatten(Some(result)), None)
}

/// A plain `fn` on the blocking pool, which nothing can stop.
struct Running {
    task: JoinHandle<Result<Result<Value, CallError>, Panic>>,
    ended: bool,
}

impl Running {
    fn start(
        run: impl FnOnce() -> Result<Result<Value, CallError>, Panic> + Send + 'static,
    ) -> Self {
        Self { task: tokio::task::spawn_blocking(run), ended: false }
    }

    /// Waits until it has returned; what it returned no longer counts.
    async fn end(mut self) {
        let returned = (&mut self.task).await;
        self.ended = true;
        panic::drop_caught(returned);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended && !self.task.is_finished() {
            self.task.abort(); // which keeps it from starting, if it still waits for a thread
            tracing::warn!(
                "a plain `fn` can't be stopped: if it has started it runs to its end, and its result is lost"
            );
        }
    }
}

/// `None` if the time is over first.
async fn within<F: Future>(
    deadline: Option<Deadline>,
    future: impl FnOnce() -> F,
) -> Option<F::Output> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future()).await.ok(),
        None => Some(future().await),
    }
}

fn flatten(result: Option<Result<Result<Value, CallError>, Panic>>) -> Result<Value, RunError> {
    match result {
        Some(Ok(result)) => result.map_err(RunError::from),
        Some(Err(panic)) => Err(panic.into()),
        None => Err(RunError::TimedOut),
    }
}

impl From<CallError> for RunError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Rejected(error) => {
                error.downcast::<ParseError>().map_or_else(Self::Failed, Self::Payload)
            }
            CallError::Failed(error) => Self::Failed(error),
        }
    }
}

impl From<Panic> for RunError {
    fn from(Panic { message, location }: Panic) -> Self {
        Self::Panicked { message, location }
    }
}

/// What an error says of itself. It is the user's own, so that to look at it may panic.
pub(crate) struct Look {
    pub(crate) message: String,
    pub(crate) is_retriable: bool,
    pub(crate) delay: Option<Duration>,
}

impl Look {
    pub(crate) fn at(error: &RunError) -> Self {
        let look = || Self {
            message: error.to_string(),
            is_retriable: match error {
                RunError::Failed(error) => error.is_retriable(),
                RunError::TimedOut | RunError::Panicked { .. } => true,
                RunError::Payload(_) | RunError::RateLimited => false,
            },
            delay: match error {
                RunError::Failed(error) => error.retry_delay(),
                _ => None,
            },
        };
        catch(look).unwrap_or_else(|Panic { message, location }| Self {
            message: format!(
                "an error that panicked at {location} when it was looked at: {message}"
            ),
            is_retriable: true,
            delay: None,
        })
    }
}

/// Leaves a line in the log if the handler is dropped before it has ended.
struct Unfinished<'a> {
    span: &'a Span,
    ended: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.span.record("outcome", "dropped");
            self.span.in_scope(|| {
                tracing::warn!("handler was dropped with its dispatch before it ended");
            });
        }
    }
}

/// The run's outcome as a span field.
pub(crate) fn outcome(result: &Result<Value, RunError>) -> &'static str {
    match result {
        Ok(_) => "succeeded",
        Err(RunError::Failed(_)) => "failed",
        Err(RunError::Payload(_)) => "payload",
        Err(RunError::TimedOut) => "timed_out",
        Err(RunError::Panicked { .. }) => "panicked",
        Err(RunError::RateLimited) => "rate_limited",
    }
}
