//! Functions whose names the attribute gives to its own variables.

use inngest_failure::{Dispatcher, Failure, on_failure};

#[on_failure(function = "checkout", id = "a")]
async fn __arg0(__arguments: Failure) -> Result<String, String> {
    Ok(__arguments.run_id)
}

#[on_failure(function = "checkout", id = "b")]
fn __output(__arg0: Failure) -> Result<String, String> {
    Ok(__arg0.run_id)
}

#[on_failure(function = "checkout", id = "c")]
fn __arguments(__take: Failure) -> Result<String, String> {
    Ok(__take.run_id)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs.len(), 3);
    assert!(report.runs.iter().all(|run| run.result.as_ref().unwrap() == "r1"));
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{}}}}"#;
