//! The testing kit: what it plays, shows and asserts.

use std::{collections::BTreeSet, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use inngest_failure::{
    Dispatcher, Event, HandlerError, Invoke, RunContext, State, Step, Wait, handlers, on_failure,
    testing::{Execution, TestRun, Transcript},
};
use serde_json::{Value, json};

use crate::{Seen, builder, event};

type Outcome<T = ()> = Result<T, HandlerError>;

async fn ok(value: u32) -> Outcome<u32> {
    Ok(value)
}

#[on_failure(function = "checkout", retries = 3)]
async fn undo(step: Step, run: RunContext) -> Outcome<u32> {
    let refund = step.run("refund", || ok(run.attempt)).await?;
    let (restock, tell) = tokio::join!(step.run("restock", || ok(2)), step.run("tell", || ok(3)));
    match step.run("close", || ok(4)).await {
        Ok(close) => Ok(refund + restock? + tell? + close),
        Err(error) => {
            step.run("escalate", async || Ok::<_, HandlerError>(error.message.clone())).await?;
            Err("escalated".into())
        }
    }
}

fn dispatcher() -> Dispatcher {
    builder().register(handlers![undo, approves, fails]).build().unwrap()
}

fn run() -> TestRun {
    TestRun::new(&dispatcher(), "shop-checkout-failure", event())
}

#[tokio::test]
async fn a_run_is_called_and_called_again() {
    let transcript = run().run().await;
    assert_eq!(transcript.assert_succeeded(), 9);
    transcript.assert_completed(["refund", "restock", "tell", "close"]);
    assert_eq!(transcript.elapsed(), Duration::ZERO);
    let expected = "\
`shop-checkout-failure` returned 9 after 8 calls
   1. what comes next?, `refund` ran, `refund` completed -> 206 StepRun refund 0
   2. what comes next? -> 206 StepPlanned restock; StepPlanned tell
   3. step `restock`, `restock` ran, `restock` completed -> 206 StepRun restock 2
   4. step `tell`, `tell` ran, `tell` completed -> 206 StepRun tell 3
   5. what comes next? -> 206 StepPlanned close
   6. what comes next? -> 206 StepPlanned close
   7. step `close`, `close` ran, `close` completed -> 206 StepRun close 4
   8. what comes next? -> 200 9";
    assert_eq!(transcript.to_string(), expected);
}

#[tokio::test]
async fn a_step_is_made_to_fail_and_the_handler_sees_it_when_its_retries_are_used_up() {
    let transcript = run().fail_step("refund", 2).run().await;
    assert_eq!(transcript.assert_succeeded(), 2 + 2 + 3 + 4);
    transcript.assert_ran("refund", 1);
    let made: Vec<u32> = transcript.calls()[..3].iter().map(|call| call.attempt).collect();
    assert_eq!(made, [0, 1, 2]);
    assert_eq!(transcript.calls()[0].executions, [Execution::MadeToFail("refund".into())]);
    assert_eq!(transcript.elapsed(), Duration::from_secs(60));

    let transcript = run().fail_step("close", 4).run().await;
    transcript.assert_failed("escalated");
    assert_eq!(transcript.completions("escalate"), 1);
    assert_eq!(transcript.completions("close"), 0);
}

#[tokio::test]
async fn a_seed_gives_an_order_and_the_same_seed_the_same_one() {
    let order = async |seed| {
        let transcript = run().seed(seed).run().await;
        assert_eq!(transcript.assert_succeeded(), 9);
        transcript.to_string()
    };
    let mut orders = BTreeSet::new();
    for seed in 0..20 {
        let once = order(seed).await;
        assert_eq!(once, order(seed).await);
        orders.insert(once);
    }
    assert!(orders.len() > 2, "{orders:#?}");
}

#[tokio::test]
async fn answers_are_lost_and_calls_are_repeated() {
    let (mut lost, mut again) = (0, 0);
    for seed in 0..20 {
        let transcript = run().seed(seed).lose_answers(0.3).repeat_calls(0.3).run().await;
        transcript.assert_succeeded();
        lost += transcript.calls().iter().filter(|call| call.is_lost).count();
        again += usize::from(transcript.completions("restock") > 1);
    }
    assert!(lost > 20 && again > 0, "{lost} {again}");
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Approval {
    by: String,
}

#[on_failure(function = "checkout", id = "approves")]
async fn approves(step: Step) -> Outcome<Value> {
    step.sleep("night", Duration::from_secs(8 * 3600)).await?;
    let wait = Wait::new("shop/approved", Duration::from_secs(24 * 3600));
    let approval = step.wait_for_event::<Approval>("approval", wait).await?;
    let cents = step.invoke::<u32>("refund", Invoke::new("payments-refund")).await;
    let event = Event::new("shop/undone", json!({ "cents": cents.as_ref().ok() }));
    let id = step.send_event("told", event).await?;
    let cents = cents.map_err(|error| error.message);
    Ok(json!([approval.map(|approval| approval.data), cents, id]))
}

fn approval() -> TestRun {
    TestRun::new(&dispatcher(), "approves", event())
}

#[tokio::test]
async fn time_is_skipped_events_arrive_functions_return_and_sent_events_are_kept() {
    let arrives = Event::new("shop/approved", Approval { by: "ann".into() });
    let transcript =
        approval().event_arrives("approval", &arrives).invoke_returns("refund", 1250).run().await;
    let value = transcript.assert_succeeded();
    assert_eq!(value[0], json!({ "by": "ann" }));
    assert_eq!(value[1], json!({ "Ok": 1250 }));
    assert_eq!(transcript.elapsed(), Duration::from_secs(8 * 3600));
    assert_eq!(
        transcript.sent_events(),
        [json!({ "name": "shop/undone", "data": { "cents": 1250 } })]
    );

    let transcript = approval().invoke_fails("refund", "no such card").run().await;
    let value = transcript.assert_succeeded();
    assert_eq!((&value[0], &value[1]), (&Value::Null, &json!({ "Err": "no such card" })));
    assert_eq!(transcript.elapsed(), Duration::from_secs(32 * 3600));
}

#[on_failure(function = "checkout", id = "fails", retries = 1)]
async fn fails(run: RunContext, _step: Step) -> Outcome {
    Err(format!("attempt {}", run.attempt).into())
}

#[tokio::test]
async fn a_handler_without_success_fails_after_its_retries() {
    let transcript = TestRun::new(&dispatcher(), "fails", event()).run().await;
    transcript.assert_failed("attempt 1");
    assert_eq!(transcript.calls().len(), 2);
}

/// The message of what an assertion panics with.
fn complaint(assertion: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(AssertUnwindSafe(assertion)).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[tokio::test]
async fn an_assertion_that_fails_says_what_was_wanted_and_shows_the_run() {
    let failed: Transcript = TestRun::new(&dispatcher(), "fails", event()).run().await;
    let shown = "\
`fails` failed for good with {\"message\":\"attempt 1\",\"name\":\"Error\"} after 2 calls
   1. what comes next? -> 500 {\"message\":\"attempt 0\",\"name\":\"Error\"}
   2. what comes next? (attempt 1) -> 500 {\"message\":\"attempt 1\",\"name\":\"Error\"}";
    let wanted = |what: &str| format!("{what}\n\n{shown}");
    assert_eq!(
        complaint(|| drop(failed.assert_succeeded().clone())),
        wanted("the run was to succeed")
    );
    assert_eq!(
        complaint(|| failed.assert_failed("declined")),
        wanted("the run was to fail with \"declined\"")
    );
    assert_eq!(
        complaint(|| failed.assert_completed(["refund"])),
        wanted("the steps [\"refund\"] were to complete, in this order, but [] did")
    );
    assert_eq!(
        complaint(|| failed.assert_ran("refund", 1)),
        wanted("step \"refund\" was to run 1 times, but ran 0 times")
    );
}

#[tokio::test]
async fn what_the_test_has_not_said_is_asked_for() {
    let complaint =
        |panic: Box<dyn std::any::Any + Send>| panic.downcast_ref::<String>().unwrap().clone();
    let run = AssertUnwindSafe(approval().run()).catch_unwind().await;
    assert_eq!(
        complaint(run.unwrap_err()),
        "step `refund` invokes function `payments-refund`; say what it returns with `.invoke_returns(\"refund\", ..)` or \
         `.invoke_fails(\"refund\", ..)`"
    );
    let unknown = std::panic::catch_unwind(|| TestRun::new(&dispatcher(), "checkout", event()));
    assert_eq!(
        complaint(unwrap_err(unknown)),
        "there is no handler `checkout`; there are [\"approves\", \"fails\", \"shop-checkout-failure\"]"
    );
}

/// Another step in each call.
#[on_failure(function = "checkout", id = "fickle", retries = 1)]
async fn fickle(step: Step, State(seen): State<Seen>) -> Outcome {
    seen.note("called");
    let id = format!("r{}", seen.0.lock().unwrap().len());
    let (fickle, steady) = tokio::join!(step.run(&id, || ok(1)), step.run("steady", || ok(2)));
    fickle?;
    steady?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_not_found_again_fails_the_run_after_its_attempts() {
    let dispatcher = builder().state(Seen::default()).register(handlers![fickle]).build().unwrap();
    let transcript = TestRun::new(&dispatcher, "fickle", event()).run().await;
    transcript.assert_failed("step `r1` was not found");
    let found: Vec<&str> =
        transcript.calls().iter().map(|call| call.operations[0].as_str()).collect();
    assert!(found.contains(&"StepNotFound r1"), "{transcript}");
}

async fn complaint_of(run: TestRun) -> String {
    let panic = AssertUnwindSafe(run.run()).catch_unwind().await.map(|_| ()).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[tokio::test]
async fn what_the_test_has_said_in_vain_is_told() {
    let text = complaint_of(run().fail_step("refnud", 1)).await;
    assert!(
        text.starts_with(
            "the handler has not come to the steps [\"refnud\"], which were to fail\n\n`shop-"
        ),
        "{text}"
    );
    let text = complaint_of(run().invoke_returns("refund", 1)).await;
    assert!(
        text.starts_with("the handler has not waited in the steps [\"refund\"], which were to get an answer\n\n`shop-"),
        "{text}"
    );
    let other = Event::new("shop/denied", json!({}));
    assert_eq!(
        complaint_of(approval().event_arrives("approval", &other)).await,
        "step `approval` waits for event \"shop/approved\"; give `.event_arrives(\"approval\", ..)` such a one, not \
         \"shop/denied\""
    );
    assert_eq!(
        complaint_of(approval().invoke_returns("approval", 1)).await,
        "step `approval` waits for an event; say which one comes with `.event_arrives(\"approval\", ..)`"
    );
}

#[tokio::test]
async fn a_run_may_be_spawned_and_each_call_repeated() {
    let spawned = tokio::spawn(approval().invoke_fails("refund", "gone").repeat_calls(1.0).run());
    spawned.await.unwrap().assert_succeeded();
}

#[on_failure(function = "checkout", id = "twice")]
async fn twice(step: Step) -> Outcome<Vec<u32>> {
    let first = step.invoke("call", Invoke::new("f")).await?;
    let second = step.invoke("call", Invoke::new("f")).await?;
    Ok(vec![first, second])
}

#[tokio::test]
async fn steps_of_one_id_are_told_apart() {
    let dispatcher = builder().register(handlers![twice]).build().unwrap();
    let run = TestRun::new(&dispatcher, "twice", event());
    let transcript = run.invoke_returns("call", 1).invoke_returns("call:1", 2).run().await;
    assert_eq!(transcript.assert_succeeded(), &json!([1, 2]));
    assert!(transcript.to_string().contains("InvokeFunction call:1"), "{transcript}");
}

fn unwrap_err<T, E>(result: Result<T, E>) -> E {
    match result {
        Ok(_) => panic!("no panic"),
        Err(error) => error,
    }
}
