use inngest_failure::{Dispatcher, Failure, HandlerError, RunContext, State, on_failure};

#[on_failure(function = "checkout")]
async fn undo(
    State(suffix): State<&'static str>,
    Failure { event, error, .. }: Failure,
    _: RunContext,
    mut run: RunContext,
    _unused: Failure,
) -> Result<String, HandlerError> {
    run.handler_id.push_str(suffix);
    Ok(format!("{} {} {}", event.data["order_id"], error.message, run.handler_id))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").state("!").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), "\"o1\" declined shop-checkout-failure!",);
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
