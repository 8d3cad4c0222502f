//! What a step does may borrow from its handler, which goes on with it afterwards.

use inngest_failure::{Dispatcher, Failure, HandlerError, Step, on_failure};

#[derive(serde::Deserialize)]
struct Order {
    order_id: String,
}

async fn refund(order_id: &str, key: &str) -> Result<String, HandlerError> {
    tokio::task::yield_now().await;
    Ok(format!("{order_id} {key}"))
}

#[on_failure(function = "checkout")]
async fn undo(failure: Failure<Order>, step: Step) -> Result<Vec<String>, HandlerError> {
    let order_id = &failure.event.data.order_id;
    let key = String::from("key");
    let mut log = Vec::new();
    // A closure that returns a future, one that is async, and one that borrows mutably.
    let refunded = step.run("refund", || refund(order_id, &key)).await?;
    let again = step.run("again", async || refund(order_id, &key).await).await?;
    step.run("log", async || {
        log.push(refunded.as_str());
        tokio::task::yield_now().await;
        log.push(&again);
        Ok::<_, HandlerError>(())
    })
    .await?;
    assert_eq!(log.len(), 2);
    let moved = async move || Ok::<_, HandlerError>(key);
    let key = step.run("move", moved).await?;
    Ok(vec![refunded, again, key])
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    let value = report.runs[0].result.as_ref().unwrap();
    assert_eq!(value, &serde_json::json!(["o1 key", "o1 key", "key"]));
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
