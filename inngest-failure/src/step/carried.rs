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
    future::pending,
    mem::ManuallyDrop,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use inngest::{
    result::{DevError, Error, RetryAfterError},
    step_tool::{InvokeFunctionOpts, Step as Tool, WaitForEventOpts},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Invoke, Wait, memo,
    op::{Op, Until},
    pass::{Fault, Met, Outcome, Ticket},
};
use crate::event::{ErrorBody, FailureError};

/// What decides in a server of the `inngest` crate.
pub(crate) struct Carried {
    tool: Tool,
    /// Whether no attempt follows this one.
    is_last: bool,
    /// By the ids of steps.
    uses: HashMap<String, Uses>,
    /// The steps that the tool takes for running ones.
    running: BTreeMap<Ticket, Running>,
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
pub(crate) struct Handover {
    /// The steps that ran, with what the server is to remember.
    ran: Vec<(Running, Value)>,
    /// A step that failed and is to be tried again.
    failing: Option<(Running, StepFault)>,
    /// A step that the tool reports.
    interrupt: Option<Interrupt>,
    /// The steps that failed for good, which the handler is told.
    pub(crate) lost: Vec<StepFault>,
}

/// A step that ran and failed.
pub(crate) struct StepFault {
    pub(crate) step_id: String,
    pub(crate) error: FailureError,
    pub(crate) delay: Option<Duration>,
}

impl Carried {
    pub(crate) fn new(tool: Tool, is_last: bool) -> Self {
        Self { tool, is_last, uses: HashMap::new(), running: BTreeMap::new(), handover: None }
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

    /// Asks the tool for a step.
    pub(super) fn ask(&mut self, ticket: Ticket, met: &Met) -> Came {
        if self.running.contains_key(&ticket) {
            return Came::New;
        }
        self.skip_to(met);
        let answer = match &met.op {
            Op::Run | Op::SendEvent => match Running::start(&self.tool, &met.id) {
                Ok(running) => {
                    self.running.insert(ticket, running);
                    return Came::New;
                }
                Err(answer) => answer.map(|value| open(&value)),
            },
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
            Ok(outcome) => Came::Back(outcome),
            Err(Error::Dev(error)) => Came::Back(Err(Box::new(remembered(&error)))),
            Err(interrupt) => {
                self.handover().interrupt = Some(Interrupt::new(interrupt));
                Came::Reported
            }
        }
    }

    /// Uses up the numbers of the steps of this id that were dropped before the tool was asked for them.
    fn skip_to(&mut self, met: &Met) {
        let Some(uses) = self.uses.get_mut(&met.id) else { return };
        while uses.asked + 1 < met.number {
            // Were it remembered, whoever wanted to know is gone.
            drop(Running::start(&self.tool, &met.id));
            uses.asked += 1;
        }
        uses.asked = met.number;
    }

    /// A step that had run is done.
    pub(super) fn finish(&mut self, ticket: Ticket, met: &Met, result: Result<String, Fault>) {
        let Some(running) = self.running.remove(&ticket) else { return };
        let is_last = self.is_last;
        let handover = self.handover();
        match result {
            Ok(json) => handover.ran.push((running, seal(&json))),
            Err(Fault { error, is_retriable, delay }) => {
                let fault = StepFault { step_id: met.id.clone(), error, delay };
                if is_retriable && !is_last {
                    handover.failing.get_or_insert((running, fault));
                } else {
                    handover.ran.push((running, envelope(&fault.error)));
                    handover.lost.push(fault);
                }
            }
        }
    }

    /// The handler has dropped a step.
    pub(super) fn lose(&mut self, ticket: Ticket) {
        self.running.remove(&ticket);
    }

    fn handover(&mut self) -> &mut Handover {
        self.handover.get_or_insert_with(|| Handover {
            ran: Vec::new(),
            failing: None,
            interrupt: None,
            lost: Vec::new(),
        })
    }
}

impl Handover {
    /// The step that is to be tried again, if that is what the call has come to. Those that completed beside it come
    /// first: the tool does not report both.
    pub(crate) fn failing(&self) -> Option<&StepFault> {
        let (_, fault) = self.failing.as_ref()?;
        self.ran.is_empty().then_some(fault)
    }

    /// In one word, for the log.
    pub(crate) fn outcome(&self) -> &'static str {
        match (self.failing(), &self.interrupt) {
            (Some(_), _) => "step_failed",
            (None, Some(_)) => "steps_found",
            (None, None) if self.lost.is_empty() => "step_ran",
            (None, None) => "step_failed",
        }
    }

    /// What the SDK is to be given, by which it knows that its tool has the answer.
    pub(crate) fn into_error(self) -> Error {
        let mut interrupt = self.interrupt;
        for (running, value) in self.ran {
            interrupt = Some(Interrupt::new(running.end(Ok(value))));
        }
        match (interrupt, self.failing) {
            (Some(interrupt), _) => interrupt.into_inner(),
            (None, Some((running, StepFault { error, delay, .. }))) => match delay {
                Some(after) => Error::Dev(DevError::RetryAt(RetryAfterError {
                    message: error.message,
                    after,
                    cause: error.stack,
                })),
                None => running.end(Err(ToolError(error.message.into()))),
            },
            // There is no handover without one of them.
            (None, None) => Error::Dev(DevError::Basic("nothing came of the call".to_owned())),
        }
    }
}

/// The SDK's own error that says that its tool has the answer. It panics when it is dropped by anyone but the SDK, so
/// here it never is.
struct Interrupt(ManuallyDrop<Error>);

impl Interrupt {
    fn new(error: Error) -> Self {
        Self(ManuallyDrop::new(error))
    }

    fn into_inner(self) -> Error {
        ManuallyDrop::into_inner(self.0)
    }
}

/// A step that the tool takes for a running one: its closure waits for what the handler's own has come to.
struct Running {
    call: Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>>,
    result: oneshot::Sender<Result<Value, ToolError>>,
}

impl Running {
    /// Lets the tool start a step; what it remembers of it instead, if it does.
    fn start(tool: &Tool, id: &str) -> Result<Self, Result<Value, Error>> {
        let (tool, id) = (tool.clone(), id.to_owned());
        let (result, given) = oneshot::channel();
        let mut call = async move {
            tool.run(&id, || async {
                match given.await {
                    Ok(result) => result,
                    // Whoever lets go of the sender lets go of this as well.
                    Err(_) => pending().await,
                }
            })
            .await
        }
        .boxed();
        match poll(&mut call) {
            Poll::Ready(remembered) => Err(remembered),
            Poll::Pending => Ok(Self { call, result }),
        }
    }

    /// Tells the tool what the step has come to.
    fn end(mut self, result: Result<Value, ToolError>) -> Error {
        // The other end is in the call.
        let _ = self.result.send(result);
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
            true => FailureError::from_body(text),
            false => FailureError::own("StepError", text.clone()),
        },
        DevError::RetryAt(error) => FailureError::own("StepError", error.message.clone()),
        DevError::NoRetry(error) => FailureError::own("StepError", error.message.clone()),
    }
}

/// The one key of an envelope.
const ENVELOPE: &str = "inngest-failure";

/// What the tool is told of a step that failed for good.
fn envelope(error: &FailureError) -> Value {
    json!({ ENVELOPE: { "error": ErrorBody::of(error) } })
}

/// What the tool is told of a step that completed: its value, in an envelope only if it would be taken for one.
fn seal(json: &str) -> Value {
    // What serde_json has written is JSON.
    let value: Value = serde_json::from_str(json).unwrap_or_default();
    match content(&value) {
        Some(_) => json!({ ENVELOPE: { "value": value } }),
        None => value,
    }
}

/// What a step had ended with, as the tool remembers it.
fn open(value: &Value) -> Outcome {
    match content(value) {
        None => Ok(value.to_string()),
        Some(content) => match content.get("error") {
            Some(error) => Err(Box::new(FailureError::from_body(&error.to_string()))),
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

/// In whole milliseconds, none of them too early, and one at least: the SDK has no text for none.
fn whole(duration: Duration) -> Duration {
    let millis = duration.as_nanos().div_ceil(1_000_000).max(1);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
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
            assert_eq!(open(&seal(json)), Ok(json.to_owned()));
        }
    }

    #[test]
    fn a_failure_comes_out_as_one() {
        let mut error = FailureError::own("CardError", "declined");
        error.stack = Some("at x".to_owned());
        error.cause = Some(Box::new(FailureError::own("Error", "no money")));
        let opened = *open(&envelope(&error)).unwrap_err();
        assert_eq!(opened, error);
        let value = envelope(&error).to_string();
        assert_eq!(open(&seal(&value)), Ok(value));
    }

    #[test]
    fn durations_are_whole_milliseconds_and_never_none() {
        assert_eq!(whole(Duration::ZERO), Duration::from_millis(1));
        assert_eq!(whole(Duration::from_nanos(1_000_001)), Duration::from_millis(2));
        assert_eq!(whole(Duration::MAX), Duration::from_millis(u64::MAX));
    }
}
