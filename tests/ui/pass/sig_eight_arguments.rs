use inngest_failure::{
    Dispatcher, Failure, FailureEvent, HandlerError, RunContext, State, on_failure,
};

#[allow(clippy::too_many_arguments)]
#[on_failure(function = "checkout")]
async fn undo(
    failure: Failure,
    event: FailureEvent,
    run: RunContext,
    State(text): State<&'static str>,
    State(number): State<u32>,
    again: Failure,
    State(flag): State<bool>,
    once_more: FailureEvent,
) -> Result<(String, u32, bool), HandlerError> {
    assert_eq!(failure.run_id, event.run_id());
    assert_eq!(again.run_id, once_more.run_id());
    Ok((format!("{text} {}", run.handler_id), number, flag))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher =
        Dispatcher::builder().app("shop").state("text").state(8_u32).state(true).build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    let expected = serde_json::json!(["text shop-checkout-failure", 8, true]);
    assert_eq!(report.runs[0].result.as_ref().unwrap(), &expected);
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
