//! Handlers that succeed, fail, panic and hang at random, but seeded: every run is accounted for, and
//! memory stays flat.
//!
//! A hundredth of the events runs with every `cargo test`; all of them with
//!
//! ```sh
//! cargo test -p tests --release --test soak --test mutations -- --ignored --nocapture
//! ```

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, stream};
use inngest_failure::{
    Backoff, Dispatch, Dispatcher, Failure, FailureEvent, HandlerError, RunContext, RunError,
    handlers, on_failure,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde::Deserialize;
use serde_json::json;
use tests::{memory, silence_panics};

#[derive(Deserialize)]
struct Order {
    act: Act,
    /// How many attempts go wrong before one goes right.
    wrong: u32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Act {
    Fail,
    FailForGood,
    Panic,
    Hang,
}

async fn act(order: &Order, run: &RunContext) -> Result<u32, HandlerError> {
    if run.attempt >= order.wrong {
        return Ok(run.attempt);
    }
    match order.act {
        Act::Fail => Err("expected in a soak".into()),
        Act::FailForGood => Err(HandlerError::non_retriable("expected in a soak")),
        Act::Panic => panic!("expected in a soak"),
        Act::Hang => std::future::pending().await,
    }
}

#[on_failure(function = "checkout", retries = 2, timeout = "3ms")]
async fn exact(failure: Failure<Order>, run: RunContext) -> Result<u32, HandlerError> {
    act(&failure.event.data, &run).await
}

#[on_failure(function = "check*", retries = 1, timeout = "3ms", concurrency = 16)]
async fn pattern(failure: Failure<Order>, run: RunContext) -> Result<u32, HandlerError> {
    tokio::task::yield_now().await;
    act(&failure.event.data, &run).await
}

#[on_failure(function = "*", retries = 0)]
fn every(failure: Failure) -> Result<usize, HandlerError> {
    Ok(failure.events.len())
}

/// How a handler with these retries ends on this order: its outcome and its attempts.
fn expected(order: &Order, retries: u32) -> (&'static str, u32) {
    let wrong = match order.act {
        Act::FailForGood if order.wrong > 0 => return ("failed", 1),
        _ => order.wrong,
    };
    if wrong <= retries {
        return ("succeeded", wrong + 1);
    }
    let outcome = match order.act {
        Act::Fail | Act::FailForGood => "failed",
        Act::Panic => "panicked",
        Act::Hang => "timed out",
    };
    (outcome, retries + 1)
}

fn outcome(error: &RunError) -> &'static str {
    match error {
        RunError::Failed(error) => {
            assert_eq!(error.to_string(), "expected in a soak");
            "failed"
        }
        RunError::Panicked { message, location } => {
            assert_eq!(message, "expected in a soak");
            assert!(location.starts_with("tests/soak/main.rs:"), "{location}");
            "panicked"
        }
        RunError::TimedOut => "timed out",
        RunError::Payload(_) => "payload",
        other => panic!("{other:?}"),
    }
}

/// One event; `None` is one whose data fits no handler but `every`.
fn event(number: usize, order: Option<&Order>) -> FailureEvent {
    let data = match order {
        Some(Order { act, wrong }) => json!({ "act": format!("{act:?}"), "wrong": wrong }),
        None => json!({ "act": number }),
    };
    let data = json!({
        "function_id": "shop-checkout",
        "run_id": format!("run-{number}"),
        "error": { "message": "boom" },
        "event": { "data": data },
        "events": [{ "data": data }, { "data": data }],
    });
    json!({ "name": "inngest/function.failed", "data": data }).try_into().unwrap()
}

fn check(
    number: usize,
    order: Option<&Order>,
    dispatch: Dispatch,
    counts: &mut BTreeMap<&str, usize>,
) {
    assert_eq!(dispatch.run_id, format!("run-{number}"));
    assert!(!dispatch.is_unhandled());
    let ids: Vec<&str> = dispatch.runs.iter().map(|run| run.handler_id.as_str()).collect();
    assert_eq!(ids, ["every", "pattern", "shop-checkout-failure"]);
    for (run, retries) in dispatch.runs.iter().zip([None, Some(1), Some(2)]) {
        let (wanted, attempts) = match (retries, order) {
            (None, _) => ("succeeded", 1),
            (Some(_), None) => ("payload", 1),
            (Some(retries), Some(order)) => expected(order, retries),
        };
        let got = match &run.result {
            Ok(_) => "succeeded",
            Err(error) => outcome(error),
        };
        // A call that should have gone right may have had no processor for all of its 3 ms.
        let starved = got == "timed out" || run.attempts > attempts;
        assert!(got == wanted && run.attempts == attempts || starved, "{number}: {run:?}");
        *counts.entry(if starved && got != wanted { "starved" } else { got }).or_default() += 1;
    }
}

async fn soak(events: usize) {
    silence_panics("expected in a soak");
    let dispatcher = Dispatcher::builder()
        .app("shop")
        .without_inventory()
        .register(handlers![exact, pattern, every])
        .backoff(Backoff::new().first(Duration::from_millis(1)).max(Duration::from_millis(2)))
        .build()
        .unwrap();

    let mut random = StdRng::seed_from_u64(20_261_122);
    let mut counts = BTreeMap::new();
    let mut early = 0;
    let orders = (0..events).map(|number| {
        let act =
            *[Act::Fail, Act::FailForGood, Act::Panic, Act::Hang].choose(&mut random).unwrap();
        let order = Order { act, wrong: random.random_range(0..4) };
        (number, random.random_bool(0.95).then_some(order))
    });
    let mut dispatches = stream::iter(orders)
        .map(|(number, order)| {
            let dispatcher = dispatcher.clone();
            async move {
                let dispatching = async move {
                    let dispatch = dispatcher.dispatch(event(number, order.as_ref())).await;
                    (number, order, dispatch)
                };
                tokio::spawn(dispatching).await.unwrap()
            }
        })
        .buffer_unordered(64);
    let mut done = 0;
    while let Some((number, order, dispatch)) = dispatches.next().await {
        check(number, order.as_ref(), dispatch, &mut counts);
        done += 1;
        if done == events / 5 {
            early = memory();
        }
    }
    assert_eq!(done, events);
    assert_eq!(counts.values().sum::<usize>(), 3 * events, "a run is missing: {counts:?}");
    let starved = counts.get("starved").copied().unwrap_or(0);
    assert!(starved * 100 <= events, "too many to say anything: {counts:?}");
    let late = memory();
    println!(
        "{events} events, {} runs: {counts:?}; {early} MiB early, {late} MiB late",
        3 * events
    );
    assert!(late <= early + 16, "memory grew from {early} to {late} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_is_accounted_for() {
    soak(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the full count, for a release build"]
async fn every_run_is_accounted_for_in_full() {
    soak(100_000).await;
}
