use inngest_failure::{
    Context, Dispatcher, Failure, FromFailure, HandlerError, ParseError, on_failure,
};

#[derive(serde::Deserialize)]
struct Invoice {
    #[allow(dead_code)]
    number: u32,
}

#[on_failure(function = "checkout", id = "a")]
async fn undo(invoice: Result<Failure<Invoice>, ParseError>) -> Result<String, HandlerError> {
    Ok(invoice.err().unwrap().to_string())
}

struct Never;

impl FromFailure for Never {
    type Rejection = HandlerError;

    async fn from_failure(_: &Context) -> Result<Self, HandlerError> {
        Err("never".into())
    }
}

#[on_failure(function = "checkout", id = "b")]
fn undo_plain(never: Result<Never, <Never as FromFailure>::Rejection>) -> Result<String, String> {
    Ok(never.err().unwrap().to_string())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    let first = report.runs[0].result.as_ref().unwrap().as_str().unwrap();
    assert!(first.contains("number"), "{first}");
    assert_eq!(report.runs[1].result.as_ref().unwrap(), "never");
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
