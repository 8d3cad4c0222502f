//! How often a handler is tried, and when.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use inngest_failure::{
    Backoff, HandlerError, HandlerRun, ResultExt, RunContext, RunError, State, handlers, on_failure,
};
use serde_json::json;
use tokio::time::Instant;

use crate::{builder, failed};

type Calls = Arc<AtomicU32>;

fn no_more(left: u32) -> Result<(), io::Error> {
    if left == 0 { Ok(()) } else { Err(io::Error::other("not yet")) }
}

#[on_failure(function = "third-time", retries = 5)]
async fn third_time(State(calls): State<Calls>, run: RunContext) -> Result<u32, HandlerError> {
    let call = calls.fetch_add(1, Ordering::SeqCst);
    assert_eq!(call, run.attempt);
    assert_eq!((run.max_attempts, run.handler_id.as_str()), (6, "shop-third-time-failure"));
    no_more(2_u32.saturating_sub(call))?;
    Ok(call)
}

#[on_failure(function = "never", retries = 2)]
async fn never(State(calls): State<Calls>, run: RunContext) -> Result<(), HandlerError> {
    calls.fetch_add(1, Ordering::SeqCst);
    assert_eq!(run.is_last_attempt(), run.attempt == 2);
    Ok(no_more(1)?)
}

#[on_failure(function = "by-default")]
async fn by_default(State(calls): State<Calls>) -> Result<(), HandlerError> {
    calls.fetch_add(1, Ordering::SeqCst);
    Ok(no_more(1)?)
}

#[on_failure(function = "once", retries = 0)]
async fn once(State(calls): State<Calls>, run: RunContext) -> Result<(), HandlerError> {
    calls.fetch_add(1, Ordering::SeqCst);
    assert!(run.is_last_attempt());
    Ok(no_more(1)?)
}

#[on_failure(function = "hopeless", retries = 20)]
async fn hopeless(State(calls): State<Calls>) -> Result<(), HandlerError> {
    calls.fetch_add(1, Ordering::SeqCst);
    Ok(no_more(1).non_retriable()?)
}

#[on_failure(function = "later", retries = 1)]
async fn later(State(calls): State<Calls>) -> Result<(), HandlerError> {
    match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(no_more(1).retry_after(Duration::from_secs(3600))?),
        _ => Ok(()),
    }
}

#[on_failure(function = "slow", retries = 1, timeout = "30s")]
async fn slow(State(calls): State<Calls>) {
    calls.fetch_add(1, Ordering::SeqCst);
    std::future::pending::<()>().await;
}

#[on_failure(function = "panics", retries = 1)]
async fn panics(State(calls): State<Calls>) {
    calls.fetch_add(1, Ordering::SeqCst);
    tokio::task::yield_now().await;
    panic!("the card reader is on fire");
}

/// Runs one of the handlers above; returns its run, its calls, and how long it took in Tokio's time.
async fn run(function: &str) -> (HandlerRun, u32, Duration) {
    let calls = Calls::default();
    let dispatcher = builder()
        .register(handlers![third_time, never, by_default, once, hopeless, later, slow, panics])
        .state(Arc::clone(&calls))
        .backoff(Backoff::new().first(Duration::from_secs(1)).max(Duration::from_secs(4)))
        .build()
        .unwrap();
    let started = Instant::now();
    let mut dispatch = dispatcher.dispatch(failed(&format!("shop-{function}"), json!({}))).await;
    assert_eq!(dispatch.runs.len(), 1);
    let run = dispatch.runs.remove(0);
    (run, calls.load(Ordering::SeqCst), started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_tried_again_until_it_succeeds() {
    let (run, calls, waited) = run("third-time").await;
    assert_eq!(run.result.unwrap(), 2);
    assert_eq!((run.attempts, calls), (3, 3));
    // Two waits of one and two seconds, each with up to as much jitter on top.
    assert!((3.0..=6.1).contains(&waited.as_secs_f64()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn retries_are_used_up() {
    let (run, calls, _) = run("never").await;
    assert_eq!((run.attempts, calls), (3, 3));
    let RunError::Failed(error) = run.result.unwrap_err() else { panic!("another error") };
    assert_eq!(error.to_string(), "not yet");
}

#[tokio::test(start_paused = true)]
async fn there_are_three_retries_by_default_and_may_be_none() {
    assert_eq!(run("by-default").await.1, 4);
    let (run, calls, waited) = run("once").await;
    assert_eq!((run.attempts, calls, waited), (1, 1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_non_retriable_error_is_final() {
    let (run, calls, waited) = run("hopeless").await;
    assert_eq!((run.attempts, calls, waited), (1, 1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn an_error_says_when_to_come_back() {
    let (run, calls, waited) = run("later").await;
    assert!(run.result.is_ok());
    assert_eq!(calls, 2);
    assert_eq!(waited.as_secs(), 3600);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_a_failed_attempt() {
    let (run, calls, waited) = run("slow").await;
    assert!(matches!(run.result, Err(RunError::TimedOut)), "{run:?}");
    assert_eq!((run.attempts, calls), (2, 2));
    assert!(waited >= Duration::from_secs(60), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt_with_message_and_place() {
    let (run, calls, _) = run("panics").await;
    assert_eq!((run.attempts, calls), (2, 2));
    let RunError::Panicked { message, location } = run.result.unwrap_err() else {
        panic!("another error")
    };
    assert_eq!(message, "the card reader is on fire");
    assert!(location.starts_with("tests/integration/attempts.rs:"), "{location}");
}
