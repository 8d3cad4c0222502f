//! Nothing is lost in silence: what the log says.

use std::time::Duration;

use inngest_failure::{Backoff, Failure, HandlerError, ResultExt, handlers, on_failure};
use serde_json::json;
use tests::Log;

use crate::{builder, event, failed};

#[on_failure(function = "checkout", retries = 1)]
async fn checkout() -> Result<(), HandlerError> {
    tracing::info!("the handler's own line");
    Err("the bank is closed".into())
}

#[on_failure(function = "refund", error = "CardError", retries = 3)]
async fn refund() -> Result<(), HandlerError> {
    Ok(Err(std::io::Error::other("card expired")).non_retriable()?)
}

#[on_failure(function = "typed")]
async fn typed(_: Failure<u8>) {}

fn dispatcher() -> inngest_failure::Dispatcher {
    builder()
        .register(handlers![checkout, refund, typed])
        .backoff(Backoff::new().first(Duration::from_millis(1)))
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_failing_handler_leaves_a_line_per_attempt_inside_its_spans() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    dispatcher().dispatch(failed("shop-checkout", json!({}))).await;
    let log = log.text();
    let lines: Vec<&str> = log.lines().collect();
    let spans = "dispatch{function_id=\"shop-checkout\" run_id=\"01M82E82J0N0GBAMR1N91EZJJ6\"}:\
                 handler{handler_id=\"shop-checkout-failure\" run_id=\"01M82E82J0N0GBAMR1N91EZJJ6\" attempt=";
    assert_eq!(lines.len(), 4, "{log}");
    for line in &lines {
        assert!(line.contains(spans), "{line}");
    }
    assert!(lines[0].contains("the handler's own line"), "{log}");
    assert!(
        lines[1].starts_with(" WARN") && lines[1].contains("handler failed, will be tried again"),
        "{log}"
    );
    assert!(lines[1].contains("error=\"the bank is closed\""), "{log}");
    assert!(lines[3].starts_with("ERROR") && lines[3].contains("handler failed for good"), "{log}");
    assert!(lines[3].contains("attempts=2"), "{log}");
}

#[tokio::test]
async fn a_final_error_and_a_misfit_are_errors_in_the_log() {
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    let dispatcher = dispatcher();
    let event = event("inngest/function.failed", "shop-refund", "CardError", json!({}));
    dispatcher.dispatch(event).await;
    dispatcher.dispatch(failed("shop-typed", json!("x"))).await;
    assert!(dispatcher.dispatch_json(b"{").await.is_err());
    let log = log.text();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(
        lines[0].contains("handler failed for good") && lines[0].contains("error=\"card expired\""),
        "{log}"
    );
    assert!(lines[1].contains("does not fit `u8`: at `data.event.data`"), "{log}");
    assert!(lines[2].contains("not a failure event, nothing has run"), "{log}");
}

#[on_failure(function = "slow", retries = 0)]
async fn slow() {
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_dropped_with_its_dispatch_leaves_a_line() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let dispatcher = builder().register(handlers![slow]).build().unwrap();
    let dispatch = dispatcher.dispatch(failed("shop-slow", json!({})));
    assert!(tokio::time::timeout(Duration::from_secs(1), dispatch).await.is_err());
    let log = log.text();
    assert!(log.contains("handler was dropped with its dispatch before it ended"), "{log}");
    assert!(log.contains("handler_id=\"shop-slow-failure\""), "{log}");
}

#[on_failure(function = "*-report")]
async fn report() {}

#[on_failure(fallback, app = "shop", error = "CardError", id = "card-errors")]
async fn card_errors() {}

#[tokio::test]
async fn the_hint_knows_patterns_and_fallbacks_and_is_short_for_an_endless_id() {
    let dispatcher = builder().register(handlers![report, card_errors]).build().unwrap();
    let endless = "x".repeat(1_000_000);
    for (function_id, hint) in [
        ("blog-daily-reprot", "no handler is for anything like it; a `fallback` would take it"),
        ("shpo-d-report", "the nearest handler is for `shop-*-report`"),
        (
            "shop-x",
            "`fallback of shop, error CardError` covers the function but not this error; add a handler for it",
        ),
        (&endless, "its function id is longer than any that Inngest gives"),
    ] {
        let (log, _guard) = Log::start(tracing::Level::WARN);
        dispatcher.dispatch(failed(function_id, json!({}))).await;
        let log = log.text();
        assert!(log.contains(&format!("hint={hint:?}")), "{log}");
        assert!(log.len() < 2_000, "{} bytes", log.len());
    }
}

#[tokio::test]
async fn an_unhandled_failure_is_a_warning_with_the_nearest_selector() {
    let dispatcher = dispatcher();
    for (name, function_id, hint) in [
        ("inngest/function.failed", "shop-chekout", "the nearest handler is for `shop-checkout`"),
        (
            "inngest/function.failed",
            "blog",
            "no handler is for anything like it; a `fallback` would take it",
        ),
        (
            "inngest/function.failed",
            "shop-refund",
            "`shop-refund, error CardError` covers the function but not this error; add a handler for it",
        ),
        (
            "inngest/function.cancelled",
            "shop-checkout",
            "`shop-checkout` covers the function but not cancelled runs; add `cancelled` to it",
        ),
    ] {
        let (log, _guard) = Log::start(tracing::Level::WARN);
        let dispatch = dispatcher.dispatch(event(name, function_id, "Error", json!({}))).await;
        assert!(dispatch.is_unhandled() && dispatch.runs.is_empty());
        let log = log.text();
        assert!(log.contains("unhandled failure"), "{log}");
        assert!(log.contains(&format!("hint={hint:?}")), "{log}");
        assert!(log.contains("card declined") || name.ends_with("cancelled"), "{log}");
    }
}
