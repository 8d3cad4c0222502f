//! What a call costs whose run has many remembered steps, beside ten calls with a tenth of them, and beside reading the
//! same bodies as JSON values:
//!
//! `cargo bench -p inngest-failure --features serve --bench steps`
//!
//! Both sides of a ratio go through as many steps: a cost that grows with their number gives 1, one that grows with its
//! square 10. The last lines hold the ratios against the limits that the crate keeps.

mod common;

use std::{hint::black_box, process::ExitCode};

use bytes::Bytes;
use common::{Contender, Limit, Ratios, is_test, ratio};
use futures_util::future::try_join_all;
use http::{Request, StatusCode};
use http_body_util::Full;
use inngest_failure::{
    Dispatcher, Failure, HandlerError, Step, handlers, on_failure, serve::Endpoint,
};
use peak_alloc::PeakAlloc;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use tokio::runtime::Runtime;
use tower_service::Service;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// As many as Inngest allows a run.
const MANY: u64 = 1000;
const FEW: u64 = 100;

#[derive(serde::Deserialize)]
struct Size {
    steps: u64,
}

async fn restock(number: u64) -> Result<Value, HandlerError> {
    Ok(json!({ "restocked": number }))
}

#[on_failure(function = "shop-sequence")]
async fn sequence(failure: Failure<Size>, step: Step) -> Result<u64, HandlerError> {
    for number in 0..failure.event.data.steps {
        step.run(&number.to_string(), || restock(number)).await?;
    }
    Ok(failure.event.data.steps)
}

#[on_failure(function = "shop-parallel")]
async fn parallel(failure: Failure<Size>, step: Step) -> Result<u64, HandlerError> {
    let ids: Vec<String> = (0..failure.event.data.steps).map(|number| number.to_string()).collect();
    let steps = ids.iter().map(|id| step.run(id, || restock(0)));
    Ok(try_join_all(steps).await?.len() as u64)
}

fn endpoint() -> Endpoint {
    let dispatcher = Dispatcher::builder()
        .without_inventory()
        .register(handlers![sequence, parallel])
        .build()
        .unwrap();
    Endpoint::builder(dispatcher, "failures").dev(true).build().unwrap()
}

/// The body of the last call of a run with so many steps, as Inngest posts it.
fn body(function: &str, steps: u64) -> Bytes {
    let event = json!({
        "name": "inngest/function.failed", "id": "01M82E82J0N0GBAMR1N91EZJJ6", "ts": 1_795_378_383_544_u64,
        "data": {
            "function_id": function, "run_id": "01M82E82J0N0GBAMR1N91EZJJ6",
            "error": { "name": "Error", "message": "card declined" },
            "event": { "name": "shop/order.placed", "data": { "steps": steps } },
        },
    });
    let ids: Vec<String> =
        (0..steps).map(|number| hex::encode(Sha1::digest(number.to_string()))).collect();
    let memos: serde_json::Map<String, Value> = ids
        .iter()
        .enumerate()
        .map(|(number, id)| (id.clone(), json!({ "data": { "restocked": number } })))
        .collect();
    let body = json!({
        "ctx": {
            "attempt": 0, "disable_immediate_execution": true, "max_attempts": 4, "run_id": "01M82EYT4HM8CFGAGFFEN707R8",
            "stack": { "current": steps, "stack": ids }, "use_api": false,
        },
        "event": event, "events": [event], "steps": memos, "use_api": false, "version": 1,
    });
    body.to_string().into()
}

/// One call, which runs the handler through all of its steps to its end.
fn call(runtime: &Runtime, endpoint: &Endpoint, function: &str, body: &Bytes) {
    let url = format!("/api/failures?fnId=failures-{function}-failure&stepId=step");
    let request = Request::post(url).body(Full::new(body.clone())).unwrap();
    let Ok(response) = runtime.block_on(endpoint.clone().call(request));
    assert_eq!(response.status(), StatusCode::OK);
}

/// The most memory that was in use at once, beyond what was before, in bytes.
fn peak(work: impl FnOnce()) -> f64 {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    work();
    (ALLOCATOR.peak_usage() - before) as f64
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = endpoint();
    let rounds = if is_test() { 1 } else { 4 };
    let mut ratios = Ratios::new();
    for function in ["shop-sequence", "shop-parallel"] {
        let (many, few) = (body(function, MANY), body(function, FEW));
        let calls = |name, body: &Bytes, each: u64| {
            let body = body.clone();
            let (runtime, endpoint) = (&runtime, &endpoint);
            let work =
                move |n: u64| (0..n * each).for_each(|_| call(runtime, endpoint, function, &body));
            Contender { name, work: Box::new(work) }
        };
        let of_many = calls("one call, 1,000 steps", &many, 1);
        let of_few = calls("ten calls, 100 steps", &few, MANY / FEW);
        let value = Contender {
            name: "the body as a JSON value",
            work: Box::new(|n| {
                (0..n)
                    .for_each(|_| drop(black_box(serde_json::from_slice::<Value>(&many).unwrap())));
            }),
        };
        let time = ratio(&of_many, &of_few, rounds);
        ratios.add(
            &format!("{function}: time, {} / {}", of_many.name, of_few.name),
            time,
            at_most(1.5),
        );
        let by_value = ratio(&of_many, &value, rounds);
        ratios.add(
            &format!("{function}: time, {} / {}", of_many.name, value.name),
            by_value,
            Limit::None,
        );
        let memory = |body| peak(|| call(&runtime, &endpoint, function, body));
        let memory = memory(&many) / (memory(&few) * (MANY / FEW) as f64);
        let what = format!("{function}: peak memory, 1,000 steps / ten times that of 100");
        ratios.add(&what, memory, at_most(1.5));
    }
    ratios.exit_code()
}

/// A run that only shows that it works is too short to hold anything against it.
fn at_most(limit: f64) -> Limit {
    if is_test() { Limit::None } else { Limit::AtMost(limit) }
}
