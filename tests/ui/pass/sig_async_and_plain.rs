use inngest_failure::{Dispatcher, Failure, HandlerError, on_failure};

#[on_failure(function = "checkout", id = "async")]
async fn asynchronous(failure: Failure) -> Result<String, HandlerError> {
    Ok(format!("async {}", failure.error.message))
}

#[on_failure(function = "checkout", id = "plain")]
fn plain(failure: Failure) -> Result<String, HandlerError> {
    Ok(format!("plain {}", failure.error.message))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    let results: Vec<_> = report.runs.iter().map(|run| run.result.as_ref().unwrap()).collect();
    assert_eq!(results, ["async declined", "plain declined"]);
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{}}}}"#;
