use inngest_failure::{Failure, FailureEvent, HandlerError, State, on_failure};

#[on_failure(function = "checkout")]
async fn undo(failure: Failure, State(text): State<String>) -> Result<String, HandlerError> {
    Ok(format!("{text} {}", failure.error.message))
}

#[on_failure(function = "refund")]
fn undo_refund(State(number): State<u32>) -> Result<u32, String> {
    Ok(number + 1)
}

fn takes_a_function(f: fn(State<u32>) -> Result<u32, String>) -> u32 {
    f(State(2)).unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let event: FailureEvent =
        r#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
        "run_id":"r1","error":{"message":"declined"},"event":{"data":{}}}}"#
            .parse()
            .unwrap();
    let failure = event.parse().unwrap();
    assert_eq!(undo(failure, State("card".to_owned())).await.unwrap(), "card declined");
    assert_eq!(undo_refund(State(1)), Ok(2));
    assert_eq!(takes_a_function(undo_refund), 3);
}
