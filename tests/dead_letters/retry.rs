//! A handler that is tried again from its letter.

use std::time::Duration;

use inngest_failure::{
    BoxFuture, DeadLetter, DispatcherBuilder, Failure, FailureEvent, HandlerError, Rollback,
    RunContext, RunTrace, State, Step, StepOutput, TraceError, TraceSource, Wait, handlers,
    on_failure,
    testing::{TestRun, failure},
};
use serde_json::{Value, json};

use crate::{Kept, Outcome, Seen, builder, event};

/// What the world is like: whether the bank is open.
#[derive(Clone, Default)]
struct Bank(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Bank {
    fn open(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    fn ask(&self) -> Outcome {
        match self.0.load(std::sync::atomic::Ordering::Relaxed) {
            true => Ok(()),
            false => Err("the bank is closed".into()),
        }
    }
}

#[on_failure(function = "checkout", retries = 1)]
async fn undo(step: Step, State(seen): State<Seen>, State(bank): State<Bank>) -> Outcome<Value> {
    let mut units = 0;
    for shelf in [3, 4] {
        units += step
            .run("item", async || {
                seen.note(format!("item {shelf}"));
                Ok::<_, HandlerError>(shelf)
            })
            .await?;
    }
    step.sleep("settle", Duration::from_millis(1)).await?;
    step.run("refund", async || {
        seen.note("refund");
        bank.ask()
    })
    .await?;
    step.run("item", async || {
        seen.note("last item");
        Ok::<_, HandlerError>(())
    })
    .await?;
    Ok(json!(units))
}

#[on_failure(function = "checkout", id = "other", retries = 0)]
async fn other(State(seen): State<Seen>) -> Outcome {
    seen.note("other");
    Err("other".into())
}

struct World {
    seen: Seen,
    bank: Bank,
    kept: Kept,
}

fn world() -> (World, DispatcherBuilder) {
    let world = World { seen: Seen::default(), bank: Bank::default(), kept: Kept::default() };
    let builder = builder().state(world.seen.clone()).state(world.bank.clone());
    let builder = builder.dead_letters(world.kept.clone());
    (world, builder)
}

/// Through its text, as it would come from a file.
fn through_text(letter: &DeadLetter) -> DeadLetter {
    serde_json::from_str(&serde_json::to_string(letter).unwrap()).unwrap()
}

fn of<'a>(letters: &'a [DeadLetter], handler_id: &str) -> &'a DeadLetter {
    letters.iter().find(|letter| letter.handler_id == handler_id).expect("its letter")
}

#[tokio::test]
async fn completed_steps_do_not_run_again_and_no_other_handler_runs() {
    let (World { seen, bank, kept }, builder) = world();
    let dispatcher = builder.register(handlers![undo, other]).build().unwrap();
    dispatcher.dispatch(event("shop-checkout")).await;
    let mut did = seen.take();
    did.sort();
    assert_eq!(did, ["item 3", "item 4", "other", "refund", "refund"]);
    let letters = kept.take();
    let letter = through_text(of(&letters, "shop-checkout-failure"));

    // The bank is closed still: another letter of the same key, which knows as much.
    let report = dispatcher.retry(&letter).await.unwrap();
    assert_eq!(report.runs.len(), 1);
    assert_eq!(seen.take(), ["refund", "refund"]);
    let again = kept.one();
    assert_eq!(again.key(), letter.key());
    let ids = |letter: &DeadLetter| -> Vec<(String, String)> {
        letter.steps.iter().map(|step| (step.step_id.clone(), step.output.to_string())).collect()
    };
    assert_eq!(ids(&again), ids(&letter));
    assert_eq!(ids(&again).len(), 3);

    bank.open();
    for letter in [&letter, &through_text(&again)] {
        let report = dispatcher.retry(letter).await.unwrap();
        assert_eq!(report.runs.len(), 1);
        assert_eq!(report.runs[0].handler_id, "shop-checkout-failure");
        assert_eq!(report.runs[0].result.as_ref().unwrap(), 7);
        assert_eq!(seen.take(), ["refund", "last item"]);
        kept.none();
    }
}

/// Comes to its steps only after it was tried again.
#[on_failure(function = "checkout", id = "late", retries = 0)]
async fn late(step: Step, State(seen): State<Seen>, State(bank): State<Bank>) -> Outcome {
    bank.ask()?;
    step.run("first", async || {
        seen.note("first");
        Ok::<_, HandlerError>(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn steps_that_were_not_met_again_are_in_the_next_letter_too() {
    let (World { seen, bank, kept }, builder) = world();
    let dispatcher = builder.register(handlers![late]).build().unwrap();
    bank.open();
    let mut json = serde_json::to_value(letter_of("late")).unwrap();
    let hash = sha1_smol::Sha1::from("first").digest().to_string();
    json["steps"] = json!([{ "step_id": hash, "output": null }]);
    let letter: DeadLetter = serde_json::from_value(json).unwrap();
    bank.0.store(false, std::sync::atomic::Ordering::Relaxed);
    dispatcher.retry(&letter).await.unwrap();
    let again = kept.one();
    assert_eq!(again.steps.len(), 1);
    assert_eq!((again.steps[0].step_id.as_str(), &again.steps[0].name), (hash.as_str(), &None));
    bank.open();
    assert!(dispatcher.retry(&through_text(&again)).await.unwrap().is_ok());
    assert!(seen.take().is_empty());
}

/// A letter of a handler, as somebody may write one by hand.
fn letter_of(handler_id: &str) -> DeadLetter {
    let event: Value = serde_json::from_str(event("shop-checkout").raw().get()).unwrap();
    let letter = json!({
        "handler_id": handler_id, "failed_at": "2026-11-22T20:13:03Z", "event": event,
        "error": { "name": "Error", "message": "closed" },
    });
    serde_json::from_value(letter).unwrap()
}

#[tokio::test]
async fn a_letter_of_an_unknown_handler_names_the_nearest() {
    let (World { seen, .. }, builder) = world();
    let dispatcher = builder.register(handlers![undo, other]).build().unwrap();
    let error = dispatcher.retry(&letter_of("shop-chekout-failure")).await.unwrap_err();
    assert_eq!(error.handler_id, "shop-chekout-failure");
    assert_eq!(
        error.to_string(),
        "there is no handler `shop-chekout-failure`; the nearest is `shop-checkout-failure`: was it renamed?"
    );
    let error = dispatcher.retry(&letter_of("entirely-different")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no handler `entirely-different`; put it back, or give another one its `id`"
    );
    assert!(seen.take().is_empty());
}

#[on_failure(function = "unrelated", id = "renamed")]
async fn renamed(failure: Failure, State(seen): State<Seen>) {
    seen.note(failure.function_id);
}

#[tokio::test]
async fn a_handler_is_tried_again_whatever_its_selector() {
    let (World { seen, .. }, builder) = world();
    let dispatcher = builder.register(handlers![renamed, other]).build().unwrap();
    let report = dispatcher.retry(&letter_of("renamed")).await.unwrap();
    assert!(report.is_ok() && !report.is_unhandled() && report.runs.len() == 1);
    assert_eq!(seen.take(), ["shop-checkout"]);
}

#[tokio::test]
async fn an_unhandled_failure_is_dispatched_again() {
    let (World { seen, kept, .. }, builder) = world();
    let dispatcher = builder.register(handlers![renamed]).dead_letter_unhandled().build().unwrap();
    dispatcher.dispatch(event("shop-checkout")).await;
    let letter = through_text(&kept.one());
    let report = dispatcher.retry(&letter).await.unwrap();
    assert!(report.is_unhandled());
    // The same letter as before.
    assert_eq!(kept.one().key(), letter.key());

    let (World { seen: now, kept, .. }, builder) = world();
    let dispatcher = builder.register(handlers![other]).dead_letter_unhandled().build().unwrap();
    let report = dispatcher.retry(&letter).await.unwrap();
    assert!(!report.is_unhandled());
    assert_eq!((seen.take().len(), now.take()), (0, vec!["other".to_owned()]));
    assert_eq!(kept.one().handler_id, "other");
}

#[on_failure(function = "sell", step = "reserve-stock", retries = 0)]
async fn release(reserved: StepOutput<String>, State(seen): State<Seen>) -> Outcome {
    seen.note(format!("release {}", *reserved));
    Ok(())
}

/// With steps of its own.
#[on_failure(function = "sell", step = "charge-card", retries = 1)]
async fn refund(
    charge: StepOutput<u32>,
    step: Step,
    State(seen): State<Seen>,
    State(bank): State<Bank>,
) -> Outcome<u32> {
    step.run("ask", async || {
        seen.note(format!("ask {}", *charge));
        Ok::<_, HandlerError>(())
    })
    .await?;
    step.run("refund", async || {
        seen.note(format!("refund {}", *charge));
        // The second charge only.
        match *charge {
            2 => bank.ask(),
            _ => Ok(()),
        }
    })
    .await?;
    step.run("tell", async || {
        seen.note(format!("tell {}", *charge));
        Ok::<_, HandlerError>(())
    })
    .await?;
    Ok(*charge)
}

#[on_failure(function = "sell", step = "pack", retries = 1)]
async fn unpack(
    packed: StepOutput<()>,
    State(seen): State<Seen>,
    State(bank): State<Bank>,
) -> Outcome {
    seen.note(format!("unpack {}", packed.step_id));
    bank.ask()
}

fn sold() -> FailureEvent {
    failure("shop-sell")
        .completed_step("reserve-stock", "r-1")
        .completed_step("charge-card", 1)
        .completed_step("charge-card", 2)
        .completed_step("charge-card", 3)
        .completed_step("pack", ())
        .build()
}

const REFUND: &str = "shop-sell-rollback/charge-card";
const UNPACK: &str = "shop-sell-rollback/pack";
const RELEASE: &str = "shop-sell-rollback/reserve-stock";

#[tokio::test]
async fn of_a_rollback_only_the_undo_is_tried_again_and_only_where_it_had_failed() {
    let (World { seen, bank, kept }, builder) = world();
    let dispatcher = builder.register(handlers![release, refund, unpack]).build().unwrap();
    let report = dispatcher.dispatch(sold()).await;
    let did = seen.take();
    let expected = [
        "unpack pack",
        "unpack pack",
        "ask 3",
        "refund 3",
        "tell 3",
        "ask 2",
        "refund 2",
        "refund 2",
        "ask 1",
        "refund 1",
        "tell 1",
        "release r-1",
    ];
    assert_eq!(did, expected);
    let letters = kept.take();
    // The one that was undone first, first: so they can be tried again in their order.
    let ids: Vec<&str> = letters.iter().map(|letter| letter.handler_id.as_str()).collect();
    assert_eq!(ids, [UNPACK, REFUND]);
    let refund = through_text(of(&letters, REFUND));
    assert_eq!(refund.error.message, "the bank is closed");
    // The second charge's twice.
    assert_eq!((refund.attempts, report.runs[0].attempts), (Some(4), 4));
    let names: Vec<&str> = refund.steps.iter().filter_map(|step| step.name.as_deref()).collect();
    assert!(names.contains(&"plan"), "{names:?}");
    let text = serde_json::to_string(&refund.steps).unwrap();
    assert!(!text.contains("r-1"), "{text}");

    bank.open();
    let report = dispatcher.retry(&refund).await.unwrap();
    assert_eq!(report.runs.len(), 1);
    assert_eq!(report.runs[0].handler_id, REFUND);
    assert_eq!(report.runs[0].result.as_ref().unwrap(), &json!([3, 2, 1]));
    assert_eq!(seen.take(), ["refund 2", "tell 2"]);

    let report = dispatcher.retry(&through_text(of(&letters, UNPACK))).await.unwrap();
    assert!(report.is_ok() && report.runs.len() == 1);
    assert_eq!(seen.take(), ["unpack pack"]);
    kept.none();
}

#[tokio::test]
async fn what_was_left_after_the_first_failure_has_letters_in_the_order_of_undoing() {
    let (World { seen, bank, kept }, builder) = world();
    let builder = builder.register(handlers![release, refund, unpack]);
    let dispatcher = builder.rollback(Rollback::StopAtFirst).build().unwrap();
    dispatcher.dispatch(sold()).await;
    assert_eq!(seen.take(), ["unpack pack", "unpack pack"]);
    let letters = kept.take();
    let made: Vec<_> = letters
        .iter()
        .map(|letter| (letter.handler_id.as_str(), letter.error.name.as_str(), letter.attempts))
        .collect();
    assert_eq!(
        made,
        [(UNPACK, "Error", Some(2)), (REFUND, "Left", Some(0)), (RELEASE, "Left", Some(0))]
    );
    bank.open();
    for letter in &letters {
        let report = dispatcher.retry(&through_text(letter)).await.unwrap();
        assert!(report.is_ok() && report.runs.len() == 1);
    }
    let expected = [
        "unpack pack",
        "ask 3",
        "refund 3",
        "tell 3",
        "ask 2",
        "refund 2",
        "tell 2",
        "ask 1",
        "refund 1",
        "tell 1",
        "release r-1",
    ];
    assert_eq!(seen.take(), expected);
    kept.none();
}

/// Traces that can't be had, until they can.
struct NoTrace(Bank);

impl TraceSource for NoTrace {
    fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
        let span = |id: &str, output: Value| {
            let hash = sha1_smol::Sha1::from(id).digest().to_string();
            let time = "2026-11-22T21:00:01.000Z";
            json!({ "name": id, "stepId": hash, "status": "COMPLETED", "output": { "data": output },
                "startedAt": time, "endedAt": time })
        };
        let children = [span("reserve-stock", json!("r-1")), span("pack", json!(null))];
        let root = json!({ "name": "Run", "status": "FAILED", "children": children });
        let answer = json!({ "data": { "runId": run_id, "rootSpan": root } }).to_string();
        Box::pin(async move {
            self.0.ask().map_err(|_| TraceError::UnknownRun { run_id: run_id.to_owned() })?;
            answer.parse().map_err(TraceError::other)
        })
    }
}

#[tokio::test]
async fn a_rollback_whose_trace_could_not_be_had_is_tried_again_undo_by_undo() {
    let (World { seen, bank, kept }, builder) = world();
    let builder = builder.register(handlers![release, refund, unpack, other_error]);
    let dispatcher = builder.trace_source(NoTrace(bank.clone())).build().unwrap();
    dispatcher.dispatch(failure("shop-sell").error("no").build()).await;
    assert!(seen.take().is_empty());
    let letters = kept.take();
    let mut ids: Vec<&str> = letters.iter().map(|letter| letter.handler_id.as_str()).collect();
    ids.sort_unstable();
    // Not that of the one that is for another error.
    assert_eq!(ids, [REFUND, UNPACK, RELEASE]);
    for letter in &letters {
        assert!(letter.error.to_string().contains("does not know the run"), "{}", letter.error);
        assert_eq!((letter.attempts, letter.steps.len()), (Some(0), 0));
    }
    bank.open();
    for (id, did) in
        [(RELEASE, vec!["release r-1"]), (UNPACK, vec!["unpack pack"]), (REFUND, vec![])]
    {
        let report = dispatcher.retry(&through_text(of(&letters, id))).await.unwrap();
        assert!(report.is_ok(), "{report:?}");
        assert_eq!(report.runs[0].handler_id, id);
        assert_eq!(
            (report.runs.len(), seen.take()),
            (1, did.into_iter().map(str::to_owned).collect())
        );
    }
    kept.none();
}

#[on_failure(function = "sell", step = "refused", error = "CardError")]
async fn other_error() {}

/// Waits for what only the server has.
#[on_failure(function = "checkout", id = "waits", retries = 0)]
async fn waits(
    step: Step,
    State(seen): State<Seen>,
    State(bank): State<Bank>,
    run: RunContext,
) -> Outcome<Value> {
    step.sleep("night", Duration::from_secs(8 * 3600)).await?;
    let wait = Wait::new("shop/approved", Duration::from_secs(3600));
    let approved = step.wait_for_event::<Value>("approval", wait).await?;
    for _ in 0..2 {
        step.run("item", async || {
            seen.note("item");
            Ok::<_, HandlerError>(())
        })
        .await?;
    }
    bank.ask()?;
    assert_eq!(run.handler_id, "waits");
    Ok(approved.map_or(Value::Null, |event| event.data))
}

#[tokio::test]
async fn a_letter_that_an_endpoint_has_written_is_tried_again_in_process() {
    let (World { seen, bank, kept }, builder) = world();
    let dispatcher = builder.register(handlers![waits]).build().unwrap();
    let approved = inngest_failure::Event::new("shop/approved", json!({ "by": "ann" }));
    let run = TestRun::new(&dispatcher, "waits", event("shop-checkout"));
    let transcript = run.event_arrives("approval", &approved).run().await;
    transcript.assert_failed("the bank is closed");
    assert_eq!(seen.take(), ["item", "item"]);
    let letter = through_text(&kept.one());
    let names: Vec<_> = letter.steps.iter().map(|step| step.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["night", "approval", "item", "item:1"]);
    bank.open();
    // The night is over.
    let retry = tokio::time::timeout(Duration::from_secs(30), dispatcher.retry(&letter));
    let report = retry.await.expect("no sleep").unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), &json!({ "by": "ann" }));
    assert!(seen.take().is_empty());
}

#[tokio::test]
async fn a_letter_of_an_undo_that_an_endpoint_has_written_is_tried_again_in_process() {
    let (World { seen, bank, kept }, builder) = world();
    let dispatcher = builder.register(handlers![release, refund, unpack]).build().unwrap();
    let run = TestRun::new(&dispatcher, "shop-sell-rollback", sold());
    run.run().await.assert_failed("2 of 5 undos");
    seen.take();
    let letters = kept.take();
    let ids: Vec<&str> = letters.iter().map(|letter| letter.handler_id.as_str()).collect();
    assert_eq!(ids, [UNPACK, REFUND]);
    bank.open();
    for (id, did) in [(REFUND, &["refund 2", "tell 2"][..]), (UNPACK, &["unpack pack"])] {
        let report = dispatcher.retry(&through_text(of(&letters, id))).await.unwrap();
        assert!(report.is_ok() && report.runs.len() == 1, "{report:?}");
        assert_eq!(seen.take(), did);
    }
}

/// Traces that come once, with an output that does not travel with the plan; then the source panics.
struct Once(std::sync::atomic::AtomicBool);

impl TraceSource for Once {
    fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
        assert!(!self.0.swap(true, std::sync::atomic::Ordering::Relaxed), "{}", crate::PANIC);
        let hash = sha1_smol::Sha1::from("weigh").digest().to_string();
        let time = "2026-11-22T21:00:01.000Z";
        let step = json!({ "name": "weigh", "stepId": hash, "status": "COMPLETED", "startedAt": time, "endedAt": time,
            "output": { "data": "x".repeat(600 * 1024) } });
        let root = json!({ "name": "Run", "status": "FAILED", "children": [step] });
        let answer = json!({ "data": { "runId": run_id, "rootSpan": root } }).to_string();
        Box::pin(async move { answer.parse().map_err(TraceError::other) })
    }
}

#[on_failure(function = "sell", step = "weigh", retries = 0)]
async fn unweigh(
    weighed: StepOutput<String>,
    step: Step,
    State(seen): State<Seen>,
    State(bank): State<Bank>,
) -> Outcome {
    step.run("clear", async || {
        seen.note(format!("clear {}", weighed.len()));
        Ok::<_, HandlerError>(())
    })
    .await?;
    step.run("settle", async || bank.ask()).await?;
    Ok(())
}

#[on_failure(function = "sell", step = "other", retries = 0)]
async fn unrelated() {}

/// What a letter says of completed steps is not lost with the next one, wherever the rollback ends.
#[tokio::test]
async fn a_rollback_that_panics_outside_of_its_steps_leaves_its_letter_with_the_steps() {
    let handlers = || handlers![unweigh, unrelated];
    let (World { seen, kept, .. }, builder) = world();
    let first = builder.register(handlers()).trace_source(Once(false.into())).build().unwrap();
    first.dispatch(failure("shop-sell").build()).await;
    assert_eq!(seen.take(), ["clear 614400"]);
    let letter = through_text(&kept.one());

    let (second, builder) = world();
    let dispatcher = builder.register(handlers()).trace_source(Once(true.into())).build().unwrap();
    let report = dispatcher.retry(&letter).await.unwrap();
    assert!(!report.is_ok(), "{report:?}");
    let again = through_text(&second.kept.one());
    assert_eq!(again.handler_id, "shop-sell-rollback/weigh");
    assert!(again.error.message.contains(crate::PANIC), "{}", again.error.message);
    let names = |letter: &DeadLetter| -> Vec<String> {
        letter.steps.iter().map(|step| step.step_id.clone()).collect()
    };
    assert_eq!(names(&again), names(&letter));

    let (third, builder) = world();
    third.bank.open();
    let dispatcher = builder.register(handlers()).trace_source(Once(false.into())).build().unwrap();
    assert!(dispatcher.retry(&again).await.unwrap().is_ok());
    // What was cleared is not cleared again.
    assert!(third.seen.take().is_empty() && second.seen.take().is_empty());
}
