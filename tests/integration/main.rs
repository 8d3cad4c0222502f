//! Handlers, registry and dispatcher together, through the public API.

mod attempts;
mod blocking;
mod build;
mod errors;
mod extractors;
mod flow_control;
mod isolation;
mod log;
mod selection;
mod service;

use inngest_failure::{Dispatcher, DispatcherBuilder, FailureEvent};
use serde_json::{Value, json};

/// A builder without the handlers of the other tests.
fn builder() -> DispatcherBuilder {
    tests::listen();
    Dispatcher::builder().without_inventory().app("shop")
}

/// A failure of a function, with this data of its trigger.
fn failed(function_id: &str, data: Value) -> FailureEvent {
    event("inngest/function.failed", function_id, "Error", data)
}

fn event(name: &str, function_id: &str, error: &str, data: Value) -> FailureEvent {
    let data = json!({
        "function_id": function_id,
        "run_id": "01M82E82J0N0GBAMR1N91EZJJ6",
        "error": { "name": error, "message": "card declined" },
        "event": { "id": "e1", "name": "shop/order.placed", "data": data, "ts": 1 },
    });
    json!({ "name": name, "ts": 1795378383544_i64, "data": data }).try_into().unwrap()
}
