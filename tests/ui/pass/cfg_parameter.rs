use inngest_failure::{Dispatcher, Failure, HandlerError, State, on_failure};

#[on_failure(function = "checkout")]
async fn undo(
    #[cfg(any())] State(_shop): State<NotThere>,
    failure: Failure,
    #[cfg(all())] State(text): State<&'static str>,
    #[cfg_attr(all(), cfg(any()))] _gone: NotThere,
) -> Result<String, HandlerError> {
    Ok(format!("{text} {}", failure.error.message))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").state("card").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), "card declined");
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
