//! Rollbacks in tests: with steps that the test says, and with traces from files.

use std::time::Duration;

use inngest_failure::{
    Backoff, Dispatcher, HandlerError, NonRetriable, RunTrace, State, Step, StepOutput, handlers,
    on_failure,
    testing::{self, TestRun, failure},
};
use serde_json::{Value, json};
use tests::Log;

use crate::{Outcome, Seen, builder, traces::recorded};

#[derive(serde::Deserialize)]
struct Charge {
    charge_id: String,
}

#[on_failure(function = "checkout", step = "charge-card", retries = 2)]
async fn refund(
    charge: StepOutput<Charge>,
    State(seen): State<Seen>,
    step: Step,
) -> Outcome<String> {
    let id = step.run("ask", async || Ok::<_, HandlerError>(charge.charge_id.clone())).await?;
    seen.note(format!("back from {id}"));
    if id == "ch_bad" {
        return Err("the bank says no".into());
    }
    Ok(id)
}

#[on_failure(function = "checkout", step = "reserve-stock", timeout = "20ms", retries = 1)]
async fn release(reserved: StepOutput<String>, State(seen): State<Seen>) {
    if *reserved == "slow" {
        std::future::pending::<()>().await;
    }
    seen.note(format!("release {}", *reserved));
}

fn dispatcher(seen: &Seen) -> Dispatcher {
    let backoff = Backoff::new().first(Duration::from_millis(1)).max(Duration::from_millis(1));
    let builder = builder().backoff(backoff).state(seen.clone());
    builder.register(handlers![refund, release]).build().unwrap()
}

const ROLLBACK: &str = "shop-checkout-rollback";

#[tokio::test]
async fn a_test_says_what_had_completed() {
    let seen = Seen::default();
    let dispatcher = dispatcher(&seen);
    let event = failure("shop-checkout")
        .completed_step("reserve-stock", "r-1")
        .completed_step("charge-card", json!({ "charge_id": "ch_1" }))
        .failed_step("ship")
        .build();
    let transcript = TestRun::new(&dispatcher, ROLLBACK, event.clone())
        .fail_step("undo/charge-card/ask", 1)
        .run()
        .await;
    transcript.assert_undone(["charge-card", "reserve-stock"]);
    transcript.assert_steps_known();
    transcript.assert_completed([
        "plan",
        "undo/charge-card/ask",
        "undo/charge-card",
        "undo/reserve-stock",
    ]);
    let ids: Vec<&str> =
        transcript.calls().iter().filter_map(|call| call.operations[0].split(' ').nth(1)).collect();
    assert_eq!(ids[..3], ["plan", "undo/charge-card/ask", "undo/charge-card/ask"], "{transcript}");
    seen.take();

    let report = dispatcher.dispatch(event).await;
    assert!(report.is_ok());
    assert_eq!(seen.take(), ["back from ch_1", "release r-1"]);
}

#[tokio::test]
async fn a_run_that_had_done_nothing_asks_nobody() {
    let seen = Seen::default();
    let event = failure("shop-checkout").build();
    let transcript = TestRun::new(&dispatcher(&seen), ROLLBACK, event.clone()).run().await;
    transcript.assert_undone([]);
    let report = dispatcher(&seen).dispatch(event).await;
    assert!(report.is_ok() && seen.take().is_empty());
    assert!(report.runs.iter().all(|run| run.attempts == 0));
}

#[tokio::test]
async fn traces_come_from_files() {
    let trace = recorded("tr4.serial").1;
    let event = failure("shop-checkout").trace(trace).build();
    let seen = Seen::default();
    let transcript = TestRun::new(&dispatcher(&seen), ROLLBACK, event).run().await;
    // What reserve-stock had returned there is no text.
    transcript.assert_failed(
        "1 of 2 undos of run `01TEST00000000000000FA11ED` failed for good: `reserve-stock`: what step `reserve-stock` of the \
         failed run had returned does not fit `alloc::string::String`: invalid type: map, expected a string; let the type \
         take what the step returns | undone: `charge-card`",
    );
}

#[tokio::test]
async fn the_retries_of_each_undo_are_its_own() {
    let seen = Seen::default();
    let event = failure("shop-checkout")
        .completed_step("reserve-stock", "slow")
        .completed_step("charge-card", json!({ "charge_id": "ch_bad" }))
        .build();
    let transcript = TestRun::new(&dispatcher(&seen), ROLLBACK, event.clone()).run().await;
    transcript.assert_failed("2 of 2 undos");
    transcript.assert_failed("`charge-card`: the bank says no; `reserve-stock`: the handler took longer than its `timeout`");
    // What the handler did with its steps, three times; the step itself ran once.
    transcript.assert_ran("undo/charge-card/ask", 1);
    transcript.assert_ran("undo/charge-card", 3);
    transcript.assert_ran("undo/reserve-stock", 2);
    seen.take();

    let report = dispatcher(&seen).dispatch(event).await;
    let outcomes: Vec<(u32, String)> = report
        .runs
        .into_iter()
        .map(|run| (run.attempts, run.result.unwrap_err().to_string()))
        .collect();
    assert_eq!(outcomes[0].1, "the bank says no");
    assert_eq!(outcomes[1], (2, "timed out".to_owned()));
    assert_eq!(seen.take().iter().filter(|what| *what == "back from ch_bad").count(), 3);
}

#[on_failure(function = "pay", step = "charge-crad")]
async fn misspelt() {}

#[tokio::test]
async fn a_step_that_no_run_comes_to_is_told_once() {
    let dispatcher = builder().register(handlers![misspelt]).build().unwrap();
    let event = failure("shop-pay").completed_step("charge-card", 1).build();
    let (log, _guard) = Log::start(tracing::Level::WARN);
    for _ in 0..3 {
        assert!(dispatcher.dispatch(event.clone()).await.is_ok());
    }
    let warning = "no step `charge-crad` in what the function had done, but `charge-card`; is that what `step = \
                   \"charge-crad\"` means?";
    assert_eq!(log.text().matches(warning).count(), 1, "{}", log.text());

    let transcript = TestRun::new(&dispatcher, "shop-pay-rollback", event).run().await;
    transcript.assert_undone([]);
    let panic = std::panic::catch_unwind(|| transcript.assert_steps_known()).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("`charge-crad` (did you mean `charge-card`?)"), "{message}");
}

#[tokio::test]
async fn an_undo_is_a_plain_function_too() {
    let seen = Seen::default();
    let mut charge = testing::step_output(Charge { charge_id: "ch_9".to_owned() });
    assert_eq!(charge.idempotency_key(), "run:undo/step");
    charge.step_id = "charge-card".to_owned();
    charge.index = 2;
    assert_eq!(charge.idempotency_key(), "run:undo/charge-card:2");
    let refunded = refund(charge, State(seen.clone()), testing::step()).await.unwrap();
    assert_eq!((refunded.as_str(), seen.take().len()), ("ch_9", 1));
}

#[on_failure(function = "checkout", id = "reads")]
async fn reads(trace: RunTrace) -> Result<Value, NonRetriable> {
    let names: Vec<&str> = trace.steps().iter().map(|step| step.name.as_str()).collect();
    Ok(json!([names, trace.failed_step().map(|step| &step.name)]))
}

#[tokio::test]
async fn any_handler_may_read_the_trace() {
    let dispatcher = builder().register(handlers![reads]).build().unwrap();
    let event = failure("shop-checkout")
        .completed_step("a", 1)
        .completed_step("a", 2)
        .failed_step("b")
        .build();
    let transcript = TestRun::new(&dispatcher, "reads", event).run().await;
    assert_eq!(transcript.assert_succeeded(), &json!([["a", "a", "b"], "b"]));
}

#[tokio::test]
async fn what_is_left_is_no_success() {
    let seen = Seen::default();
    let backoff = Backoff::new().first(Duration::from_millis(1)).max(Duration::from_millis(1));
    let builder =
        builder().backoff(backoff).state(seen.clone()).register(handlers![refund, release]);
    let dispatcher = builder.rollback(inngest_failure::Rollback::StopAtFirst).build().unwrap();
    let event = failure("shop-checkout")
        .completed_step("reserve-stock", "r-1")
        .completed_step("charge-card", json!({ "charge_id": "ch_bad" }))
        .build();
    let report = dispatcher.dispatch(event).await;
    let left = &report.runs[1];
    assert_eq!(
        (left.handler_id.as_str(), left.attempts),
        ("shop-checkout-rollback/reserve-stock", 0)
    );
    let error = left.result.as_ref().unwrap_err().to_string();
    assert!(error.starts_with("the step is left as it is"), "{error}");
}

#[tokio::test]
async fn an_undo_that_is_done_is_not_gone_through_again() {
    let seen = Seen::default();
    let dispatcher = dispatcher(&seen);
    let event = failure("shop-checkout")
        .completed_step("reserve-stock", "r-1")
        .completed_step("charge-card", json!({ "charge_id": "ch_1" }))
        .build();
    let (log, _guard) = Log::start(tracing::Level::WARN);
    TestRun::new(&dispatcher, ROLLBACK, event)
        .run()
        .await
        .assert_undone(["charge-card", "reserve-stock"]);
    assert_eq!(log.text(), "");
    // The code after its step ran once.
    assert_eq!(seen.take(), ["back from ch_1", "release r-1"]);
}

#[on_failure(function = "pay", step = "charge-card", error = "CardError")]
async fn of_cards(State(seen): State<Seen>) {
    seen.note("undone");
}

#[tokio::test]
async fn an_undo_for_another_error_asks_for_no_trace() {
    let seen = Seen::default();
    let builder = builder().state(seen.clone()).register(handlers![of_cards]);
    let dispatcher = builder.build().unwrap();
    let event = failure("shop-pay").error(("Other", "no")).completed_step("charge-card", 1).build();
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let transcript = TestRun::new(&dispatcher, "shop-pay-rollback", event).run().await;
    let expected = json!({ "undone": [], "note": "no undo is for an error of this name" });
    assert_eq!(transcript.assert_succeeded(), &expected);
    assert_eq!((transcript.calls().len(), log.text().as_str()), (1, ""));
    assert!(seen.take().is_empty());
}

#[on_failure(function = "loop", step = "item", retries = 1)]
async fn unpack(item: StepOutput<u32>, State(seen): State<Seen>) -> Outcome {
    seen.note(format!("{}", *item));
    match (*item, seen.len()) {
        (2, _) => Err("stuck".into()),
        // Once, after the other one has failed for good.
        (1, 3) => Err("hiccup".into()),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn the_error_of_a_loop_is_that_of_the_use_that_failed() {
    let seen = Seen::default();
    let backoff = Backoff::new().first(Duration::from_millis(1)).max(Duration::from_millis(1));
    let builder = builder().backoff(backoff).state(seen.clone()).register(handlers![unpack]);
    let dispatcher = builder.build().unwrap();
    let event = failure("shop-loop").completed_step("item", 1).completed_step("item", 2).build();
    let report = dispatcher.dispatch(event).await;
    assert_eq!(seen.take(), ["2", "2", "1", "1"]);
    let run = &report.runs[0];
    assert_eq!((run.result.as_ref().unwrap_err().to_string().as_str(), run.attempts), ("stuck", 4));
}

#[on_failure(function = "asks", step = "charge-card")]
async fn asks(_charge: StepOutput<Value>, step: Step) -> Outcome<Value> {
    let cents = step.invoke::<u32>("refund", inngest_failure::Invoke::new("pay-refund")).await?;
    let wait = inngest_failure::Wait::new("pay/settled", Duration::from_secs(60));
    let settled = step.wait_for_event::<Value>("settled", wait).await?;
    Ok(json!([cents, settled.is_some()]))
}

#[tokio::test]
async fn what_an_undo_waits_for_is_said_by_its_name() {
    let dispatcher = builder().register(handlers![asks]).build().unwrap();
    let event = failure("shop-asks").completed_step("charge-card", 1).build();
    let settled = inngest_failure::Event::new("pay/settled", json!({}));
    let transcript = TestRun::new(&dispatcher, "shop-asks-rollback", event)
        .invoke_returns("undo/charge-card/refund", 1250)
        .event_arrives("undo/charge-card/settled", &settled)
        .run()
        .await;
    transcript.assert_undone(["charge-card"]);
    assert_eq!(transcript.assert_succeeded()["undone"][0]["result"], json!([1250, true]));
}

#[tokio::test]
async fn a_step_in_flight_is_named_and_ids_that_look_like_numbers_are_no_numbers() {
    let time = "2026-11-22T21:00:01.000Z";
    let span = |id: &str, status: &str, output: Value| {
        let hashed = sha1_smol::Sha1::from(id).digest().to_string();
        json!({ "name": id, "stepId": hashed, "status": status, "output": output, "endedAt": time, "startedAt": time })
    };
    let children = [
        span("reserve-stock", "COMPLETED", json!({ "data": "r-1" })),
        // Its own id, not the second use of the other.
        span("reserve-stock:1", "COMPLETED", json!({ "data": 7 })),
        span("charge-card", "RUNNING", json!(null)),
    ];
    let root = json!({ "name": "Run", "status": "FAILED", "children": children });
    let answer = json!({ "data": { "runId": "r1", "rootSpan": root } }).to_string();
    let seen = Seen::default();
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let event = failure("shop-checkout").trace(answer.parse().unwrap()).build();
    let transcript = TestRun::new(&dispatcher(&seen), ROLLBACK, event).run().await;
    transcript.assert_undone(["reserve-stock"]);
    assert_eq!(transcript.assert_succeeded()["in_flight"], json!(["charge-card"]));
    assert!(log.text().contains("steps were in flight when the run failed"), "{}", log.text());
}
