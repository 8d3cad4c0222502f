use inngest_failure::{Dispatcher, on_failure};

#[on_failure(function = "checkout")]
async fn undo() {}

#[on_failure(function = "*")]
fn count() {}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs.len(), 2);
    assert!(report.runs.iter().all(|run| run.result.as_ref().unwrap().is_null()));
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
