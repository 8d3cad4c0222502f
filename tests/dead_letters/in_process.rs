//! In process: which failures leave a letter, and what is in it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use inngest_failure::{
    BoxError, BoxFuture, DeadLetter, DeadLetters, Dispatcher, DispatcherBuilder, Failure,
    FailureEvent, HandlerError, NonRetriable, RunContext, RunError, Step, handlers, on_failure,
};
use serde_json::{Value, json};
use tests::{Log, recorded_event};
use tokio::sync::Semaphore;

use crate::{Broken, Kept, Outcome, PANIC, builder, event, logged};

#[derive(Debug)]
struct BankError(std::io::Error);

impl std::fmt::Display for BankError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the bank can't be reached")
    }
}

impl std::error::Error for BankError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[on_failure(function = "*", id = "fails", retries = 2)]
async fn fails() -> Result<(), BankError> {
    Err(BankError(std::io::Error::other("refused")))
}

#[on_failure(function = "checkout", id = "final", retries = 5)]
async fn fails_at_once() -> Result<(), NonRetriable> {
    Err(NonRetriable::new("no such card"))
}

#[on_failure(function = "checkout", id = "panics", retries = 1)]
async fn panics() {
    panic!("{PANIC}");
}

#[on_failure(function = "checkout", id = "slow", retries = 1, timeout = "5ms")]
async fn slow() {
    std::future::pending::<()>().await;
}

#[on_failure(function = "checkout", id = "plain", retries = 1)]
fn plain() -> Outcome {
    Err("plain".into())
}

#[on_failure(function = "checkout", id = "typed", retries = 3)]
async fn typed(_: Failure<u8>) {}

#[on_failure(function = "checkout", id = "steps", retries = 2)]
async fn steps(step: Step, run: RunContext) -> Outcome {
    let ok = async |value: Value| Ok::<_, HandlerError>(value);
    step.run("find", || ok(json!({ "cents": 1250 }))).await?;
    for i in 0..2 {
        step.run("item", || ok(json!(i))).await?;
    }
    step.sleep("settle", Duration::from_millis(1)).await?;
    let broken = step.run("broken", async || Outcome::<()>::Err("broken".into())).await;
    assert!(broken.is_err());
    Err(format!("outside, attempt {}", run.attempt).into())
}

#[on_failure(function = "checkout", id = "step-fails", retries = 1)]
async fn step_fails(step: Step) -> Outcome {
    step.run("first", async || Ok::<_, HandlerError>(1)).await?;
    step.run("second", async || Outcome::<()>::Err("it is closed".into())).await?;
    Ok(())
}

/// The letter of a handler's failure, and what was reported.
async fn letter(builder: DispatcherBuilder, event: FailureEvent) -> (DeadLetter, RunError, u32) {
    let kept = Kept::default();
    let dispatcher = builder.dead_letters(kept.clone()).build().unwrap();
    let mut report = dispatcher.dispatch(event.clone()).await;
    let run = report.runs.remove(0);
    let letter = kept.one();
    assert_eq!(letter.handler_id, run.handler_id);
    assert_eq!(letter.event.raw().get(), event.raw().get());
    assert_eq!(letter.key(), (run.handler_id.as_str(), event.id()));
    (letter, run.result.unwrap_err(), run.attempts)
}

#[tokio::test]
async fn a_letter_has_all_that_is_known_of_recorded_failures() {
    for path in tests::recordings(&["function_failed", "function_cancelled"]) {
        let event = FailureEvent::try_from(recorded_event(&path)).unwrap();
        let kept = Kept::default();
        let builder = builder().register(handlers![all]).dead_letters(kept.clone());
        let before = SystemTime::now();
        builder.build().unwrap().dispatch(event.clone()).await;
        let after = SystemTime::now();
        let letter = kept.one();
        assert_eq!(letter.handler_id, "all");
        assert!(!letter.is_unhandled());
        assert_eq!(letter.event.raw().get(), event.raw().get());
        assert_eq!(letter.event_id(), event.id());
        assert_eq!(letter.error.name, "Error");
        assert_eq!(letter.error.message, "the bank can't be reached");
        let cause = letter.error.cause.as_deref().unwrap();
        assert_eq!((cause.name.as_str(), cause.message.as_str()), ("Error", "refused"));
        assert!(cause.cause.is_none());
        assert_eq!(letter.attempts, Some(3));
        assert!(before <= letter.failed_at && letter.failed_at <= after);
        assert!(letter.steps.is_empty());

        let json = serde_json::to_value(&letter).unwrap();
        assert_eq!(json["event"], recorded_event(&path), "{path}");
        assert_eq!(json["event_id"], event.id());
        assert_eq!(json["function_id"], event.function_id());
        assert_eq!(json["run_id"], event.run_id());
        let read: DeadLetter = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), json);
        assert_eq!(read.key(), letter.key());
    }
}

#[on_failure(function = "*", id = "all", cancelled, retries = 2)]
async fn all() -> Result<(), BankError> {
    fails().await
}

#[tokio::test]
async fn every_way_to_fail_for_good_leaves_one_letter() {
    let one = async |builder: DispatcherBuilder| {
        let (letter, error, attempts) = letter(builder, event("shop-checkout")).await;
        assert_eq!(letter.attempts, Some(attempts));
        let made = (letter.error.name.clone(), letter.error.message.clone(), attempts);
        (made, error, letter)
    };
    let is = |name: &str, message: &str, attempts| (name.to_owned(), message.to_owned(), attempts);

    let (made, error, _) = one(builder().register(handlers![fails_at_once])).await;
    assert_eq!(made, is("Error", "no such card", 1));
    assert!(matches!(error, RunError::Failed(_)));

    let (made, error, letter) = one(builder().register(handlers![panics])).await;
    assert_eq!(made.2, 2);
    assert!(made.1.contains(PANIC), "{made:?}");
    let place = letter.error.stack.unwrap();
    assert!(place.contains("tests/dead_letters/in_process.rs:"), "{place}");
    assert!(matches!(error, RunError::Panicked { .. }));

    let (made, error, _) = one(builder().register(handlers![slow])).await;
    assert_eq!(made, is("TimedOut", "the handler took longer than its `timeout`", 2));
    assert!(matches!(error, RunError::TimedOut));

    let (made, _, _) = one(builder().register(handlers![plain])).await;
    assert_eq!(made, is("Error", "plain", 2));

    let (made, error, _) = one(builder().register(handlers![typed])).await;
    assert_eq!((made.0.as_str(), made.2), ("ParseError", 1));
    assert!(made.1.contains("at `data.event.data`"), "{made:?}");
    assert!(matches!(error, RunError::Payload(_)));
}

#[tokio::test]
async fn a_letter_has_the_steps_that_had_completed_in_their_order() {
    let (letter, _, _) = letter(builder().register(handlers![steps]), event("shop-checkout")).await;
    // Each step that completes gives the code after it its retries anew.
    assert_eq!(letter.error.message, "outside, attempt 2");
    let steps: Vec<(&str, &str)> = letter
        .steps
        .iter()
        .map(|step| (step.name.as_deref().unwrap(), step.output.get()))
        .collect();
    assert_eq!(
        steps,
        [("find", r#"{"cents":1250}"#), ("item", "0"), ("item:1", "1"), ("settle", "null")]
    );
    for step in &letter.steps {
        let hash = sha1_smol::Sha1::from(step.name.as_deref().unwrap()).digest().to_string();
        assert_eq!(step.step_id, hash);
    }
    let shown = format!("{letter:?}");
    assert!(shown.contains("find") && !shown.contains("1250"), "{shown}");

    let (letter, _, attempts) =
        self::letter(builder().register(handlers![step_fails]), event("shop-checkout")).await;
    assert_eq!(letter.attempts, Some(attempts));
    // That a step has failed the handler is seen in the error: the step's own.
    assert!(letter.error.to_string().contains("it is closed"), "{}", letter.error);
    let names: Vec<_> = letter.steps.iter().map(|step| step.name.as_deref()).collect();
    assert_eq!(names, [Some("first")]);
}

#[on_failure(function = "checkout", id = "limited", rate_limit = "1/1h", retries = 1)]
async fn limited() {}

#[on_failure(function = "checkout", id = "recovers", retries = 1)]
async fn recovers(step: Step) -> Outcome<String> {
    let failed = step.run("refund", async || Outcome::<()>::Err("closed".into())).await;
    Ok(failed.unwrap_err().message)
}

#[on_failure(function = "checkout", id = "second", retries = 1)]
async fn succeeds_at_last(run: RunContext) -> Outcome {
    match run.attempt {
        0 => Err("not yet".into()),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn what_has_not_failed_for_good_leaves_no_letter() {
    let kept = Kept::default();
    let builder = builder().register(handlers![limited, recovers, succeeds_at_last]);
    let dispatcher = builder.dead_letters(kept.clone()).build().unwrap();
    assert!(dispatcher.dispatch(event("shop-checkout")).await.is_ok());
    kept.none();
    let report = dispatcher.dispatch(event("shop-checkout")).await;
    assert!(matches!(report.runs[0].result, Err(RunError::RateLimited)));
    assert_eq!(report.runs[1].result.as_ref().unwrap(), "closed");
    assert_eq!(report.runs[2].attempts, 2);
    kept.none();
    // Nothing that can be read, nothing that can be kept.
    assert!(dispatcher.dispatch_json(b"{}").await.is_err());
    kept.none();
}

#[tokio::test]
async fn each_handler_leaves_its_own() {
    let kept = Kept::default();
    let builder = builder().register(handlers![fails, fails_at_once, succeeds_at_last, steps]);
    let dispatcher = builder.dead_letters(kept.clone()).build().unwrap();
    dispatcher.dispatch(event("shop-checkout")).await;
    let mut ids: Vec<String> = kept.take().into_iter().map(|letter| letter.handler_id).collect();
    ids.sort();
    assert_eq!(ids, ["fails", "final", "steps"]);
}

#[tokio::test]
async fn unhandled_failures_leave_a_letter_if_that_was_asked_for() {
    let kept = Kept::default();
    let builder = || builder().register(handlers![plain, watch]).dead_letters(kept.clone());
    let dispatcher = builder().build().unwrap();
    assert!(dispatcher.dispatch(event("shop-other")).await.is_unhandled());
    kept.none();

    let dispatcher = builder().dead_letter_unhandled().build().unwrap();
    let report = dispatcher.dispatch(event("shop-other")).await;
    assert!(report.is_unhandled() && report.runs.len() == 1);
    let letter = kept.one();
    assert!(letter.is_unhandled());
    assert_eq!(letter.handler_id, DeadLetter::UNHANDLED);
    assert_eq!(letter.error.name, "Unhandled");
    assert_eq!((letter.attempts, letter.steps.len()), (Some(0), 0));
    assert_eq!(letter.event.function_id(), "shop-other");

    // Handled, well or not.
    dispatcher.dispatch(event("shop-checkout")).await;
    assert_eq!(kept.one().handler_id, "plain");
}

#[on_failure(function = "*", id = "watch")]
async fn watch() {}

#[tokio::test]
async fn every_sink_has_the_letter_also_after_one_that_fails() {
    let (first, second) = (Kept::default(), Arc::new(Kept::default()));
    let builder = builder().register(handlers![fails]).dead_letters(first.clone());
    let builder = builder.dead_letters(Broken::Panics).dead_letters(Broken::Refuses);
    let dispatcher = builder.dead_letters(Arc::clone(&second)).build().unwrap();
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    dispatcher.dispatch(event("shop-checkout")).await;
    assert_eq!(first.one().key(), second.one().key());
    assert_eq!(logged(&log.text()).len(), 2, "{}", log.text());
}

/// Takes letters only when it is let.
struct Slow {
    let_in: Arc<Semaphore>,
    kept: Kept,
}

impl DeadLetters for Slow {
    fn put<'a>(&'a self, letter: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async {
            self.let_in.acquire().await?.forget();
            self.kept.put(letter).await
        })
    }
}

fn slowly(unhandled: bool) -> (Arc<Semaphore>, Kept, Dispatcher) {
    let (let_in, kept) = (Arc::new(Semaphore::new(0)), Kept::default());
    let sink = Slow { let_in: Arc::clone(&let_in), kept: kept.clone() };
    let mut builder = builder().register(handlers![plain, steps]).dead_letters(sink);
    if unhandled {
        builder = builder.dead_letter_unhandled();
    }
    (let_in, kept, builder.build().unwrap())
}

#[tokio::test]
async fn the_letter_is_there_before_the_dispatch_returns() {
    for function in ["shop-checkout", "shop-other"] {
        let (let_in, kept, dispatcher) = slowly(true);
        let mut dispatch = Box::pin(dispatcher.dispatch(event(function)));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut dispatch).await;
        assert!(early.is_err(), "{function}");
        kept.none();
        let_in.add_permits(2);
        dispatch.await;
        assert!(!kept.take().is_empty(), "{function}");
    }
}

#[tokio::test]
async fn a_letter_that_is_dropped_while_it_is_put_goes_to_the_log() {
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    let (_let_in, kept, dispatcher) = slowly(false);
    let dispatch = dispatcher.dispatch(event("shop-checkout"));
    assert!(tokio::time::timeout(Duration::from_millis(100), dispatch).await.is_err());
    kept.none();
    let mut letters = logged(&log.text());
    letters.sort_by(|(_, a), (_, b)| a.handler_id.cmp(&b.handler_id));
    assert_eq!(letters.len(), 2, "{}", log.text());
    for (reason, _) in &letters {
        assert_eq!(reason, "it was dropped with its dispatch while it was put");
    }
    assert_eq!(letters[0].1.handler_id, "plain");
    assert_eq!(letters[1].1.steps.len(), 4);
    assert_eq!(letters[1].1.event.raw().get(), event("shop-checkout").raw().get());
}

#[on_failure(function = "checkout", id = "endless", retries = 0)]
async fn endless() {
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_handler_that_is_dropped_has_not_failed() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let kept = Kept::default();
    let builder = builder().register(handlers![endless]).dead_letters(kept.clone());
    let dispatcher = builder.build().unwrap();
    let dispatch = dispatcher.dispatch(event("shop-checkout"));
    assert!(tokio::time::timeout(Duration::from_millis(10), dispatch).await.is_err());
    kept.none();
    let log = log.text();
    assert!(log.contains("handler was dropped with its dispatch") && logged(&log).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_hides_nothing() {
    for sink in Broken::ALL {
        let (log, _guard) = Log::start(tracing::Level::ERROR);
        let builder = builder().register(handlers![steps]).dead_letters(sink);
        let report = builder.build().unwrap().dispatch(event("shop-checkout")).await;
        let error = report.runs[0].result.as_ref().unwrap_err().to_string();
        assert_eq!(error, "outside, attempt 2", "{sink:?}");
        let letters = logged(&log.text());
        let [(reason, letter)] = letters.as_slice() else { panic!("{sink:?}: {}", log.text()) };
        assert!(reason.starts_with(sink.reason()), "{sink:?}: {reason}");
        assert_eq!(letter.steps.len(), 4);
        assert_eq!(letter.key(), ("steps", event("shop-checkout").id()));
    }
}

#[test]
fn without_a_runtime_the_letter_goes_to_the_log() {
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    let builder = builder().register(handlers![fails_at_once]).dead_letters(Kept::default());
    let dispatcher = builder.build().unwrap();
    let report = futures_util::FutureExt::now_or_never(dispatcher.dispatch(event("shop-checkout")));
    assert!(!report.unwrap().is_ok());
    let letters = logged(&log.text());
    assert_eq!(letters[0].1.error.message, "no such card");
}

#[derive(Debug)]
struct Nested(Option<Box<Nested>>);

impl std::fmt::Display for Nested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nested")
    }
}

impl std::error::Error for Nested {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|inner| &**inner as _)
    }
}

#[on_failure(function = "checkout", id = "deep", retries = 0)]
async fn deep() -> Result<(), Nested> {
    Err((0..500).fold(Nested(None), |inner, _| Nested(Some(Box::new(inner)))))
}

#[tokio::test]
async fn a_letter_with_an_endless_chain_of_causes_can_be_read_back() {
    let (letter, _, _) = letter(builder().register(handlers![deep]), event("shop-checkout")).await;
    let json = serde_json::to_string(&letter).unwrap();
    let read: DeadLetter = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
}
