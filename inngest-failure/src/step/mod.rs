//! Steps: parts of a handler, each of which completes once.

#[cfg(feature = "sdk")]
mod carried;
mod drive;
#[cfg(feature = "serve")]
mod engine;
mod event;
mod invoke;
mod local;
#[cfg(any(feature = "serve", feature = "sdk"))]
mod memo;
#[cfg(feature = "serve")]
mod memos;
mod op;
#[cfg(feature = "serve")]
mod operation;
mod pass;
mod place;
mod value;
mod wait;

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[cfg(feature = "sdk")]
pub(crate) use self::carried::{Carried, Handover, StepFault};
#[cfg(feature = "testing")]
pub(crate) use self::operation::hash;
pub(crate) use self::{
    drive::{Clock, Driven, drive},
    local::{Failing, Memory},
    pass::{Ended, Fault, Name, Pass},
};
#[cfg(feature = "serve")]
pub(crate) use self::{
    engine::{Asked, Remote},
    memos::Memos,
    operation::{Failed, Report},
};
pub use self::{
    event::Event,
    invoke::Invoke,
    value::{StepFailure, StepValue},
    wait::Wait,
};
use self::{
    op::{Op, Until},
    pass::{Go, Turn},
    place::At,
    value::read,
};
use crate::{
    __private::BoxFuture,
    error::{HandlerError, StepError},
    event::TriggerEvent,
    panic::{Caught, drop_caught},
};

/// The parts of a handler, each of which completes once.
///
/// Compensation is rarely one call: refund, then restock, then tell the customer. Each part may fail on its own, and
/// none may happen twice because the next one has failed. So let each be a step: once it has completed, its result is
/// remembered, and when the handler runs again the step gives the result without running again.
///
/// An argument of a handler, and not `Clone`: a step belongs to the one call of the one handler that was given it. Pass
/// `&step` to functions that it calls.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Failure, HandlerError, State, Step, on_failure};
///
/// # #[derive(Clone)]
/// # struct Shop;
/// # impl Shop {
/// #     async fn refund(&self, _: &str, _: &str) -> Result<String, std::io::Error> { Ok("re_1".into()) }
/// #     async fn restock(&self, _: &str) -> Result<(), std::io::Error> { Ok(()) }
/// # }
/// #[derive(serde::Deserialize)]
/// struct Order {
///     order_id: String,
/// }
///
/// #[on_failure(function = "checkout")]
/// async fn undo_checkout(
///     failure: Failure<Order>,
///     State(shop): State<Shop>,
///     step: Step,
/// ) -> Result<String, HandlerError> {
///     let order_id = &failure.event.data.order_id;
///     let key = failure.idempotency_key("refund");
///     let refund = step.run("refund", || shop.refund(order_id, &key)).await?;
///     step.run("restock", || shop.restock(order_id)).await?;
///     Ok(refund)
/// }
/// ```
///
/// # Where they are remembered
///
/// - At an `Endpoint` (feature `serve`), and in a server of the `inngest` crate (feature `sdk`), by Inngest: for the whole run, whatever becomes of the process. A call runs one new
///   step and ends there; the server calls again, with the result. **The handler does not come back from that step's
///   `.await`**: its future is dropped, and the next call starts it from its beginning.
/// - In process by the dispatch: for the attempts that follow in the same process.
///
/// So what stands between steps runs again and again. Keep side effects in steps, and let what decides which steps there
/// are, and in which order, depend only on the failure and on the results of steps: not on the clock, on random numbers
/// or on the order of a `HashMap`. Other futures may be awaited between steps.
///
/// # What a step guarantees
///
/// A step that has completed does not run again. It may have to run more than once until then, and what it did before it
/// failed, or before the process died, stays done: it runs **at least once**. Let it carry an
/// [idempotency key](crate::Failure::idempotency_key) where that counts.
///
/// # Ids
///
/// The id is what a step is remembered by. It need not be unique: a second step of one id gets `:1` after it, the third
/// `:2`, in the order in which they are first polled. So steps that are awaited together need ids of their own where that
/// order is left to chance, as in a `select!` without `biased`. Renaming a step while runs are in flight makes a new one of
/// it, and so does an id that is another one in each attempt.
///
/// # Failures
///
/// A step whose closure returns an error, panics, or is running when the handler's `timeout` is over, has failed. It is
/// tried again as the handler's `retries` and the error's own verdict say, each step with a count of its own; the other steps
/// are not. When its retries are used up the handler sees a [`StepError`], from which it may recover.
///
/// In process a handler goes on after a step that has been tried again, and its [`RunContext`](crate::RunContext) is still that of
/// the attempt's beginning: what follows in the same attempt does not see a count of its own there. At an endpoint each
/// step is a call, with a count that begins anew.
///
/// # Several at once
///
/// Steps that are awaited together (`join!`, `try_join!`, `FuturesUnordered`) run side by side: in process as futures of
/// one task, at an endpoint as calls of their own, where each runs whichever wins; in a server of the `inngest` crate (feature
/// `sdk`) one after the other. `select!` works, but a step that has started and
/// is dropped because another future won is not remembered and may run again.
///
/// - A step stays in its handler's own future: in a spawned task or inside another step it is an error. It is awaited, not
///   blocked on: `block_on` in a handler waits for ever.
/// - A step's closure does not wait for what another part of the handler does meanwhile, through a channel for example:
///   at an endpoint each runs in a call of its own.
/// - In process, a sleeping handler keeps its place under `concurrency`.
pub struct Step {
    pass: Arc<Pass>,
    scope: Option<Arc<Scope>>,
}

/// The part of a handler in whose name steps are made.
#[derive(Debug)]
pub(crate) struct Scope {
    /// What stands before the ids.
    pub(crate) prefix: String,
    /// The same as a person reads it.
    pub(crate) label: String,
    /// How often a step of it is tried again.
    pub(crate) retries: u32,
}

impl Step {
    pub(crate) fn new(pass: Arc<Pass>, scope: Option<Arc<Scope>>) -> Self {
        Self { pass, scope }
    }

    fn meet<'a>(&'a self, id: &'a str, op: Op) -> Result<Turn<'a>, StepError> {
        match &self.scope {
            None => self.pass.meet(id, &Name { key: id, label: id, retries: None }, op),
            Some(scope) => {
                let key = format!("{}{id}", scope.prefix);
                let label = format!("{}{id}", scope.label);
                let name = Name { key: &key, label: &label, retries: Some(scope.retries) };
                self.pass.meet(id, &name, op)
            }
        }
    }

    /// Runs a step of the framework's own, which is told how often it has failed.
    pub(crate) async fn run_own<F>(
        pass: &Arc<Pass>,
        name: &Name<'_>,
        attempt: u32,
        execute: impl FnOnce(u32) -> F,
    ) -> Result<String, StepError>
    where
        F: Future<Output = Result<String, Fault>> + Send,
    {
        let turn = pass.meet(name.label, name, Op::Run)?;
        let attempt = pass.failures(name.key).unwrap_or(attempt);
        turn.settle(execute(attempt)).await
    }

    /// Runs the closure and remembers what its future returns.
    ///
    /// The future may borrow from the handler. Its value is kept as JSON, in process as well, and read back as `T`, so it
    /// owns what it holds: a `String`, not a `&str`. Where nothing else names the type of the error, `Ok` has to:
    /// `Ok::<_, HandlerError>(..)`. Nothing happens before the future is polled.
    ///
    /// # Examples
    ///
    /// ```
    /// use inngest_failure::{HandlerError, Step, on_failure};
    ///
    /// #[on_failure(function = "checkout")]
    /// async fn undo_checkout(step: Step) -> Result<u64, HandlerError> {
    ///     let cents = step.run("refund", async || Ok::<u64, HandlerError>(1250)).await?;
    ///     restock(&step).await?;
    ///     Ok(cents)
    /// }
    ///
    /// /// Steps may be in functions that the handler calls.
    /// async fn restock(step: &Step) -> Result<(), HandlerError> {
    ///     step.run("restock", stock::give_back).await?;
    ///     Ok(())
    /// }
    /// # mod stock {
    /// #     pub async fn give_back() -> Result<(), std::io::Error> { Ok(()) }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StepError`] if the step has failed for good, if its value can't be written as JSON or is not read back as `T`, if
    /// the id is blank, or if the step is used in another step, in another task, or after its handler's call.
    ///
    /// # Panics
    ///
    /// A panic of the closure is a failure of the step.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the step has completed, nothing is remembered of it: what the closure did until then
    /// stays done, and it runs again if the handler does.
    // A boxed future has its bounds checked where it is made, so that a fault is one error and not three.
    pub fn run<'a, T, E, F, Fut>(&'a self, id: &'a str, f: F) -> BoxFuture<'a, Result<T, StepError>>
    where
        T: StepValue + 'a,
        E: StepFailure + 'a,
        F: FnOnce() -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
    {
        Box::pin(async move {
            let turn = self.meet(id, Op::Run)?;
            let json = turn.settle(faults(async move {
                let value = f().await.map_err(StepFailure::into_handler_error)?;
                let json = value.to_json();
                drop_caught(value);
                json.map_err(|error| {
                    HandlerError::non_retriable(format!(
                        "what step `{id}` returned can't be written as JSON: {error}"
                    ))
                })
            }));
            T::from_json(id, &json.await?)
        })
    }

    /// Sleeps; where Inngest calls the handler, for up to a year without a process that waits.
    ///
    /// # Errors
    ///
    /// [`StepError`] if the sleep is longer than 292 years, or as [`run`](Self::run) for a step that is misused.
    ///
    /// # Panics
    ///
    /// In process, if the runtime's timer is not enabled.
    ///
    /// # Cancel safety
    ///
    /// A sleep that is dropped goes on when the handler comes to it in another attempt, from where it first began.
    pub async fn sleep(&self, id: &str, duration: Duration) -> Result<(), StepError> {
        check_duration(id, "sleep", duration)?;
        self.sleep_for(id, Until::After(duration)).await
    }

    /// Sleeps until a time; not at all if it is over.
    ///
    /// # Errors
    ///
    /// [`StepError`] if the time is beyond the year 9999, or as [`run`](Self::run) for a step that is misused.
    ///
    /// # Panics
    ///
    /// In process, if the runtime's timer is not enabled.
    ///
    /// # Cancel safety
    ///
    /// A sleep that is dropped goes on when the handler comes to it in another attempt.
    pub async fn sleep_until(&self, id: &str, time: SystemTime) -> Result<(), StepError> {
        if time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since > YEAR_10_000) {
            let message = format!("step `{id}`: a time beyond the year 9999 is not to be had");
            return Err(StepError::misuse(id, message));
        }
        self.sleep_for(id, Until::At(time)).await
    }

    async fn sleep_for(&self, id: &str, until: Until) -> Result<(), StepError> {
        let turn = self.meet(id, Op::Sleep { until })?;
        turn.settle(nothing()).await.map(drop)
    }

    /// Sends an event, and returns the id that it was given.
    ///
    /// # Errors
    ///
    /// As [`send_events`](Self::send_events).
    ///
    /// # Cancel safety
    ///
    /// As [`send_events`](Self::send_events).
    pub async fn send_event(&self, id: &str, event: Event) -> Result<String, StepError> {
        let ids = self.send_events(id, vec![event]).await?;
        ids.into_iter().next().ok_or_else(|| {
            StepError::misuse(id, format!("step `{id}`: Inngest gave the event no id"))
        })
    }

    /// Sends events, all or none, and returns the ids that they were given.
    ///
    /// At an endpoint they go to where the endpoint's `Api` says, elsewhere to where
    /// the dispatcher's says, with its event key.
    ///
    /// # Examples
    ///
    /// ```
    /// use inngest_failure::{Event, Failure, HandlerError, Step, on_failure};
    /// use serde_json::json;
    ///
    /// #[on_failure(function = "checkout")]
    /// async fn tell(failure: Failure, step: Step) -> Result<(), HandlerError> {
    ///     let event = Event::new("shop/checkout.undone", json!({ "run_id": failure.run_id }));
    ///     step.send_event("tell", event).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StepError`] if there is no API to send them to, or in cloud mode no event key, if an event has no name or can't be written as
    /// JSON, if Inngest has not taken them in as many attempts as the handler has, or as [`run`](Self::run) for a step that is misused.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the step has completed, the events may have been sent or not, and are sent again
    /// if the handler comes to the step again: give them an [id](Event::id) so that they count once.
    pub async fn send_events(
        &self,
        id: &str,
        events: Vec<Event>,
    ) -> Result<Vec<String>, StepError> {
        for event in &events {
            check_name(id, "an event", event.name())?;
        }
        let turn = self.meet(id, Op::SendEvent)?;
        let json = turn.settle(faults(self.post(id, &events))).await?;
        let Sent { ids } = read(id, &json)?;
        Ok(ids)
    }

    #[cfg(feature = "api")]
    async fn post(&self, id: &str, events: &[Event]) -> Result<String, HandlerError> {
        let Some(api) = &self.pass.api else {
            return Err(HandlerError::non_retriable(format!(
                "step `{id}` has no API to send events to; give the dispatcher's builder an `.api(..)`"
            )));
        };
        let ids = api.send_events(events).await.map_err(|error| {
            // All of it is what a person needs, and only the outermost message is a step's.
            let chain = error.chain();
            match HandlerError::from(error).is_retriable() {
                true => HandlerError::from(chain),
                false => HandlerError::non_retriable(chain),
            }
        })?;
        Ok(serde_json::to_string(&Sent { ids })?)
    }

    #[cfg(not(feature = "api"))]
    async fn post(&self, id: &str, _: &[Event]) -> Result<String, HandlerError> {
        Err(HandlerError::non_retriable(format!(
            "step `{id}` has no API to send events to; turn on the feature `api` of `inngest-failure`, and give the \
             dispatcher's builder an `.api(..)`"
        )))
    }

    /// Calls an Inngest function, of any app and language, and waits for what it returns, which is `()` if it is of no
    /// interest. Not in process.
    ///
    /// # Examples
    ///
    /// ```
    /// use inngest_failure::{Failure, HandlerError, Invoke, Step, on_failure};
    /// use serde_json::json;
    ///
    /// #[on_failure(function = "checkout")]
    /// async fn undo_checkout(failure: Failure, step: Step) -> Result<(), HandlerError> {
    ///     let refund = Invoke::new("payments-refund").data(json!({ "run_id": failure.run_id }));
    ///     let _cents: u64 = step.invoke("refund", refund).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StepError`] if the function has failed, with its error, or has not ended in time; if what it returned does not fit
    /// `T`; in process; if the function has no name, its data can't be written as JSON or its time-out is longer than 292
    /// years; or as [`run`](Self::run) for a step that is misused.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the function may run or not, and the handler does not learn what it returned.
    pub fn invoke<'a, T>(
        &'a self,
        id: &'a str,
        invoke: Invoke,
    ) -> BoxFuture<'a, Result<T, StepError>>
    where
        T: DeserializeOwned + 'a,
    {
        Box::pin(async move {
            check_name(id, "a function", &invoke.function_id)?;
            check_duration(id, "time-out", invoke.timeout.unwrap_or_default())?;
            if let Err(error) = &invoke.data {
                let message =
                    format!("step `{id}`: the function's data can't be written as JSON: {error}");
                return Err(StepError::misuse(id, message));
            }
            let turn = self.meet(id, Op::Invoke(invoke))?;
            let json = turn.settle(nothing()).await?;
            read(id, &json)
        })
    }

    /// Waits for an event, for as long as its [`Wait`] says. Not in process.
    ///
    /// `None` if the time was over first.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use inngest_failure::{HandlerError, Step, Wait, on_failure};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Approval { by: String }
    ///
    /// #[on_failure(function = "checkout")]
    /// async fn undo_checkout(step: Step) -> Result<(), HandlerError> {
    ///     let approved = Wait::new("shop/refund.approved", Duration::from_secs(86_400))
    ///         .matching("async.data.order_id == event.data.event.data.order_id");
    ///     match step.wait_for_event::<Approval>("approval", approved).await? {
    ///         Some(approval) => println!("approved by {}", approval.data.by),
    ///         None => println!("nobody has approved it in a day"),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StepError`] if the event's data does not fit `T`; in process; if the event has no name or the wait is longer than 292
    /// years; or as [`run`](Self::run) for a step that is misused.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, an event that comes later is not seen.
    pub fn wait_for_event<'a, T>(
        &'a self,
        id: &'a str,
        wait: Wait,
    ) -> BoxFuture<'a, Result<Option<TriggerEvent<T>>, StepError>>
    where
        T: DeserializeOwned + 'a,
    {
        Box::pin(async move {
            check_name(id, "an event", &wait.event)?;
            check_duration(id, "wait", wait.timeout)?;
            let turn = self.meet(id, Op::WaitForEvent(wait))?;
            let json = turn.settle(nothing()).await?;
            if json == "null" {
                return Ok(None);
            }
            let event = TriggerEvent::from_json(&json).map_err(|error| {
                StepError::misuse(id, format!("the event that step `{id}` has waited for: {error}"))
            })?;
            Ok(Some(event))
        })
    }
}

/// What Go's durations hold.
const MAX_DURATION: Duration = Duration::from_nanos(i64::MAX as u64);

fn check_duration(id: &str, what: &str, duration: Duration) -> Result<(), StepError> {
    if duration > MAX_DURATION {
        let message = format!("step `{id}`: a {what} of more than 292 years is not to be had");
        return Err(StepError::misuse(id, message));
    }
    Ok(())
}

fn check_name(id: &str, what: &str, name: &str) -> Result<(), StepError> {
    if name.trim().is_empty() {
        let message = format!("step `{id}` is for {what} without a name; give it one");
        return Err(StepError::misuse(id, message));
    }
    Ok(())
}

/// From the epoch.
const YEAR_10_000: Duration = Duration::from_secs(253_402_300_799);

/// What is remembered of sent events.
#[derive(Serialize, Deserialize)]
struct Sent {
    ids: Vec<String>,
}

/// What runs of a step that is all the server's.
fn nothing() -> impl Future<Output = Result<String, Fault>> {
    std::future::ready(Ok("null".to_owned()))
}

/// What the error of a step means.
async fn faults(
    execute: impl Future<Output = Result<String, HandlerError>> + Send,
) -> Result<String, Fault> {
    execute.await.map_err(|error| {
        let fault = Fault::of(&error);
        drop_caught(error);
        fault
    })
}

impl Turn<'_> {
    /// Goes through the step: what it ended with, once that is known.
    async fn settle(
        self,
        execute: impl Future<Output = Result<String, Fault>> + Send,
    ) -> Result<String, StepError> {
        let mut execute = Some(execute);
        loop {
            match self.next().await? {
                Go::End(outcome) => {
                    return outcome.map_err(|error| StepError::new(self.id, *error));
                }
                Go::Sleep(deadline) => {
                    tokio::time::sleep_until(deadline).await;
                    self.finish(Ok("null".to_owned()));
                }
                Go::Run => {
                    // A step goes ahead once.
                    let Some(execute) = execute.take() else { continue };
                    let result = self.execute(execute).await;
                    self.finish(result);
                }
            }
        }
    }

    async fn execute(
        &self,
        execute: impl Future<Output = Result<String, Fault>> + Send,
    ) -> Result<String, Fault> {
        #[cfg(feature = "testing")]
        if let Some(probe) = &self.pass.probe
            && let Some(error) = probe.starts(&self.shown())
        {
            return Err(Fault::retriable(error));
        }
        let mut future = At { place: self.place(), future: Caught::new(Box::pin(execute)) };
        let result = poll_fn(|cx| match self.polled(cx.waker()) {
            true => Pin::new(&mut future).poll(cx),
            false => Poll::Pending,
        });
        let result = match result.await {
            Ok(result) => result,
            Err(panic) => Err(Fault::panicked(panic)),
        };
        #[cfg(feature = "testing")]
        if let Some(probe) = &self.pass.probe {
            probe.ends(&self.shown(), result.as_ref().err().map(|failure| &failure.error));
        }
        result
    }
}

/// Shows nothing: there is nothing to see.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").finish_non_exhaustive()
    }
}
