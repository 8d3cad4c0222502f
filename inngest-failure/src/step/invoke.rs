//! A function that a handler calls.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// An Inngest function to call: see [`Step::invoke`](super::Step::invoke).
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is given to a step"]
pub struct Invoke {
    pub(super) function_id: String,
    pub(super) data: Result<Value, String>,
    pub(super) timeout: Option<Duration>,
}

impl Invoke {
    /// The function of this composite id, `{app}-{function}`, with the data `{}`.
    pub fn new(function_id: impl Into<String>) -> Self {
        let data = Ok(Value::Object(serde_json::Map::new()));
        Self { function_id: function_id.into(), data, timeout: None }
    }

    /// The data of the event that it sees, an object. Data that can't be written as JSON is an error of the step.
    pub fn data(mut self, data: impl Serialize) -> Self {
        self.data = serde_json::to_value(data).map_err(|error| error.to_string());
        self
    }

    /// How long to wait for it; by default as long as Inngest waits.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}
