//! Failure events as Inngest sends them.

use serde::Serialize;
use serde_json::{Value, json};

use crate::event::{FailureEvent, FailureKind};

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

    /// Makes the event.
    ///
    /// # Panics
    ///
    /// If the function's or the run's id is empty, or the event is larger than Inngest sends one.
    #[track_caller]
    pub fn build(self) -> FailureEvent {
        let Self { function_id, run_id, kind, error, event_name, data, events } = self;
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
            Ok(event) => event,
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
