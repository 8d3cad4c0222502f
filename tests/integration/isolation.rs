//! One handler's error, panic or time-out never touches another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use inngest_failure::{HandlerError, RunError, State, handlers, on_failure};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::{builder, failed};

#[on_failure(function = "mixed", id = "a-succeeds")]
async fn succeeds() -> Result<&'static str, HandlerError> {
    Ok("fine")
}

#[on_failure(function = "mixed", id = "b-fails", retries = 0)]
async fn fails() -> Result<(), &'static str> {
    Err("no")
}

#[on_failure(function = "mixed", id = "c-panics", retries = 0)]
async fn panics() {
    let empty: Vec<u32> = Vec::new();
    let _ = empty[std::hint::black_box(7)];
}

#[on_failure(function = "mixed", id = "d-hangs", retries = 0, timeout = "1s")]
async fn hangs() {
    std::future::pending::<()>().await;
}

#[on_failure(function = "mixed", id = "e-plain", retries = 0)]
fn plain() {}

#[on_failure(function = "mixed", id = "f-unserializable", retries = 3)]
async fn unserializable() -> Result<std::collections::HashMap<(u8, u8), u8>, HandlerError> {
    Ok([((1, 2), 3)].into())
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("even its destructor panics");
    }
}

#[on_failure(function = "mixed", id = "g-drop", retries = 0, timeout = "1s")]
async fn panics_when_dropped() {
    let _value = PanicsWhenDropped;
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn each_handler_gets_its_own_outcome() {
    let dispatcher = builder()
        .register(handlers![
            succeeds,
            fails,
            panics,
            hangs,
            plain,
            unserializable,
            panics_when_dropped
        ])
        .build()
        .unwrap();
    let dispatch = dispatcher.dispatch(failed("shop-mixed", json!({}))).await;
    assert!(!dispatch.is_ok() && !dispatch.is_unhandled());
    let outcomes: Vec<(&str, String)> = dispatch
        .runs
        .iter()
        .map(|run| {
            (
                &*run.handler_id,
                match &run.result {
                    Ok(value) => value.to_string(),
                    Err(error) => error.to_string(),
                },
            )
        })
        .collect();
    let place = match &dispatch.runs[2].result {
        Err(RunError::Panicked { location, .. }) => location.clone(),
        other => panic!("{other:?}"),
    };
    assert!(place.starts_with("tests/integration/isolation.rs:"), "{place}");
    assert_eq!(
        outcomes,
        [
            ("a-succeeds", "\"fine\"".to_owned()),
            ("b-fails", "no".to_owned()),
            (
                "c-panics",
                format!(
                    "panicked at {place}: index out of bounds: the len is 0 but the index is 7"
                )
            ),
            ("d-hangs", "timed out".to_owned()),
            ("e-plain", "null".to_owned()),
            (
                "f-unserializable",
                "what the handler returned can't be written as JSON: key must be a string"
                    .to_owned()
            ),
            ("g-drop", "timed out".to_owned()),
        ]
    );
    assert_eq!(dispatch.runs[5].attempts, 1, "the same value will not serialize the next time");
}

#[on_failure(function = "together", id = "left")]
async fn left(State(barrier): State<Arc<Barrier>>) {
    barrier.wait().await;
}

#[on_failure(function = "together", id = "right")]
async fn right(State(barrier): State<Arc<Barrier>>) {
    barrier.wait().await;
}

#[tokio::test]
async fn handlers_of_one_failure_run_at_the_same_time() {
    let dispatcher = builder()
        .register(handlers![left, right])
        .state(Arc::new(Barrier::new(2)))
        .build()
        .unwrap();
    let dispatch = dispatcher.dispatch(failed("shop-together", json!({}))).await;
    assert!(dispatch.is_ok());
}

#[derive(Clone, Default)]
struct Count {
    running: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
    dropped: Arc<AtomicU32>,
}

struct Running(Count);

impl Running {
    fn start(count: &Count) -> Self {
        let running = count.running.fetch_add(1, Ordering::SeqCst) + 1;
        count.most.fetch_max(running, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

#[on_failure(function = "limited", concurrency = 3)]
async fn limited(State(count): State<Count>) {
    let _running = Running::start(&count);
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_a_limit_over_all_dispatches() {
    let count = Count::default();
    let dispatcher = builder().register(handlers![limited]).state(count.clone()).build().unwrap();
    let dispatches = (0..20).map(|_| {
        let dispatcher = dispatcher.clone();
        tokio::spawn(async move { dispatcher.dispatch(failed("shop-limited", json!({}))).await })
    });
    for dispatch in dispatches.collect::<Vec<_>>() {
        assert!(dispatch.await.unwrap().is_ok());
    }
    assert_eq!(count.most.load(Ordering::SeqCst), 3);
    assert_eq!(count.dropped.load(Ordering::SeqCst), 20);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_dispatch_leaves_no_handler_running() {
    let count = Count::default();
    let dispatcher = builder().register(handlers![limited]).state(count.clone()).build().unwrap();
    let dispatch = dispatcher.dispatch(failed("shop-limited", Value::Null));
    let wait = Duration::from_millis(1);
    assert!(tokio::time::timeout(wait, dispatch).await.is_err());
    assert_eq!(count.dropped.load(Ordering::SeqCst), 1);
    // Its permit is free again.
    for _ in 0..3 {
        assert!(dispatcher.dispatch(failed("shop-limited", Value::Null)).await.is_ok());
    }
}

#[derive(Debug)]
struct Unshowable;

impl std::fmt::Display for Unshowable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no text for this")
    }
}

impl std::error::Error for Unshowable {}

#[on_failure(function = "rude", id = "rude-error", retries = 0)]
async fn rude_error() -> Result<(), Unshowable> {
    Err(Unshowable)
}

#[derive(Debug)]
struct Ungrateful;

impl std::fmt::Display for Ungrateful {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ungrateful")
    }
}

impl std::error::Error for Ungrateful {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        panic!("no cause for this")
    }
}

impl Drop for Ungrateful {
    fn drop(&mut self) {
        panic!("no end for this");
    }
}

#[on_failure(function = "rude", id = "rude-drop", retries = 1)]
async fn rude_drop(run: inngest_failure::RunContext) -> Result<&'static str, Ungrateful> {
    if run.is_last_attempt() { Ok("survived") } else { Err(Ungrateful) }
}

#[on_failure(function = "rude", id = "rude-panic", retries = 0)]
async fn rude_panic() {
    std::panic::panic_any(PanicsWhenDropped);
}

#[on_failure(function = "rude", id = "rude-plain", retries = 0)]
fn rude_plain() {
    std::panic::panic_any(PanicsWhenDropped);
}

#[tokio::test(start_paused = true)]
async fn errors_and_panics_that_panic_themselves_stay_with_their_handler() {
    let dispatcher = builder()
        .register(handlers![rude_drop, rude_error, rude_panic, rude_plain])
        .build()
        .unwrap();
    let mut dispatch = dispatcher.dispatch(failed("shop-rude", json!({}))).await;
    assert_eq!(*dispatch.runs.remove(0).result.as_ref().unwrap(), "survived");
    assert!(matches!(dispatch.runs[0].result, Err(RunError::Failed(_))));
    assert!(matches!(dispatch.runs[2].result, Err(RunError::Panicked { .. })));
    let Err(RunError::Panicked { message, .. }) = &dispatch.runs[1].result else {
        panic!("no panic")
    };
    assert_eq!(message, "a panic whose payload is not a text");
}
