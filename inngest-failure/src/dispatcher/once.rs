//! Calling a handler once, a plain `fn` on the blocking pool.

use std::time::Duration;

use serde_json::Value;
use tokio::{sync::OwnedSemaphorePermit, task::JoinHandle, time::Instant as Deadline};
use tracing::Span;

use super::RunError;
use crate::{
    __private::BoxFuture,
    error::{HandlerError, ParseError},
    extract::Context,
    panic::{self, Caught, Panic, catch},
    registry::{BlockingCall, Call, CallError},
};

/// Calls a handler that takes no steps, and waits for a plain `fn` whose time is over.
pub(super) async fn call_once(
    call: Call,
    cx: &Context,
    timeout: Option<Duration>,
) -> Result<Value, RunError> {
    let deadline = timeout.and_then(|timeout| Deadline::now().checked_add(timeout));
    match call {
        Call::Async(call) => match within(deadline, || Caught::new(call(cx))).await {
            Some(result) => flatten(result),
            None => Err(RunError::TimedOut),
        },
        Call::Blocking(call) => {
            let (result, still_running) = blocking(call, cx, deadline, None).await;
            if let Some(running) = still_running {
                running.end().await;
            }
            result
        }
    }
}

/// Runs a plain `fn` on the blocking pool.
pub(super) async fn blocking(
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
    (flatten(result), None)
}

/// A plain `fn` on the blocking pool, which nothing can stop.
pub(super) struct Running {
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
    pub(super) async fn end(mut self) {
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
pub(super) async fn within<F: Future>(
    deadline: Option<Deadline>,
    future: impl FnOnce() -> F,
) -> Option<F::Output> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future()).await.ok(),
        None => Some(future().await),
    }
}

pub(super) fn flatten(result: Result<Result<Value, CallError>, Panic>) -> Result<Value, RunError> {
    match result {
        Ok(result) => result.map_err(RunError::from),
        Err(panic) => Err(panic.into()),
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
