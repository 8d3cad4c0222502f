//! Undoing one step of a failed run.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use serde_json::{Value, value::RawValue};

use super::Tally;
use crate::{
    dispatcher::{
        RunError,
        once::{call_once, flatten},
        outcome::{Look, outcome},
    },
    error::{HandlerError, StepError},
    event::FailureError,
    extract::{Context, HandlerContext},
    panic::{Caught, Panic, drop_caught},
    registry::{Call, CallError},
    selector::Selector,
    step::{Clock, Fault, Name, Pass, Scope, Step},
    trace::{Planned, TraceError, Undone, label},
};

/// A handler that undoes one step.
#[derive(Debug)]
pub(in crate::dispatcher) struct Undo {
    pub(in crate::dispatcher) step: &'static str,
    pub(in crate::dispatcher) selector: Selector,
    pub(in crate::dispatcher) context: Arc<HandlerContext>,
    pub(in crate::dispatcher) call: Call,
    pub(in crate::dispatcher) takes_steps: bool,
    pub(in crate::dispatcher) retries: u32,
    pub(in crate::dispatcher) timeout: Option<Duration>,
}

impl Undo {
    /// Undoes one use of its step. That it is done, or has failed for good, is remembered as a step.
    pub(super) async fn undo(
        &self,
        cx: &Context,
        pass: &Arc<Pass>,
        planned: &Planned,
        tally: Option<&Tally<'_>>,
    ) -> Result<Value, FailureError> {
        let label = label(self.step, planned.index);
        // Its own steps have ids of their own after this one, which none can have: blank ids are refused.
        let key = undo_key(planned);
        // Its own steps come before the one that remembers what has become of it.
        let called = match self.takes_steps && !pass.remembers(&key) {
            false => None,
            true => {
                let label = format!("{label}/");
                let scope = Scope { prefix: key.clone(), label, retries: self.retries };
                let attempt = pass.failures_under(&key).unwrap_or(cx.attempt());
                Some(self.call(cx, planned, attempt, Some((pass, scope)), tally).await)
            }
        };
        let name = Name { key: &key, label: &label, retries: Some(self.retries) };
        let json = Step::run_own(pass, &name, cx.attempt(), async |attempt| {
            let result = match called {
                Some(result) => result,
                None => self.call(cx, planned, attempt, None, tally).await,
            };
            match result {
                Ok(value) => Ok(value.to_string()),
                Err(error) => {
                    let Look { is_retriable, delay, .. } = Look::at(&error);
                    let fault = Fault { error: error.describe(), is_retriable, delay };
                    if let Some(tally) = tally {
                        tally.failed(&self.context.id, error);
                    } else {
                        drop_caught(error);
                    }
                    Err(fault)
                }
            }
        });
        let result = json.await;
        if let Some(tally) = tally {
            tally.ended(&self.context.id, result.is_err());
        }
        match result {
            Ok(json) => Ok(serde_json::from_str(&json).unwrap_or_default()),
            Err(error) => Err(of_step(error)),
        }
    }

    /// Calls the handler once.
    async fn call(
        &self,
        cx: &Context,
        planned: &Planned,
        attempt: u32,
        steps: Option<(&Arc<Pass>, Scope)>,
        tally: Option<&Tally<'_>>,
    ) -> Result<Value, RunError> {
        let _attempt = tally.map(|tally| tally.attempt(&self.context.id));
        let output = match self.output(cx, planned).await {
            Ok(output) => output,
            Err(error) => return Err(RunError::Failed(error)),
        };
        let undone = Undone {
            step: self.step,
            index: planned.index,
            completed_at: planned.completed_at(),
            output,
        };
        let mut cx = cx.for_undo(Arc::clone(&self.context), attempt, undone);
        let result = match (steps, self.call) {
            (Some((pass, scope)), Call::Async(call)) => {
                cx.set_scoped_pass(Arc::clone(pass), Arc::new(scope));
                let handler = Caught::new(call(&cx));
                let clock = Clock::new(self.timeout);
                Timed { pass, handler, clock }.await
            }
            _ => call_once(self.call, &cx, self.timeout).await,
        };
        tracing::debug!(
            handler_id = self.context.id,
            step = planned.step,
            index = planned.index,
            attempt,
            outcome = outcome(&result),
            "undo was called",
        );
        result
    }

    /// What the step had returned: from the plan, or from the trace if that was too large for the plan.
    async fn output(&self, cx: &Context, planned: &Planned) -> Result<Box<RawValue>, HandlerError> {
        if let Some(output) = &planned.output {
            return Ok(RawValue::from_string(output.clone())?);
        }
        let trace = cx.trace().await.map_err(TraceError::into_handler_error)?;
        let step = trace.step(&planned.step_id).ok_or_else(|| {
            HandlerError::from(format!("step `{}` is not in the trace any more", planned.step))
        })?;
        Ok(step.raw_output().to_owned())
    }
}

/// A handler with steps whose time is bounded: what it sleeps in a step does not count.
struct Timed<'a, F> {
    pass: &'a Arc<Pass>,
    handler: F,
    clock: Clock,
}

impl<F> Future for Timed<'_, F>
where
    F: Future<Output = Result<Result<Value, CallError>, Panic>> + Unpin,
{
    type Output = Result<Value, RunError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(result) = Pin::new(&mut self.handler).poll(cx) {
            return Poll::Ready(flatten(result));
        }
        let is_asleep = self.pass.is_asleep();
        if !self.clock.is_over(is_asleep, cx) {
            return Poll::Pending;
        }
        #[cfg(feature = "serve")]
        if self.pass.target_is_missing().is_some() {
            self.pass.give_target_up();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.pass.time_out() {
            return Poll::Ready(Err(RunError::TimedOut));
        }
        // The pass has its end, which whoever polls it sees next.
        self.pass.call_anew();
        Poll::Pending
    }
}

/// The id of the step that remembers what has become of an undo, which its own steps' ids begin with.
pub(super) fn undo_key(planned: &Planned) -> String {
    format!("undo/{}/", planned.step_id)
}

/// What a step failed with.
fn of_step(error: StepError) -> FailureError {
    HandlerError::from(error).describe()
}
