//! The rollback of a function: each step that its failed run had completed is undone, the last one first.

mod letters;
mod report;
mod tally;
mod undo;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use self::{report::report, tally::Noted};
pub(super) use self::{tally::Tally, undo::Undo};
use super::{HandlerRun, RunError, shown};
use crate::{
    __private::BoxFuture,
    dead_letter::Sinks,
    error::HandlerError,
    event::{FailureError, FailureEvent},
    extract::Context,
    panic::drop_caught,
    registry::CallError,
    selector::Subject,
    step::{Fault, Name, Pass, Step},
    trace::{Plan, Planned, TraceError},
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

/// How far a rollback has come.
struct Reached<'a> {
    plan: &'a Plan,
    done: Vec<Done<'a>>,
    /// What is left as it is, for another undo has failed.
    left: &'a [Planned],
}

/// Why a step was left as it is.
const LEFT: &str = "the step is left as it is, for another one could not be undone and the rollback stops at the first";

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
            let undos = self.of(cx.event(), tally);
            if undos.is_empty() && !pass.remembers("plan") {
                // The server chose it by the function alone.
                return Ok(json!({ "undone": [], "note": "no undo is for an error of this name" }));
            }
            let plan = match self.plan(cx, pass, &undos).await {
                Ok(plan) => plan,
                Err(error) => {
                    // As much as a handler that fails outside of its steps: it is not tried again.
                    let (CallError::Failed(why) | CallError::Rejected(why)) = &error;
                    let completed = pass.completed();
                    self.bury_all(cx.event(), &undos, &why.describe(), &completed).await;
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
            let reached = Reached { plan: &plan, done, left };
            if let Some(tally) = tally {
                tally.note(&undos, &reached);
            }
            self.bury(cx, pass, &undos, &reached, tally).await;
            report(cx, &reached)
        })
    }

    /// Those that take this failure, or that are asked for.
    pub(super) fn of(&self, event: &FailureEvent, tally: Option<&Tally<'_>>) -> Vec<&Undo> {
        let subject = Subject::from(event);
        let is_meant = |undo: &&Undo| match tally.and_then(|tally| tally.only.as_ref()) {
            Some(only) => only.contains(&undo.context.id.as_str()),
            None => undo.selector.matches(subject),
        };
        self.undos.iter().filter(is_meant).collect()
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
        let undos = self.of(cx.event(), Some(&tally));
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

fn failed(message: impl Into<String>) -> CallError {
    CallError::Failed(HandlerError::non_retriable(message.into()))
}
