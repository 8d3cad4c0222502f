//! A handler as a function of the SDK.

use std::{fmt::Debug, time::Instant};

use inngest::{
    client::Inngest,
    function::{FunctionOpts, Input, ServableFn, Trigger},
    result::Error,
    step_tool,
};
use serde::Serialize;
use serde_json::{Value, json};
use sync_wrapper::SyncFuture;
use tracing::{Instrument, field::Empty};

use super::error::{self, LostData};
use crate::{
    dispatcher::{Called, Dispatcher, RunError, outcome, shown},
    event::FailureEvent,
    panic::drop_caught,
    step::{Carried, Ended, Handover, Pass, StepFault},
};

/// One function of the SDK: a handler has one for each of its triggers, which the SDK knows only one of.
#[derive(Debug)]
pub(super) struct Function {
    /// The handler's place among the dispatcher's.
    pub(super) handler: usize,
    /// Without the app's prefix, which the SDK puts before it.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) event: &'static str,
    pub(super) expression: Option<String>,
}

impl Function {
    /// The function as the SDK serves it.
    pub(super) fn serve<T, E>(self, dispatcher: &Dispatcher, client: &Inngest) -> ServableFn<T, E>
    where
        T: Serialize + Debug + Send + 'static,
        E: From<Error> + 'static,
    {
        let Self { handler, id, name, event, expression } = self;
        let info = &dispatcher.functions()[handler];
        // The attribute allows 20.
        let retries = u8::try_from(info.retries).unwrap_or(u8::MAX);
        let options = FunctionOpts { id, name: Some(name), retries };
        let trigger = Trigger::EventTrigger { event: event.to_owned(), expression };
        let dispatcher = dispatcher.clone();
        client.create_function(options, trigger, move |input: Input<T>, tool| {
            let call = Call {
                dispatcher: dispatcher.clone(),
                handler,
                event: read(&input),
                run_id: input.ctx.run_id,
                attempt: u32::from(input.ctx.attempt),
                tool,
            };
            // The SDK wants it to be `Sync`, which a handler's future need not be.
            SyncFuture::new(async move { call.answer().await.map_err(E::from) })
        })
    }
}

/// The failure event, from what the SDK has made of it.
fn read<T: Serialize>(input: &Input<T>) -> Result<FailureEvent, LostData> {
    let event = &input.event;
    let data = serde_json::to_value(&event.data).map_err(LostData::unwritten::<T>)?;
    let mut event = json!({
        "id": event.id, "name": event.name, "ts": event.timestamp, "v": event.version, "data": data,
    });
    if let Some(event) = event.as_object_mut() {
        event.retain(|_, value| !value.is_null());
    }
    FailureEvent::try_from(event).map_err(LostData::unread::<T>)
}

/// One call of a handler.
struct Call {
    dispatcher: Dispatcher,
    handler: usize,
    event: Result<FailureEvent, LostData>,
    run_id: String,
    attempt: u32,
    tool: step_tool::Step,
}

impl Call {
    async fn answer(self) -> Result<Value, Error> {
        let started = Instant::now();
        let (handler, attempt) = (self.handler, self.attempt);
        let dispatcher = self.dispatcher.clone();
        let info = &dispatcher.functions()[handler];
        let run_id = self.run_id.clone();
        let span = tracing::error_span!(
            "call",
            handler_id = info.id,
            run_id = shown(&run_id),
            attempt,
            outcome = Empty,
            function_id = Empty,
            failed_run_id = Empty,
        );
        let (answer, outcome) = self.run().instrument(span.clone()).await;
        span.record("outcome", outcome);
        span.in_scope(|| {
            tracing::info!(
                handler_id = info.id,
                run_id = shown(&run_id),
                attempt,
                outcome,
                duration = ?started.elapsed(),
                "call answered",
            );
        });
        answer
    }

    async fn run(self) -> (Result<Value, Error>, &'static str) {
        let Self { dispatcher, handler, event, attempt, tool, .. } = self;
        let info = &dispatcher.functions()[handler];
        let event = match event {
            Ok(event) => event,
            Err(error) => return (Err(error.into_sdk()), "not_a_failure"),
        };
        let span = tracing::Span::current();
        span.record("function_id", shown(event.function_id()));
        span.record("failed_run_id", shown(event.run_id()));
        if tracing::enabled!(tracing::Level::WARN) && !dispatcher.takes(handler, &event) {
            tracing::warn!(
                selector = info.selector,
                function_id = shown(event.function_id()),
                "the handler's selector does not take this failure, but Inngest chose it, so it runs; sync the \
                 app if the selector has changed",
            );
        }
        let is_last = attempt >= info.retries;
        let pass = dispatcher.takes_steps(handler).then(|| {
            let carried = Carried::new(tool, attempt, is_last);
            Pass::carried(carried, dispatcher.api().cloned())
        });
        let called =
            dispatcher.call_within_limits(handler, event.clone(), attempt, pass.clone()).await;
        let Some(Called { result, steps }) = called else {
            tracing::warn!("handler did not run: its `rate_limit` is used up");
            dispatcher.end(handler, &event, Err(&RunError::RateLimited), 0, None).await;
            return (Ok(json!("did not run: its `rate_limit` is used up")), "rate_limited");
        };
        // What has become of a step goes first: a side effect is to be remembered.
        if let Some(Ended::Carried(Some(handover))) = steps {
            drop_caught(result);
            let outcome = handover.outcome();
            return (Err(hand_over(handover)), outcome);
        }
        let outcome = outcome(&result);
        let attempts = attempt + 1;
        match result {
            Ok(value) => {
                dispatcher.end(handler, &event, Ok(()), attempts, None).await;
                (Ok(value), outcome)
            }
            Err(error) => {
                let (answer, is_over) = error::failed(&error, is_last);
                if is_over {
                    let pass = pass.as_deref();
                    dispatcher.end(handler, &event, Err(&error), attempts, pass).await;
                }
                drop_caught(error);
                (Err(answer), outcome)
            }
        }
    }
}

/// Gives the SDK's tool what has become of steps.
fn hand_over(handover: Handover) -> Error {
    match &handover {
        Handover::Ran(_, _, Some(StepFault { step_id, error, .. })) => tracing::warn!(
            step = step_id,
            error = error.message,
            "step failed for good, which the handler is told",
        ),
        Handover::Failing(_, fault) => error::step_failed(fault),
        Handover::Ran(_, _, None) | Handover::Found(_) => {}
    }
    handover.into_error()
}
