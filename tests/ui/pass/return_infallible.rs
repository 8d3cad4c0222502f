use std::convert::Infallible;

use inngest_failure::{Dispatcher, on_failure};

#[on_failure(function = "checkout")]
async fn undo() -> Result<u32, Infallible> {
    Ok(1)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), 1);
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
