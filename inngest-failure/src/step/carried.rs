//! Steps in a server of the `inngest` crate, carried by that SDK's own step tool.
//!
//! The tool is asked for one step after the other, in the order in which they were met, and only while none of them
//! runs: what it is told of it sends to the server, so that of several new steps one alone may start in a call. It calls
//! none of them again while they are in flight, and knows no order in which they had completed.
//!
//! A failure never comes back from the tool. So one that is final goes through it as the value of a step that ran, in an
//! envelope, and is taken out of there in the next call.

use std::{
    collections::{BTreeMap, HashMap},
    future::poll_fn,
    mem::ManuallyDrop,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use inngest::{
    result::{DevError, Error, RetryAfterError},
    step_tool::{InvokeFunctionOpts, Step as Tool, WaitForEventOpts},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    Invoke, Wait, memo,
    op::{Op, Until},
    pass::{Fault, Met, Outcome, Ticket},
};
use crate::{
    dead_letter::CompletedStep,
    event::{ErrorBody, FailureError},
    server::retry_after,
    trace::hash,
};

/// What decides in a server of the `inngest` crate.
pub(crate) struct Carried {
    tool: Tool,
    /// How many attempts came before this one, and whether none follows it.
    attempt: u32,
    is_last: bool,
    /// By the ids of steps.
    uses: HashMap<String, Uses>,
    /// The steps that the tool takes for running ones.
    running: BTreeMap<Ticket, Running>,
    /// What the tool has said of steps before they were met.
    looked_up: HashMap<String, Result<Running, Result<Value, Error>>>,
    /// The steps that were asked for and had completed, with what they had returned.
    completed: Vec<(String, String)>,
    handover: Option<Handover>,
}

/// How often an id was used: the tool counts as it is asked, and steps that are dropped are never asked for.
#[derive(Default)]
struct Uses {
    met: u32,
    asked: u32,
}

/// What becomes of a step.
pub(super) enum Came {
    /// It had completed.
    Back(Outcome),
    /// It is to run.
    New,
    /// The tool has taken it to report it.
    Reported,
}

/// What a call has come to if the handler has not come to its end.
pub(crate) enum Handover {
    /// A step ran, and the server is to remember this of it; if it failed for good, what it failed with.
    Ran(Running, Value, Option<StepFault>),
    /// A step failed and is to be tried again.
    Failing(Running, StepFault),
    /// The tool has found a step.
    Found(Interrupt),
}

/// A step that ran and failed.
pub(crate) struct StepFault {
    pub(crate) step_id: String,
    pub(crate) error: FailureError,
    pub(crate) delay: Option<Duration>,
}

impl Carried {
    pub(crate) fn new(tool: Tool, attempt: u32, is_last: bool) -> Self {
        Self {
            tool,
            attempt,
            is_last,
            uses: HashMap::new(),
            running: BTreeMap::new(),
            looked_up: HashMap::new(),
            completed: Vec::new(),
            handover: None,
        }
    }

    /// The number of this use of the id.
    pub(super) fn meet(&mut self, id: &str) -> u32 {
        let uses = self.uses.entry(id.to_owned()).or_default();
        uses.met += 1;
        uses.met
    }

    pub(super) fn has_handover(&self) -> bool {
        self.handover.is_some()
    }

    pub(super) fn take(&mut self) -> Option<Handover> {
        self.handover.take()
    }

    /// Whether the tool remembers the first use of this id, which is met later if at all.
    pub(super) fn remembers(&mut self, id: &str) -> bool {
        let start = || Running::start(&self.tool, id);
        self.looked_up.entry(id.to_owned()).or_insert_with(start).is_err()
    }

    /// The steps that the handler has come to and that have completed: the tool does not say which others have.
    pub(super) fn completed(&self) -> Vec<CompletedStep> {
        let step = |(key, json): &(String, String)| {
            let output = RawValue::from_string(json.clone()).ok()?;
            Some(CompletedStep { step_id: hash(key, 0), name: Some(key.clone()), output })
        };
        self.completed.iter().filter_map(step).collect()
    }

    /// Asks the tool for a step.
    pub(super) fn ask(&mut self, ticket: Ticket, met: &Met) -> Came {
        if self.running.contains_key(&ticket) {
            return Came::New;
        }
        let looked_up = self.looked_up.remove(&met.id).filter(|_| met.number == 1);
        self.skip_to(met, looked_up.is_some());
        let answer = match &met.op {
            Op::Run | Op::SendEvent => {
                match looked_up.unwrap_or_else(|| Running::start(&self.tool, &met.id)) {
                    Ok(running) => {
                        self.running.insert(ticket, running);
                        return Came::New;
                    }
                    Err(answer) => answer.map(|value| {
                        self.recall(&value);
                        open(&value)
                    }),
                }
            }
            Op::Sleep { until } => {
                let slept = self.tool.sleep(&met.id, until.left());
                slept.map(|()| Ok("null".to_owned()))
            }
            Op::WaitForEvent(wait) => {
                let event = self.tool.wait_for_event::<Value>(&met.id, wait.into());
                event.map(|event| Ok(event.map_or("null".to_owned(), |event| text_of(&event))))
            }
            Op::Invoke(invoke) => match self.tool.invoke::<Value>(&met.id, invoke.into()) {
                Err(Error::NoInvokeFunctionResponseError) => Ok(Ok("null".to_owned())),
                memo => memo.map(|memo| memo::outcome(&memo.to_string())),
            },
        };
        match answer {
            Ok(outcome) => {
                if let Ok(json) = &outcome {
                    self.completed.push((met.key.clone(), json.clone()));
                }
                Came::Back(outcome)
            }
            Err(Error::Dev(error)) => Came::Back(Err(Box::new(remembered(&error)))),
            Err(interrupt) => {
                self.handover = Some(Handover::Found(Interrupt::new(interrupt)));
                Came::Reported
            }
        }
    }

    /// Uses up the numbers of the steps of this id that were dropped before the tool was asked for them.
    fn skip_to(&mut self, met: &Met, is_asked: bool) {
        let Some(uses) = self.uses.get_mut(&met.id) else { return };
        while uses.asked + 1 < met.number && !is_asked {
            // Were it remembered, whoever wanted to know is gone.
            drop(Running::start(&self.tool, &met.id));
            uses.asked += 1;
        }
        uses.asked = met.number;
    }

    /// A step that had run is done.
    pub(super) fn finish(&mut self, ticket: Ticket, met: &Met, result: Result<String, Fault>) {
        let Some(running) = self.running.remove(&ticket) else { return };
        let result = match result.map(|json| seal(&json)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(too_deep(met, &error)),
            Err(fault) => Err(fault),
        };
        self.handover = Some(match result {
            Ok(value) => Handover::Ran(running, value, None),
            Err(Fault { error, is_retriable, delay }) => {
                let is_last =
                    self.is_last || met.retries.is_some_and(|retries| self.attempt >= retries);
                let is_final = !is_retriable || is_last;
                let fault = StepFault { step_id: met.label.clone(), error, delay };
                match is_final {
                    true => {
                        let envelope = envelope(&fault.error, &self.under(&met.key));
                        Handover::Ran(running, envelope, Some(fault))
                    }
                    false => Handover::Failing(running, fault),
                }
            }
        });
    }

    /// The own steps of an undo that has failed, which no later call goes through: they travel with its outcome.
    fn under(&self, key: &str) -> Vec<&(String, String)> {
        let is_own = |(own, _): &&(String, String)| key.ends_with('/') && own.starts_with(key);
        let steps: Vec<_> = self.completed.iter().filter(is_own).collect();
        match steps.iter().map(|(_, json)| json.len()).sum::<usize>() <= MAX_OWN_BYTES {
            true => steps,
            false => Vec::new(),
        }
    }

    /// Takes them out of there.
    fn recall(&mut self, value: &Value) {
        let steps = content(value).and_then(|content| content.get(STEPS));
        let steps = steps.and_then(|steps| Vec::<(String, String)>::deserialize(steps).ok());
        for step in steps.unwrap_or_default() {
            if !self.completed.iter().any(|(key, _)| *key == step.0) {
                self.completed.push(step);
            }
        }
    }

    /// The handler has dropped a step.
    pub(super) fn lose(&mut self, ticket: Ticket) {
        self.running.remove(&ticket);
    }
}

/// What is wrong with a value that the tool can't take.
fn too_deep(met: &Met, error: &serde_json::Error) -> Fault {
    let message =
        format!("what step `{}` returned can't be handed to the SDK as JSON: {error}", met.id);
    Fault { is_retriable: false, ..Fault::retriable(FailureError::own("StepError", message)) }
}

impl Handover {
    /// In one word, for the log.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Ran(_, _, None) => "step_ran",
            Self::Ran(_, _, Some(_)) | Self::Failing(..) => "step_failed",
            Self::Found(_) => "steps_found",
        }
    }

    /// What the SDK is to be given, by which it knows that its tool has the answer.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Ran(running, value, _) => running.end(Ok(value)),
            Self::Failing(_, StepFault { error, delay: Some(delay), .. }) => {
                Error::Dev(DevError::RetryAt(RetryAfterError {
                    message: error.message,
                    after: Duration::from_secs(retry_after(delay)),
                    cause: error.stack,
                }))
            }
            Self::Failing(running, fault) => {
                running.end(Err(ToolError(fault.error.message.into())))
            }
            Self::Found(interrupt) => interrupt.into_inner(),
        }
    }
}

/// The SDK's own error that says that its tool has the answer. It panics when it is dropped by anyone but the SDK, so
/// here it never is.
pub(crate) struct Interrupt(ManuallyDrop<Error>);

impl Interrupt {
    fn new(error: Error) -> Self {
        Self(ManuallyDrop::new(error))
    }

    fn into_inner(self) -> Error {
        ManuallyDrop::into_inner(self.0)
    }
}

/// A step that the tool takes for a running one: its closure waits for what the handler's own has come to.
pub(crate) struct Running {
    call: Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>>,
    result: Arc<Mutex<Option<Result<Value, ToolError>>>>,
}

impl Running {
    /// Lets the tool start a step; what it remembers of it instead, if it does.
    fn start(tool: &Tool, id: &str) -> Result<Self, Result<Value, Error>> {
        let (tool, id) = (tool.clone(), id.to_owned());
        let result = Arc::<Mutex<Option<Result<Value, ToolError>>>>::default();
        let given = Arc::clone(&result);
        // No channel of Tokio's, which has nothing to give once the closure has used up the task's budget.
        let mut call = async move {
            let result = poll_fn(|_| {
                let given = given.lock().unwrap_or_else(PoisonError::into_inner).take();
                given.map_or(Poll::Pending, Poll::Ready)
            });
            tool.run(&id, || result).await
        }
        .boxed();
        match poll(&mut call) {
            Poll::Ready(remembered) => Err(remembered),
            Poll::Pending => Ok(Self { call, result }),
        }
    }

    /// Tells the tool what the step has come to.
    fn end(mut self, result: Result<Value, ToolError>) -> Error {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        match poll(&mut self.call) {
            Poll::Ready(Err(error)) => error,
            // The tool answers no step that ran but with an error.
            Poll::Ready(Ok(_)) | Poll::Pending => {
                Error::Dev(DevError::Basic("the SDK's step tool did not take the step".to_owned()))
            }
        }
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The error of a step as the tool takes it: its text, or the JSON of one that the server remembers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct ToolError(Value);

impl std::fmt::Display for ToolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Value::String(message) => f.write_str(message),
            error => error.fmt(f),
        }
    }
}

impl std::error::Error for ToolError {}

impl From<ToolError> for Error {
    fn from(error: ToolError) -> Self {
        Self::Dev(DevError::Basic(error.to_string()))
    }
}

/// An error that the server remembers of a step, or the tool's own if it can't read what is remembered.
fn remembered(error: &DevError) -> FailureError {
    match error {
        DevError::Basic(text) => match text.starts_with('{') {
            true => ErrorBody::read(text),
            false => FailureError::own("StepError", text.clone()),
        },
        DevError::RetryAt(error) => FailureError::own("StepError", error.message.clone()),
        DevError::NoRetry(error) => FailureError::own("StepError", error.message.clone()),
    }
}

/// The one key of an envelope.
const ENVELOPE: &str = "inngest-failure";

/// In an envelope, beside the error of an undo: its own steps that had completed.
const STEPS: &str = "steps";

/// How much of what an undo's own steps had returned travels with its outcome, in bytes. They are remembered already, and a
/// call has 4 MiB at most.
const MAX_OWN_BYTES: usize = 256 * 1024;

/// What the tool is told of a step that failed for good.
fn envelope(error: &FailureError, steps: &[&(String, String)]) -> Value {
    let mut content = json!({ "error": ErrorBody::of(error) });
    if !steps.is_empty() {
        content[STEPS] = json!(steps);
    }
    json!({ ENVELOPE: content })
}

/// What the tool is told of a step that completed: its value, in an envelope only if it would be taken for one.
fn seal(json: &str) -> serde_json::Result<Value> {
    let value: Value = serde_json::from_str(json)?;
    Ok(match content(&value) {
        Some(_) => json!({ ENVELOPE: { "value": value } }),
        None => value,
    })
}

/// What a step had ended with, as the tool remembers it.
fn open(value: &Value) -> Outcome {
    match content(value) {
        None => Ok(value.to_string()),
        Some(content) => match content.get("error") {
            Some(error) => Err(Box::new(ErrorBody::read(&error.to_string()))),
            None => Ok(content.get("value").unwrap_or(&Value::Null).to_string()),
        },
    }
}

fn content(value: &Value) -> Option<&Value> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.get(ENVELOPE)
}

/// An event as JSON, without what it has not.
fn text_of(event: &inngest::event::Event<Value>) -> String {
    let mut event = json!(event);
    if let Some(event) = event.as_object_mut() {
        event.retain(|key, value| key == "data" || !value.is_null());
    }
    event.to_string()
}

impl Until {
    fn left(self) -> Duration {
        whole(match self {
            Self::After(duration) => duration,
            Self::At(time) => time.duration_since(SystemTime::now()).unwrap_or_default(),
        })
    }
}

impl From<&Wait> for WaitForEventOpts {
    fn from(wait: &Wait) -> Self {
        let Wait { event, timeout, expression } = wait.clone();
        Self { event, timeout: whole(timeout), if_exp: expression }
    }
}

impl From<&Invoke> for InvokeFunctionOpts {
    fn from(invoke: &Invoke) -> Self {
        let Invoke { function_id, data, timeout } = invoke.clone();
        // Data that is none has been refused by the step.
        Self { function_id, data: data.unwrap_or_default(), timeout: timeout.map(whole) }
    }
}

/// In whole milliseconds, none of them too early, and one at least: the SDK has no text for none. 292 years at most, for
/// the server counts nanoseconds in 63 bits.
fn whole(duration: Duration) -> Duration {
    const MAX_MILLIS: u64 = i64::MAX.unsigned_abs() / 1_000_000;
    let millis = duration.as_nanos().div_ceil(1_000_000).clamp(1, MAX_MILLIS.into());
    Duration::from_millis(u64::try_from(millis).unwrap_or(MAX_MILLIS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_out_as_it_went_in() {
        for json in [
            "null",
            "[1]",
            r#"{"inngest-failure":1}"#,
            r#"{"inngest-failure":{"error":{"message":"mine"}}}"#,
            r#"{"inngest-failure":{"value":{"inngest-failure":null}}}"#,
            r#"{"inngest-failure":{},"other":1}"#,
        ] {
            assert_eq!(open(&seal(json).unwrap()), Ok(json.to_owned()));
        }
    }

    #[test]
    fn a_failure_comes_out_as_one() {
        let mut error = FailureError::own("CardError", "declined");
        error.stack = Some("at x".to_owned());
        error.cause = Some(Box::new(FailureError::own("Error", "no money")));
        for message in ["declined", "", "\"quoted\"", r#"{"name":"Inner","message":"inner"}"#] {
            error.message = message.to_owned();
            assert_eq!(*open(&envelope(&error, &[])).unwrap_err(), error);
        }
        let value = envelope(&error, &[&("undo/1/ask".to_owned(), "1".to_owned())]).to_string();
        assert_eq!(open(&seal(&value).unwrap()), Ok(value));
    }

    #[test]
    fn durations_are_whole_milliseconds_and_never_none() {
        assert_eq!(whole(Duration::ZERO), Duration::from_millis(1));
        assert_eq!(whole(Duration::from_nanos(1_000_001)), Duration::from_millis(2));
        assert_eq!(whole(Duration::MAX), Duration::from_millis(9_223_372_036_854));
    }
}
