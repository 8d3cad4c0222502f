use inngest_failure::{Dispatcher, HandlerError, on_failure};

#[on_failure(function = "checkout", id = "a")]
async fn nothing() {}

#[on_failure(function = "checkout", id = "b")]
async fn unit() -> () {}

#[on_failure(function = "checkout", id = "c")]
async fn ok() -> Result<(), HandlerError> {
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs.len(), 3);
    assert!(report.runs.iter().all(|run| run.result.as_ref().unwrap().is_null()));
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
