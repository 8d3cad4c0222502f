//! Throttles and rate limits of the dispatcher.

use std::time::Duration;

use inngest_failure::{Dispatcher, RunError, handlers, on_failure};
use serde_json::{Value, json};
use tests::Log;
use tokio::time::Instant;

use crate::{builder, failed};

const KEY: &str = "event.data.event.data.order_id";

#[on_failure(function = "throttled", throttle = "2/1m", priority = -5, idempotency = KEY)]
async fn throttled() -> Result<(), String> {
    Ok(())
}

#[on_failure(function = "limited", rate_limit = "2/1m", retries = 1)]
async fn limited() -> Result<(), String> {
    Err("no such channel".into())
}

#[on_failure(function = "other")]
async fn other() {}

fn dispatcher() -> Dispatcher {
    builder().register(handlers![throttled, limited, other]).build().unwrap()
}

async fn dispatch(dispatcher: &Dispatcher, function: &str) -> (Result<Value, RunError>, u32) {
    let mut report = dispatcher.dispatch(failed(&format!("shop-{function}"), json!({}))).await;
    let run = report.runs.remove(0);
    (run.result, run.attempts)
}

#[test]
fn what_the_attribute_says_is_listed() {
    let dispatcher = dispatcher();
    let [limited, _, throttled] = dispatcher.handlers() else { panic!("three handlers") };
    assert_eq!(throttled.throttle.unwrap().to_string(), "2/1m");
    assert_eq!(throttled.priority, Some(-5));
    assert_eq!(throttled.idempotency, Some(KEY));
    assert_eq!(throttled.rate_limit, None);
    assert_eq!(limited.rate_limit.unwrap().to_string(), "2/1m");
}

#[tokio::test(start_paused = true)]
async fn throttled_runs_start_in_order_as_fast_as_they_may_and_none_is_lost() {
    let dispatcher = dispatcher();
    let started = Instant::now();
    let runs: Vec<_> = (0..6)
        .map(|_| {
            let dispatcher = dispatcher.clone();
            tokio::spawn(async move {
                dispatch(&dispatcher, "throttled").await.0.unwrap();
                started.elapsed().as_secs()
            })
        })
        .collect();
    let mut ended = Vec::new();
    for run in runs {
        ended.push(run.await.unwrap());
    }
    assert_eq!(ended, [0, 0, 30, 60, 90, 120]);
}

#[tokio::test(start_paused = true)]
async fn one_that_gives_up_its_turn_leaves_it_to_the_next() {
    let dispatcher = dispatcher();
    for _ in 0..2 {
        dispatch(&dispatcher, "throttled").await.0.unwrap();
    }
    let started = Instant::now();
    let waiting = dispatch(&dispatcher, "throttled");
    assert!(tokio::time::timeout(Duration::from_secs(10), waiting).await.is_err());
    dispatch(&dispatcher, "throttled").await.0.unwrap();
    assert_eq!(started.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn rate_limited_runs_are_reported_and_logged_and_do_not_take_place() {
    let dispatcher = dispatcher();
    let (log, _guard) = Log::start(tracing::Level::WARN);
    for _ in 0..2 {
        let (result, attempts) = dispatch(&dispatcher, "limited").await;
        assert!(matches!(result, Err(RunError::Failed(_))), "{result:?}");
        assert_eq!(attempts, 2, "a retry is no further run");
    }
    let (result, attempts) = dispatch(&dispatcher, "limited").await;
    assert!(matches!(result, Err(RunError::RateLimited)), "{result:?}");
    assert_eq!(attempts, 0);
    let last = log.text();
    let last = last.lines().last().unwrap();
    assert!(last.contains("handler_id=\"shop-limited-failure\""), "{last}");
    assert!(last.contains("handler did not run: its `rate_limit` is used up"), "{last}");

    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(matches!(dispatch(&dispatcher, "limited").await.0, Err(RunError::Failed(_))));
    assert!(matches!(dispatch(&dispatcher, "limited").await.0, Err(RunError::RateLimited)));
    assert!(dispatch(&dispatcher, "other").await.0.is_ok(), "each handler has its own limits");
}
