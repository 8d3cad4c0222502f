//! Handlers called as plain functions.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use inngest_failure::{
    Event, Failure, FailureKind, HandlerError, RunContext, Step, on_failure,
    testing::{context, failure, step},
};
use serde_json::{Value, json};

#[derive(serde::Deserialize)]
struct Order {
    order_id: String,
}

#[on_failure(function = "checkout")]
async fn undo(
    failure: Failure<Order>,
    run: RunContext,
    step: Step,
) -> Result<String, HandlerError> {
    let refund =
        step.run("refund", async || Ok::<_, HandlerError>(failure.event.data.order_id.clone()));
    let restock = step.run("restock", async || match run.is_last_attempt() {
        true => Err("out of order"),
        false => Ok(3),
    });
    let (refund, restock) = tokio::join!(refund, restock);
    step.sleep("nap", Duration::from_millis(1)).await?;
    let stock: u32 = match restock {
        Ok(stock) => stock,
        Err(_) => step.run("restock", async || Ok::<_, HandlerError>(0)).await?,
    };
    Ok(format!("{} {stock}", refund?))
}

#[tokio::test]
async fn a_handler_with_steps_is_a_function() {
    let event =
        || failure("shop-checkout").data(json!({ "order_id": "o1" })).build().parse().unwrap();
    assert_eq!(undo(event(), context(), step()).await.unwrap(), "o1 3");
    let mut last = context();
    last.attempt = last.max_attempts - 1;
    assert_eq!(undo(event(), last, step()).await.unwrap(), "o1 0");
}

#[tokio::test]
async fn steps_of_no_handler_may_be_used_anywhere_but_in_each_other() {
    let step = std::sync::Arc::new(step());
    let spawned = std::sync::Arc::clone(&step);
    let run = async move { spawned.run("a", async || Ok::<_, HandlerError>(1)).await };
    assert_eq!(tokio::spawn(run).await.unwrap().unwrap(), 1);
    let nested = step.run("outer", || async {
        Ok::<_, HandlerError>(step.run("inner", async || Ok::<_, HandlerError>(2)).await?)
    });
    let error = nested.await.unwrap_err();
    assert!(error.to_string().contains("step `inner` is used inside step `outer`"), "{error}");
    let error = step.send_event("send", Event::new("a", json!({}))).await.unwrap_err();
    assert!(error.to_string().contains("has no API to send events to"), "{error}");
}

#[tokio::test]
async fn a_thousand_steps_each_followed_by_another() {
    let step = step();
    let ids: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    let ok = async || Ok::<_, HandlerError>(());
    let mut all: FuturesUnordered<_> = ids.iter().map(|id| step.run(id, ok)).collect();
    let mut count = 0;
    while let Some(done) = all.next().await {
        done.unwrap();
        step.run("record", ok).await.unwrap();
        count += 1;
    }
    assert_eq!(count, 1000);
}

#[test]
fn failures_are_what_inngest_sends() {
    let event = failure("shop-checkout")
        .error(("CardError", "declined"))
        .event_name("shop/order.placed")
        .data(json!({ "order_id": "o1" }))
        .another(json!({ "order_id": "o2" }))
        .run_id("r1")
        .build();
    let parsed = event.parse::<Order>().unwrap();
    assert_eq!((parsed.function_id.as_str(), parsed.run_id.as_str()), ("shop-checkout", "r1"));
    assert_eq!(
        (parsed.error.name.as_str(), parsed.error.message.as_str()),
        ("CardError", "declined")
    );
    assert_eq!((parsed.event.name.as_str(), parsed.events.len()), ("shop/order.placed", 2));
    assert_eq!(parsed.events.parse(1).unwrap().data.order_id, "o2");
    let cancelled = failure("shop-checkout").cancelled().build().parse::<Value>().unwrap();
    assert_eq!(
        (cancelled.kind, cancelled.error.name.as_str()),
        (FailureKind::Cancelled, "Cancelled")
    );
    // A failure as the recordings have it.
    let recorded = tests::recorded_event("function_failed/custom-error-nested-cause.js-v3.json");
    let ours: Value = serde_json::from_str(event.raw().get()).unwrap();
    let keys = |event: &Value| event.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&ours), keys(&recorded));
    assert_eq!(keys(&ours["data"]), keys(&recorded["data"]));
    assert_eq!(keys(&ours["data"]["event"]), keys(&recorded["data"]["event"]));
}
