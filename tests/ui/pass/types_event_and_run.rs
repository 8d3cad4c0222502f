use inngest_failure::{Dispatcher, FailureEvent, HandlerError, RunContext, on_failure};

#[on_failure(function = "checkout", retries = 2)]
async fn undo(event: FailureEvent, run: RunContext) -> Result<(String, u32), HandlerError> {
    assert_eq!(run.handler_id, "shop-checkout-failure");
    Ok((event.function_id().to_owned(), run.max_attempts))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), &serde_json::json!(["shop-checkout", 3]));
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
