//! Failure events as Inngest sends them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    event::{FailureEvent, FailureKind},
    trace::{RunTrace, hash},
};

/// What a test says that the failed run had done.
#[derive(Debug)]
pub(crate) struct TestTrace {
    pub(crate) trace: RunTrace,
    /// Whether it says anything.
    pub(crate) is_given: bool,
}

impl TestTrace {
    /// Nothing at all.
    pub(super) fn empty(event: &FailureEvent) -> Self {
        let error = event.error();
        let error = TestError { name: error.name, message: error.message };
        let trace = Steps::default().trace(event.run_id(), event.kind(), &error);
        Self { trace, is_given: true }
    }
}

/// The steps of a run in the order in which they ended.
#[derive(Clone, Debug, Default)]
struct Steps(Vec<(String, Option<Value>)>);

impl Steps {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, id: String, output: Option<Value>) {
        self.0.push((id, output));
    }

    /// The trace as the API gives it.
    fn trace(&self, run_id: &str, kind: FailureKind, error: &TestError) -> RunTrace {
        let time = |at: usize| {
            let (minutes, seconds) = (at / 60 % 60, at % 60);
            format!("2026-11-22T{:02}:{minutes:02}:{seconds:02}.000Z", at / 3600 % 24)
        };
        let error = json!({ "name": error.name, "message": error.message });
        let span = |(at, (id, output)): (usize, &(String, Option<Value>))| {
            let earlier = self.0[..at].iter().filter(|(other, _)| other == id).count();
            let output = match output {
                // As the server wraps what is no object.
                Some(object @ Value::Object(_)) => object.clone(),
                Some(value) => json!({ "data": value }),
                None => error.clone(),
            };
            let status = if self.0[at].1.is_some() { "COMPLETED" } else { "FAILED" };
            json!({
                "name": id, "stepId": hash(id, earlier as u32), "stepOp": "RUN", "status": status, "output": output,
                "queuedAt": time(at), "startedAt": time(at), "endedAt": time(at + 1),
            })
        };
        let children: Vec<Value> = self.0.iter().enumerate().map(span).collect();
        let status = if kind == FailureKind::Failed { "FAILED" } else { "CANCELLED" };
        let mut root = json!({ "name": "Run", "status": status, "children": children });
        if kind == FailureKind::Failed {
            root["output"] = error;
        }
        let answer = json!({ "data": { "runId": run_id, "rootSpan": root } });
        match answer.to_string().parse() {
            Ok(trace) => trace,
            // What a step is said to have returned may be nested deeper than any JSON that is read.
            Err(error) => panic!("the steps make no trace that can be read: {error}"),
        }
    }
}

/// A failure event in the making: see [`failure`](super::failure).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct FailureBuilder {
    function_id: String,
    run_id: String,
    kind: FailureKind,
    error: TestError,
    event_name: String,
    data: Value,
    events: Vec<Value>,
    trace: Option<RunTrace>,
    steps: Steps,
}

/// An error's name and message: of a text alone the name is `Error`.
#[derive(Clone, Debug)]
pub struct TestError {
    name: String,
    message: String,
}

impl From<&str> for TestError {
    fn from(message: &str) -> Self {
        Self::from(("Error", message))
    }
}

impl From<String> for TestError {
    fn from(message: String) -> Self {
        Self { name: "Error".to_owned(), message }
    }
}

impl From<(&str, &str)> for TestError {
    fn from((name, message): (&str, &str)) -> Self {
        Self { name: name.to_owned(), message: message.to_owned() }
    }
}

impl FailureBuilder {
    pub(super) fn new(function_id: String) -> Self {
        Self {
            function_id,
            run_id: "01TEST00000000000000FA11ED".to_owned(),
            kind: FailureKind::Failed,
            error: "failed".into(),
            event_name: "test/event".to_owned(),
            data: json!({}),
            events: Vec::new(),
            trace: None,
            steps: Steps::default(),
        }
    }

    /// What the run failed with: a message, or a name and a message.
    pub fn error(mut self, error: impl Into<TestError>) -> Self {
        self.error = error.into();
        self
    }

    /// The data of the event that had started the run.
    ///
    /// # Panics
    ///
    /// If it can't be written as JSON.
    #[track_caller]
    pub fn data(mut self, data: impl Serialize) -> Self {
        self.data = json_of(data);
        self
    }

    /// The name of the event that had started the run.
    pub fn event_name(mut self, name: impl Into<String>) -> Self {
        self.event_name = name.into();
        self
    }

    /// The data of one more event, of a batch that had started the run.
    ///
    /// # Panics
    ///
    /// If it can't be written as JSON.
    #[track_caller]
    pub fn another(mut self, data: impl Serialize) -> Self {
        self.events.push(json_of(data));
        self
    }

    /// The id of the run that failed.
    pub fn run_id(mut self, run_id: impl Into<String>) -> Self {
        self.run_id = run_id.into();
        self
    }

    /// The run was cancelled: there is no error.
    pub fn cancelled(mut self) -> Self {
        self.kind = FailureKind::Cancelled;
        self
    }

    /// A step that the run had completed before it failed, after those that were given before, with what it returned.
    /// One of the same id is the next use of it, in a loop.
    ///
    /// Handlers that undo steps, or take [`RunTrace`], then see these, whatever the dispatcher's trace source is.
    ///
    /// # Panics
    ///
    /// If the output can't be written as JSON.
    #[track_caller]
    pub fn completed_step(mut self, id: impl Into<String>, output: impl Serialize) -> Self {
        self.steps.add(id.into(), Some(json_of(output)));
        self
    }

    /// The step that failed the run, with the run's error.
    pub fn failed_step(mut self, id: impl Into<String>) -> Self {
        self.steps.add(id.into(), None);
        self
    }

    /// What the run had done, as the API gives it: read from a file with [`RunTrace::from_slice`]. It takes the place of single
    /// steps.
    pub fn trace(mut self, trace: RunTrace) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Makes the event.
    ///
    /// # Panics
    ///
    /// If the function's or the run's id is empty, the event is larger than Inngest sends one, or what a step had returned is
    /// nested too deep.
    #[track_caller]
    pub fn build(self) -> FailureEvent {
        let Self { function_id, run_id, kind, error, event_name, data, events, trace, steps } =
            self;
        let is_given = trace.is_some() || !steps.is_empty();
        let trace = trace.unwrap_or_else(|| steps.trace(&run_id, kind, &error));
        let event = |index: usize, data: Value| {
            let id = format!("01TEST00000000000000EVENT{index}");
            json!({ "id": id, "name": event_name, "data": data, "ts": 1_795_378_322_663_u64, "user": {} })
        };
        let events: Vec<Value> =
            [data].into_iter().chain(events).enumerate().map(|(i, data)| event(i, data)).collect();
        let mut data = json!({
            "_inngest": { "status": if kind == FailureKind::Failed { "Failed" } else { "Cancelled" } },
            "function_id": function_id,
            "run_id": run_id,
            "event": events[0],
            "events": events,
        });
        if kind == FailureKind::Failed {
            let TestError { name, message } = error;
            data["error"] =
                json!({ "error": "invalid status code: 500", "name": name, "message": message });
            data["result"] = json!({ "name": name, "message": message });
        }
        let event = json!({
            "name": kind.event_name(), "id": run_id, "ts": 1_795_378_322_845_u64, "user": {}, "data": data,
        });
        match FailureEvent::try_from(event) {
            Ok(event) => event.with_test_trace(Arc::new(TestTrace { trace, is_given })),
            Err(error) => panic!("{error}"),
        }
    }
}

#[track_caller]
pub(super) fn json_of(data: impl Serialize) -> Value {
    match serde_json::to_value(data) {
        Ok(data) => data,
        Err(error) => panic!("the data can't be written as JSON: {error}"),
    }
}
