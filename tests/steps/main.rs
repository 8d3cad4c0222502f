//! Durable steps: at an endpoint, in process, and with the testing kit.

mod endpoint;
mod fetch;
mod held;
mod in_process;
mod killed;
mod kit;
mod misuse;
mod plain;
mod program;
mod property;
mod recorded;
mod select;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use inngest_failure::{
    Dispatcher, DispatcherBuilder, FailureEvent, serve::Endpoint, testing::failure,
};
use serde_json::{Value, json};
use tests::http::call;
use tower::ServiceExt;

/// A builder without the handlers of the other tests, and with short waits.
fn builder() -> DispatcherBuilder {
    tests::listen();
    Dispatcher::builder().without_inventory().app("shop")
}

/// An endpoint in dev mode.
fn endpoint(builder: DispatcherBuilder) -> Endpoint {
    let dispatcher = builder.build().unwrap();
    Endpoint::builder(dispatcher, "shop-failures").dev_server("http://127.0.0.1:9").build().unwrap()
}

fn event() -> FailureEvent {
    failure("shop-checkout").data(json!({ "order_id": "o1" })).build()
}

/// What a call says of its run's steps.
struct Call {
    steps: Value,
    stack: Vec<String>,
    step: String,
    attempt: u32,
    planned: bool,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            steps: json!({}),
            stack: Vec::new(),
            step: "step".to_owned(),
            attempt: 0,
            planned: false,
        }
    }
}

/// The memoised steps, by their ids, and the order in which they completed.
fn memos(steps: &[(&str, Value)]) -> Call {
    let stack: Vec<String> = steps.iter().map(|(id, _)| hash(id)).collect();
    let steps = steps.iter().map(|(id, memo)| (hash(id), memo.clone())).collect();
    Call { steps, stack, ..Call::default() }
}

impl Call {
    /// Asks for one step.
    fn step(mut self, id: &str) -> Self {
        self.step = hash(id);
        self
    }

    /// Switches immediate execution off.
    fn planned(mut self) -> Self {
        self.planned = true;
        self
    }

    fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    fn request(self, handler: &str) -> Request<Bytes> {
        let event: Value = serde_json::from_str(event().raw().get()).unwrap();
        let body = json!({
            "ctx": {
                "attempt": self.attempt, "disable_immediate_execution": self.planned, "max_attempts": 4,
                "run_id": "01M82EYT4HM8CFGAGFFEN707R8", "stack": { "current": self.stack.len(), "stack": self.stack },
                "step_id": "step", "use_api": false,
            },
            "event": event, "events": [event], "steps": self.steps, "use_api": false, "version": 1,
        });
        let mut request = call(&format!("shop-failures-{handler}"), body.to_string());
        let uri =
            request.uri().to_string().replace("stepId=step", &format!("stepId={}", self.step));
        *request.uri_mut() = uri.parse().unwrap();
        request
    }

    /// Makes the call: the status, the header `x-inngest-no-retry`, and the body.
    async fn of(self, endpoint: &Endpoint, handler: &str) -> (u16, String, Value) {
        let response = exchange(endpoint, self.request(handler)).await;
        let no_retry = tests::http::header(&response, "x-inngest-no-retry").to_owned();
        (response.status().as_u16(), no_retry, tests::http::json(&response))
    }
}

async fn exchange(endpoint: &Endpoint, request: Request<Bytes>) -> Response<Bytes> {
    let response = endpoint.clone().oneshot(request.map(Full::new)).await.unwrap();
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

/// A step's id as it stands on the wire, by another implementation than the crate's.
fn hash(id: &str) -> String {
    sha1_smol::Sha1::from(id).digest().to_string()
}

/// The operations' names and the steps that they are of.
fn ops(body: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let operations = body.as_array().unwrap_or_else(|| panic!("no operations: {body}"));
    operations.iter().map(|op| (text(&op["op"]), text(&op["displayName"]))).collect()
}

fn op(op: &str, id: &str) -> (String, String) {
    (op.to_owned(), id.to_owned())
}

/// What closures did, in order.
#[derive(Clone, Default)]
struct Seen(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
