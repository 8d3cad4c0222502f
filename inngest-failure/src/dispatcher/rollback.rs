//! The rollback of a function: each step that its failed run had completed is undone, the last one first.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json, value::RawValue};

use super::{
    HandlerRun, RunError,
    run::{Look, call_once, flatten, outcome},
    shown,
};
use crate::{
    __private::BoxFuture,
    dead_letter::{CompletedStep, DeadLetter, Sinks},
    error::{HandlerError, StepError},
    event::FailureError,
    extract::{Context, HandlerContext},
    panic::{Caught, Panic, drop_caught},
    registry::{Call, CallError},
    selector::{Selector, Subject},
    step::{Clock, Fault, Name, Pass, Scope, Step},
    trace::{Plan, Planned, TraceError, Undone, hash, label},
};

/// What becomes of the other undos when one has failed for good.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Dispatcher, Rollback, StepOutput, handlers, on_failure};
///
/// #[on_failure(function = "checkout", step = "reserve-stock", app = "shop")]
/// async fn release(reserved: StepOutput<String>) {
///     println!("released {}", *reserved);
/// }
///
/// # use inngest_failure::{BoxFuture, RunTrace, TraceError, TraceSource};
/// # struct Source;
/// # impl TraceSource for Source {
/// #     fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
/// #         Box::pin(async move { Err(TraceError::UnknownRun { run_id: run_id.to_owned() }) })
/// #     }
/// # }
/// let dispatcher = Dispatcher::builder()
///     .without_inventory()
///     .register(handlers![release])
///     .trace_source(Source)
///     .rollback(Rollback::StopAtFirst)
///     .build()?;
/// # Ok::<(), inngest_failure::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rollback {
    /// They are undone all the same, and the rollback has failed.
    #[default]
    Continue,
    /// They are left, and the rollback has failed.
    StopAtFirst,
}

/// All handlers that undo steps of one function.
#[derive(Debug)]
pub(super) struct Undos {
    undos: Vec<Undo>,
    policy: Rollback,
    letters: Arc<Sinks>,
    /// The steps of which it is not known that there are any.
    unseen: Mutex<Unseen>,
}

/// A handler that undoes one step.
#[derive(Debug)]
pub(super) struct Undo {
    pub(super) step: &'static str,
    pub(super) selector: Selector,
    pub(super) context: Arc<HandlerContext>,
    pub(super) call: Call,
    pub(super) takes_steps: bool,
    pub(super) retries: u32,
    pub(super) timeout: Option<Duration>,
}

/// The steps that no trace has shown yet.
#[derive(Debug)]
struct Unseen {
    /// Each with the number of traces that lacked it.
    steps: Vec<(&'static str, u32)>,
    is_logged: bool,
}

/// How many traces may lack a step before that is said, if nothing in them has a similar name: a run that fails early
/// lacks the later ones.
const MANY_TRACES: u32 = 20;

/// What has become of one undo.
struct Done<'a> {
    /// None if there is no handler for the step any more.
    undo: Option<&'a Undo>,
    planned: &'a Planned,
    result: Result<Value, FailureError>,
}

impl Undos {
    pub(super) fn new(undos: Vec<Undo>, policy: Rollback, letters: Arc<Sinks>) -> Self {
        let steps = undos.iter().map(|undo| (undo.step, 0)).collect();
        let unseen = Mutex::new(Unseen { steps, is_logged: false });
        Self { undos, policy, letters, unseen }
    }

    /// Undoes what the failed run had completed, in steps: the plan is the first one.
    pub(super) fn run<'a>(
        &'a self,
        cx: &'a Context,
        tally: Option<&'a Tally<'a>>,
    ) -> BoxFuture<'a, Result<Value, CallError>> {
        Box::pin(async move {
            let Some(pass) = cx.pass() else {
                return Err(failed("the rollback was called without steps"));
            };
            let undos = self.of(cx, tally);
            if undos.is_empty() && !pass.remembers("plan") {
                // The server chose it by the function alone.
                return Ok(json!({ "undone": [], "note": "no undo is for an error of this name" }));
            }
            let plan = match self.plan(cx, pass, &undos).await {
                Ok(plan) => plan,
                Err(error) => {
                    // As much as a handler that fails outside of its steps: it is not tried again.
                    self.bury_all(cx, &undos, &error).await;
                    return Err(error);
                }
            };
            let mut done: Vec<Done<'_>> = Vec::with_capacity(plan.undo.len());
            let mut left = plan.undo.as_slice();
            while let Some((planned, rest)) = left.split_first() {
                left = rest;
                let undo = undos.iter().copied().find(|undo| undo.step == planned.step);
                let result = match undo {
                    Some(undo) => undo.undo(cx, pass, planned, tally).await,
                    None => Err(FailureError::own(
                        "NoHandler",
                        "there is no handler for it any more; put it back, and run the rollback again",
                    )),
                };
                let has_failed = result.is_err();
                done.push(Done { undo, planned, result });
                if has_failed && self.policy == Rollback::StopAtFirst {
                    break;
                }
            }
            if let Some(tally) = tally {
                tally.note(&undos, &done, left);
            }
            self.bury(cx, pass, &undos, &plan, &done, left, tally).await;
            report(cx, &plan, &done, left)
        })
    }

    /// Those that take this failure, or that are asked for.
    fn of(&self, cx: &Context, tally: Option<&Tally<'_>>) -> Vec<&Undo> {
        let subject = Subject::from(cx.event());
        let is_meant = |undo: &&Undo| match tally.and_then(|tally| tally.only.as_ref()) {
            Some(only) => only.contains(&undo.context.id.as_str()),
            None => undo.selector.matches(subject),
        };
        self.undos.iter().filter(is_meant).collect()
    }

    /// Writes the dead letters of undos that have failed for good, or that were left for another's failure.
    #[expect(clippy::too_many_arguments, reason = "all that is known at the end of a rollback")]
    async fn bury(
        &self,
        cx: &Context,
        pass: &Arc<Pass>,
        undos: &[&Undo],
        plan: &Plan,
        done: &[Done<'_>],
        left: &[Planned],
        tally: Option<&Tally<'_>>,
    ) {
        if self.letters.is_empty() {
            return;
        }
        let completed = pass.completed();
        // In the order in which they were to be undone, so that they can be tried again in it.
        let mut undos = undos.to_vec();
        undos.sort_by_key(|undo| {
            let is_failed =
                |done: &Done<'_>| done.planned.step == undo.step && done.result.is_err();
            let is_left = |planned: &Planned| planned.step == undo.step;
            let failed = done.iter().position(is_failed);
            failed.or_else(|| left.iter().position(is_left).map(|place| done.len() + place))
        });
        for undo in undos {
            let failed = done.iter().find_map(|done| match &done.result {
                Err(error) if done.planned.step == undo.step => Some(error.clone()),
                _ => None,
            });
            let is_left = left.iter().any(|planned| planned.step == undo.step);
            let Some(error) = failed.or_else(|| is_left.then(|| FailureError::own("Left", LEFT)))
            else {
                continue;
            };
            let plan = plan.only(undo.step);
            let is_own = |step: &CompletedStep| match step.name.as_deref() {
                // Nobody else's output has to travel with it.
                Some(name) => plan.undo.iter().any(|own| name.starts_with(&undo_key(own))),
                None => true,
            };
            let steps = std::iter::once(plan.as_step())
                .flatten()
                .chain(
                    completed
                        .iter()
                        .filter(|step| step.step_id != hash("plan", 0) && is_own(step))
                        .cloned(),
                )
                .collect();
            let attempts = tally.map(|tally| tally.attempts(&undo.context.id));
            self.put(cx, undo, error, attempts, steps).await;
        }
    }

    /// Writes the dead letters of a rollback that did not get as far as to undo anything.
    async fn bury_all(&self, cx: &Context, undos: &[&Undo], error: &CallError) {
        if self.letters.is_empty() {
            return;
        }
        let (CallError::Failed(error) | CallError::Rejected(error)) = error;
        for undo in undos {
            self.put(cx, undo, error.describe(), Some(0), Vec::new()).await;
        }
    }

    async fn put(
        &self,
        cx: &Context,
        undo: &Undo,
        error: FailureError,
        attempts: Option<u32>,
        steps: Vec<CompletedStep>,
    ) {
        let letter = DeadLetter {
            handler_id: undo.context.id.clone(),
            event: cx.event().clone(),
            error,
            attempts,
            failed_at: SystemTime::now(),
            steps,
        };
        self.letters.put(&letter).await;
    }

    async fn plan(
        &self,
        cx: &Context,
        pass: &Arc<Pass>,
        undos: &[&Undo],
    ) -> Result<Plan, CallError> {
        let name = Name { key: "plan", label: "plan", retries: None };
        let plan = Step::run_own(pass, &name, cx.attempt(), async |_| {
            let trace = cx.trace().await.map_err(TraceError::into_handler_error);
            let trace = trace.map_err(|error| Fault::of(&error))?;
            let steps: Vec<&str> = undos.iter().map(|undo| undo.step).collect();
            let plan = Plan::of(&trace, &steps);
            self.look_for_unseen(&steps, &plan);
            if !plan.in_flight.is_empty() {
                tracing::warn!(
                    function_id = shown(cx.event().function_id()),
                    failed_run_id = shown(cx.event().run_id()),
                    steps = ?plan.in_flight,
                    "steps were in flight when the run failed, and may still complete: they are not undone",
                );
            }
            serde_json::to_string(&plan).map_err(|error| Fault::of(&error.into()))
        });
        let plan = plan.await.map_err(|error| CallError::Failed(error.into()))?;
        serde_json::from_str(&plan).map_err(|error| {
            failed(format!("the plan of the rollback can't be read back: {error}"))
        })
    }

    /// Says once if a step that has an undo seems not to exist.
    fn look_for_unseen(&self, looked_for: &[&str], plan: &Plan) {
        // Whoever panicked while holding it left it as good as before.
        let mut unseen = self.unseen.lock().unwrap_or_else(PoisonError::into_inner);
        unseen
            .steps
            .retain(|(step, _)| !looked_for.contains(step) || plan.unknown.contains_key(*step));
        for (step, traces) in &mut unseen.steps {
            *traces += u32::from(looked_for.contains(step));
        }
        let near = |(step, _): &(&'static str, u32)| {
            let near = plan.unknown.get(*step)?.as_deref()?;
            Some((*step, near))
        };
        let found = unseen.steps.iter().find_map(near);
        let missed = unseen.steps.iter().find(|(_, traces)| *traces >= MANY_TRACES);
        let message = match (found, missed) {
            (Some((step, near)), _) => format!(
                "no step `{step}` in what the function had done, but `{near}`; is that what `step = {step:?}` means?"
            ),
            (None, Some((step, _))) => format!(
                "no step `{step}` in {MANY_TRACES} failed runs of the function, nor anything like it; see that \
                 `step = {step:?}` is the id of one"
            ),
            _ => return,
        };
        if !std::mem::replace(&mut unseen.is_logged, true) {
            drop(unseen);
            tracing::warn!("{message}");
        }
    }

    /// A run for each undo that takes the failure, from that of the rollback as a whole.
    pub(super) fn runs(
        &self,
        cx: &Context,
        tally: Tally<'_>,
        result: Result<Value, RunError>,
        elapsed: Duration,
    ) -> Vec<HandlerRun> {
        let undos = self.of(cx, Some(&tally));
        let mut noted = tally.noted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let whole = result.err();
        let described = whole.as_ref().map(RunError::describe);
        let runs = undos.into_iter().map(|undo| {
            let id = &undo.context.id;
            let at = noted.iter().position(|noted| noted.id == *id);
            let (attempts, own, result) = match at.map(|at| noted.swap_remove(at)) {
                Some(Noted { attempts, elapsed, result: Some(result), .. }) => {
                    (attempts, elapsed, result)
                }
                other => {
                    // The rollback did not get as far as that.
                    let error = described
                        .clone()
                        .map(|error| RunError::Failed(HandlerError::non_retriable(error)));
                    let attempts = other.map_or(0, |noted| noted.attempts);
                    (attempts, elapsed, error.map_or(Ok(Value::Null), Err))
                }
            };
            HandlerRun { handler_id: id.clone(), result, attempts, elapsed: own }
        });
        let runs = runs.collect();
        drop_caught(whole);
        runs
    }
}

impl Undo {
    /// Undoes one use of its step. That it is done, or has failed for good, is remembered as a step.
    async fn undo(
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
fn undo_key(planned: &Planned) -> String {
    format!("undo/{}/", planned.step_id)
}

/// Why a step was left as it is.
const LEFT: &str = "the step is left as it is, for another one could not be undone and the rollback stops at the first";

/// What is reported of each undo in process.
#[derive(Debug, Default)]
pub(super) struct Tally<'a> {
    /// The ids of the undos that are to run, if not all that take the failure.
    only: Option<Vec<&'a str>>,
    noted: Mutex<Vec<Noted>>,
}

#[derive(Debug)]
struct Noted {
    id: String,
    attempts: u32,
    begun: Instant,
    elapsed: Duration,
    /// What its last attempt failed with.
    error: Option<RunError>,
    /// What it failed with for good, first.
    last_error: Option<RunError>,
    result: Option<Result<Value, RunError>>,
}

impl<'o> Tally<'o> {
    pub(super) fn new(only: Option<Vec<&'o str>>) -> Self {
        Self { only, noted: Mutex::default() }
    }

    /// How many attempts an undo has had.
    fn attempts(&self, id: &str) -> u32 {
        self.with(id, |noted| noted.attempts)
    }

    fn with<T>(&self, id: &str, note: impl FnOnce(&mut Noted) -> T) -> T {
        let mut all = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|noted| noted.id == id).unwrap_or_else(|| {
            all.push(Noted {
                id: id.to_owned(),
                attempts: 0,
                begun: Instant::now(),
                elapsed: Duration::ZERO,
                error: None,
                last_error: None,
                result: None,
            });
            all.len() - 1
        });
        note(&mut all[at])
    }

    /// Counts an attempt, whatever becomes of it; it lasts as long as what is given back.
    fn attempt<'a>(&'a self, id: &'a str) -> Attempt<'a, 'o> {
        self.with(id, |noted| noted.attempts += 1);
        Attempt { tally: self, id }
    }

    /// One use of the step is done.
    fn ended(&self, id: &str, has_failed: bool) {
        let dropped = self.with(id, |noted| {
            let error = noted.error.take();
            match has_failed && noted.last_error.is_none() {
                true => std::mem::replace(&mut noted.last_error, error),
                false => error,
            }
        });
        drop_caught(dropped);
    }

    fn failed(&self, id: &str, error: RunError) {
        let before = self.with(id, |noted| noted.error.replace(error));
        drop_caught(before);
    }

    /// What has become of all: of a step in a loop, of all its uses.
    fn note(&self, undos: &[&Undo], done: &[Done<'_>], left: &[Planned]) {
        for undo in undos {
            let own: Vec<&Done<'_>> = done
                .iter()
                .filter(|done| done.undo.is_some_and(|done| std::ptr::eq(done, *undo)))
                .collect();
            let error = own.iter().find_map(|done| done.result.as_ref().err());
            let values = || own.iter().filter_map(|done| done.result.as_ref().ok()).cloned();
            let is_left = left.iter().any(|planned| planned.step == undo.step);
            self.with(&undo.context.id, |noted| {
                noted.result = Some(match (error, own.as_slice()) {
                    (None, _) if is_left => {
                        Err(RunError::Failed(HandlerError::non_retriable(LEFT)))
                    }
                    (Some(error), _) => Err(noted.last_error.take().unwrap_or_else(|| {
                        RunError::Failed(HandlerError::non_retriable(error.clone()))
                    })),
                    (None, [_]) => Ok(values().next().unwrap_or_default()),
                    (None, []) => Ok(Value::Null),
                    (None, _) => Ok(values().collect()),
                });
            });
        }
    }
}

/// An attempt that is being made.
struct Attempt<'a, 'o> {
    tally: &'a Tally<'o>,
    id: &'a str,
}

impl Drop for Attempt<'_, '_> {
    fn drop(&mut self) {
        self.tally.with(self.id, |noted| noted.elapsed = noted.begun.elapsed());
    }
}

/// What the operator reads: what was undone, in order, what was not there, what failed.
fn report(
    cx: &Context,
    plan: &Plan,
    done: &[Done<'_>],
    left: &[Planned],
) -> Result<Value, CallError> {
    let entry = |done: &Done<'_>, key: &str, value: Value| {
        let mut entry = json!({ "step": done.planned.step, key: value });
        if done.planned.index > 0 {
            entry["index"] = done.planned.index.into();
        }
        entry
    };
    let undone: Vec<Value> = done
        .iter()
        .filter_map(|done| Some(entry(done, "result", done.result.as_ref().ok()?.clone())))
        .collect();
    let failures: Vec<(&Done<'_>, &FailureError)> =
        done.iter().filter_map(|done| Some((done, done.result.as_ref().err()?))).collect();
    if failures.is_empty() {
        let mut report = json!({ "undone": undone, "not_completed": plan.not_completed });
        if !plan.in_flight.is_empty() {
            report["in_flight"] = json!(plan.in_flight);
        }
        if plan.undo.is_empty() {
            report["note"] = "the failed run had completed no step that has an undo".into();
        }
        return Ok(report);
    }
    let names = |planned: &mut dyn Iterator<Item = &Planned>| {
        let names: Vec<String> = planned
            .map(|planned| match planned.index {
                0 => format!("`{}`", planned.step),
                index => format!("`{}` ({index})", planned.step),
            })
            .collect();
        names.join(", ")
    };
    let mut message = format!(
        "{} of {} undos of run `{}` failed for good: ",
        failures.len(),
        plan.undo.len(),
        cx.event().run_id()
    );
    for (i, (done, error)) in failures.iter().enumerate() {
        tracing::error!(
            handler_id = done.undo.map(|undo| undo.context.id.as_str()),
            function_id = shown(cx.event().function_id()),
            failed_run_id = shown(cx.event().run_id()),
            step = done.planned.step,
            index = done.planned.index,
            error = error.to_string(),
            "undo failed for good",
        );
        let separator = if i == 0 { "" } else { "; " };
        let name = names(&mut std::iter::once(done.planned));
        message += &format!("{separator}{name}: {error}");
    }
    let undone =
        names(&mut done.iter().filter(|done| done.result.is_ok()).map(|done| done.planned));
    for (what, names) in [
        ("undone", undone),
        ("left", names(&mut left.iter())),
        (
            "not completed",
            plan.not_completed
                .iter()
                .map(|step| format!("`{step}`"))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    ] {
        if !names.is_empty() {
            message += &format!(" | {what}: {names}");
        }
    }
    Err(failed(message))
}

fn failed(message: impl Into<String>) -> CallError {
    CallError::Failed(HandlerError::non_retriable(message.into()))
}

/// What a step failed with.
fn of_step(error: StepError) -> FailureError {
    HandlerError::from(error).describe()
}
