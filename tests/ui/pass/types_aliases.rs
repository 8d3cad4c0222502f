use inngest_failure::{Dispatcher, Failure, HandlerError, State, on_failure};

#[derive(serde::Deserialize)]
struct Order {
    order_id: String,
}

type Checkout = Failure<Order>;
type Text = State<&'static str>;
type Handled<T = ()> = Result<T, HandlerError>;
type Unit = ();

#[on_failure(function = "checkout", id = "a")]
async fn undo(failure: Checkout, State(text): Text) -> Handled<String> {
    Ok(format!("{text} {}", failure.event.data.order_id))
}

#[on_failure(function = "checkout", id = "b")]
async fn ok(_: Checkout) -> Handled {
    Ok(())
}

#[on_failure(function = "checkout", id = "c")]
fn nothing() -> Unit {}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").state("order").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), "order o1");
    assert!(report.runs[1..].iter().all(|run| run.result.as_ref().unwrap().is_null()));
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
