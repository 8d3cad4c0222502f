use inngest_failure::{Dispatcher, on_failure};

#[on_failure(function = "checkout", retries = 0)]
async fn undo() -> Result<(), &'static str> {
    Err("declined")
}

#[on_failure(function = "checkout", id = "plain", retries = 0)]
fn undo_plain() -> Result<(), &'static str> {
    Err("declined")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs.len(), 2);
    for run in &report.runs {
        assert_eq!(run.result.as_ref().unwrap_err().to_string(), "declined");
    }
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
