//! Plain functions, on the blocking pool.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use inngest_failure::{Backoff, Failure, HandlerError, RunError, State, handlers, on_failure};
use serde_json::json;
use tests::Log;

use crate::{builder, failed};

#[on_failure(function = "plain", retries = 0)]
fn plain(failure: Failure) -> Result<String, HandlerError> {
    let thread = thread::current();
    Ok(format!("{} on {}", failure.error, thread.name().unwrap_or("an unnamed thread")))
}

#[on_failure(function = "plain-panics", retries = 0)]
fn plain_panics() {
    panic!("no such card");
}

/// What the handlers below wait for and leave behind.
#[derive(Clone)]
struct Gate {
    open: Arc<Mutex<mpsc::Receiver<()>>>,
    running: Arc<AtomicU32>,
    most: Arc<AtomicU32>,
    calls: Arc<AtomicU32>,
    ended: Arc<AtomicBool>,
}

impl Gate {
    fn new() -> (Self, mpsc::Sender<()>) {
        let (sender, receiver) = mpsc::channel();
        let gate = Self {
            open: Arc::new(Mutex::new(receiver)),
            running: Arc::default(),
            most: Arc::default(),
            calls: Arc::default(),
            ended: Arc::default(),
        };
        (gate, sender)
    }

    /// The first call waits until the gate is opened.
    fn pass(&self) {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.open.lock().unwrap().recv().unwrap();
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.ended.store(true, Ordering::SeqCst);
    }
}

#[on_failure(function = "gated", retries = 1, timeout = "50ms", concurrency = 1)]
fn gated(State(gate): State<Gate>) {
    gate.pass();
}

#[tokio::test]
async fn a_plain_function_runs_on_the_blocking_pool() {
    let dispatcher = builder().register(handlers![plain]).build().unwrap();
    let dispatch = dispatcher.dispatch(failed("shop-plain", json!({}))).await;
    let thread = thread::current();
    let returned = dispatch.runs[0].result.as_ref().unwrap().as_str().unwrap();
    assert!(returned.starts_with("card declined on "), "{returned}");
    assert!(!returned.ends_with(thread.name().unwrap()), "{returned}");
}

#[tokio::test]
async fn its_panic_is_caught_with_its_place() {
    let dispatcher = builder().register(handlers![plain_panics]).build().unwrap();
    let dispatch = dispatcher.dispatch(failed("shop-plain-panics", json!({}))).await;
    let Err(RunError::Panicked { message, location }) = &dispatch.runs[0].result else {
        panic!("{dispatch:?}")
    };
    assert_eq!(message, "no such card");
    assert!(location.starts_with("tests/integration/blocking.rs:"), "{location}");
}

#[tokio::test]
async fn the_next_attempt_starts_only_after_one_whose_time_was_over_has_returned() {
    let (gate, open) = Gate::new();
    let dispatcher = builder()
        .register(handlers![gated])
        .state(gate.clone())
        .backoff(Backoff::new().first(Duration::from_millis(1)))
        .build()
        .unwrap();
    let dispatching = tokio::spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.dispatch(failed("shop-gated", json!({}))).await }
    });
    // Long after the time is over and the backoff with it, the first call still runs alone.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!dispatching.is_finished());
    assert_eq!(gate.calls.load(Ordering::SeqCst), 1);
    open.send(()).unwrap();
    let dispatch = dispatching.await.unwrap();
    assert!(dispatch.is_ok(), "{dispatch:?}");
    assert_eq!(dispatch.runs[0].attempts, 2);
    assert_eq!((gate.calls.load(Ordering::SeqCst), gate.most.load(Ordering::SeqCst)), (2, 1));
}

#[tokio::test]
async fn one_that_was_given_up_runs_to_its_end_and_holds_its_permit() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let (gate, open) = Gate::new();
    let dispatcher = builder().register(handlers![gated]).state(gate.clone()).build().unwrap();
    {
        let mut dispatching = Box::pin(dispatcher.dispatch(failed("shop-gated", json!({}))));
        while gate.calls.load(Ordering::SeqCst) == 0 {
            let wait = Duration::from_millis(1);
            assert!(tokio::time::timeout(wait, &mut dispatching).await.is_err(), "it is gated");
        }
    }
    assert!(log.text().contains("a plain `fn` can't be stopped"), "{}", log.text());

    // A second dispatch gets no permit while the first call runs.
    let mut second = Box::pin(dispatcher.dispatch(failed("shop-gated", json!({}))));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut second).await.is_err());
    assert_eq!(gate.calls.load(Ordering::SeqCst), 1);
    assert!(!gate.ended.load(Ordering::SeqCst));

    open.send(()).unwrap();
    assert!(second.await.is_ok());
    assert_eq!((gate.calls.load(Ordering::SeqCst), gate.most.load(Ordering::SeqCst)), (2, 1));
}
