//! The endpoint over real HTTP: calls, signatures, sync and introspection.

mod build;
mod calls;
mod fetch;
mod introspection;
mod recorded;
mod signatures;
mod sync;

use inngest_failure::{
    Dispatcher, DispatcherBuilder,
    serve::{Endpoint, EndpointBuilder},
};
use serde_json::{Value, json};
use tests::http::KEY;

/// The app of the endpoint.
const APP: &str = "shop-failures";

/// A builder without the handlers of the other tests.
fn builder() -> DispatcherBuilder {
    tests::listen();
    Dispatcher::builder().without_inventory().app("shop")
}

/// An endpoint in cloud mode, which owes nothing to this machine's environment.
fn cloud(dispatcher: Dispatcher) -> EndpointBuilder {
    Endpoint::builder(dispatcher, APP).dev(false).signing_key(KEY)
}

/// An endpoint in dev mode, whose dev server nobody has started.
fn dev(dispatcher: Dispatcher) -> EndpointBuilder {
    Endpoint::builder(dispatcher, APP).dev_server("http://127.0.0.1:9")
}

/// A failure event of a function, with this data of its trigger.
fn event(function_id: &str, data: Value) -> Value {
    json!({
        "name": "inngest/function.failed",
        "id": "01M82E82J0N0GBAMR1N91EZJJ6",
        "ts": 1795378383544_i64,
        "data": {
            "function_id": function_id,
            "run_id": "01M82E82J0N0GBAMR1N91EZJJ6",
            "error": { "error": "invalid status code: 500", "name": "CardError", "message": "card declined" },
            "event": { "id": "e1", "name": "shop/order.placed", "data": data, "ts": 1 },
        },
    })
}

/// The body of a call, as Inngest posts it.
fn body_with(event: &Value, ctx: Value) -> Value {
    let mut body = json!({
        "ctx": {
            "attempt": 0, "disable_immediate_execution": false, "env": "", "max_attempts": 4,
            "run_id": "01M82EYT4HM8CFGAGFFEN707R8", "stack": { "current": 0, "stack": [] }, "step_id": "step",
            "use_api": false,
        },
        "event": event,
        "events": [event],
        "steps": {},
        "use_api": false,
        "version": -1,
    });
    body["ctx"].as_object_mut().unwrap().extend(ctx.as_object().unwrap().clone());
    body
}

fn body(function_id: &str, data: Value) -> String {
    body_with(&event(function_id, data), json!({})).to_string()
}
