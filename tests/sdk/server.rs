//! A server of the SDK on axum 0.6, and one that plays Inngest for it.

#![allow(dead_code, reason = "not all tests that share this use all of it")]

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use axum_06::{Router, extract::DefaultBodyLimit, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use inngest::{handler::Handler, serve};
use inngest_failure::{FailureEvent, sdk};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::http::{header, send};
use tokio::task::JoinHandle;

/// A server that stops when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a call says of its run.
#[derive(Clone, Default)]
pub(crate) struct Call {
    pub(crate) attempt: u32,
    /// The memoised steps, by their hashed ids.
    pub(crate) steps: HashMap<String, Value>,
}

impl Server {
    pub(crate) async fn start<T, E>(handler: Handler<T, E>, layer: Option<sdk::Layer>) -> Self
    where
        T: DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        E: Into<inngest::result::Error> + Send + Sync + 'static,
    {
        let methods =
            get(serve::axum::introspect).put(serve::axum::register).post(serve::axum::invoke);
        let app = Router::new()
            .route("/api/inngest", methods)
            .route_layer(DefaultBodyLimit::max(4 * 1024 * 1024));
        let app = match layer {
            Some(layer) => app.route_layer(layer),
            None => app,
        };
        Self::serve(app.with_state(Arc::new(handler)))
    }

    pub(crate) fn serve(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = axum_06::Server::from_tcp(listener).unwrap().serve(app.into_make_service());
        let task = tokio::spawn(async { server.await.unwrap() });
        Self { address, task }
    }

    pub(crate) async fn send(&self, request: Request<Bytes>) -> Response<Bytes> {
        send(self.address, request).await
    }

    /// Calls a function by its synced id.
    pub(crate) async fn call(&self, function: &str, event: &FailureEvent, call: &Call) -> Answer {
        let request = request(function, body(event, call));
        self.send(request).await.into()
    }

    /// Runs a function as Inngest does: calls, remembers, calls again.
    pub(crate) async fn run(&self, function: &str, event: &FailureEvent, attempts: u32) -> Run {
        let mut run = Run::default();
        let mut call = Call::default();
        loop {
            let answer = self.call(function, event, &call).await;
            run.answers.push(answer.clone());
            assert!(run.answers.len() < 200, "{:#?}", run.answers);
            match answer.status {
                200 => break run.result = Ok(answer.body),
                206 => {
                    call.attempt = 0;
                    for operation in answer.body.as_array().unwrap() {
                        let memo = match operation["op"].as_str().unwrap() {
                            "StepRun" => json!({ "data": operation["data"] }),
                            "Sleep" => Value::Null,
                            op => panic!("{op} is not played here"),
                        };
                        let id = operation["id"].as_str().unwrap().to_owned();
                        run.operations.push(operation["displayName"].as_str().unwrap().to_owned());
                        assert!(call.steps.insert(id, memo).is_none(), "twice: {operation}");
                    }
                }
                _ => {
                    call.attempt += 1;
                    if answer.no_retry == "true" || call.attempt == attempts {
                        break run.result = Err(answer.body);
                    }
                }
            }
        }
        run
    }
}

/// What has come of a run.
pub(crate) struct Run {
    pub(crate) result: Result<Value, Value>,
    /// The steps in the order in which they completed.
    pub(crate) operations: Vec<String>,
    pub(crate) answers: Vec<Answer>,
}

impl Default for Run {
    fn default() -> Self {
        Self { result: Ok(Value::Null), operations: Vec::new(), answers: Vec::new() }
    }
}

/// What a call was answered with.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) no_retry: String,
    pub(crate) retry_after: String,
    pub(crate) body: Value,
}

impl From<Response<Bytes>> for Answer {
    fn from(response: Response<Bytes>) -> Self {
        Self {
            status: response.status().as_u16(),
            no_retry: header(&response, "x-inngest-no-retry").to_owned(),
            retry_after: header(&response, "retry-after").to_owned(),
            body: match serde_json::from_slice(response.body()) {
                Ok(body) => body,
                Err(_) => String::from_utf8_lossy(response.body()).into(),
            },
        }
    }
}

/// An unsigned call.
pub(crate) fn request(function: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post(format!("/api/inngest?fnId={function}&stepId=step"))
        .header("content-type", "application/json")
        .body(body.into())
        .unwrap()
}

pub(crate) fn body(event: &FailureEvent, Call { attempt, steps }: &Call) -> String {
    let event: Value = serde_json::from_str(event.raw().get()).unwrap();
    let body = json!({
        "ctx": {
            "attempt": attempt, "disable_immediate_execution": false, "env": "", "fn_id": "", "max_attempts": 4,
            "run_id": "01M82EYT4HM8CFGAGFFEN707R8", "stack": { "current": 0, "stack": [] }, "step_id": "step",
            "use_api": false,
        },
        "event": event, "events": [event], "steps": steps, "use_api": false, "version": 1,
    });
    body.to_string()
}

/// The id of a step's use as the SDK has it, by another implementation than the SDK's.
pub(crate) fn hash(id: &str, number: u32) -> String {
    sha1_smol::Sha1::from(format!("{id}:{number}")).digest().to_string().to_uppercase()
}
