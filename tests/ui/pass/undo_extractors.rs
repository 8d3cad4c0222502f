//! An undo takes what any handler takes, and may have steps of its own.

use inngest_failure::{
    Dispatcher, Failure, FailureEvent, HandlerError, RunContext, RunTrace, State, Step, StepOutput,
    on_failure, testing::failure,
};
use serde_json::json;

#[derive(serde::Deserialize)]
struct Order {
    order_id: String,
}

#[derive(Clone)]
struct Shop {
    name: &'static str,
}

#[on_failure(function = "checkout", step = "charge-card")]
async fn refund(
    charge: StepOutput<u32>,
    failure: Failure<Order>,
    event: FailureEvent,
    State(shop): State<Shop>,
    run: RunContext,
    trace: RunTrace,
    step: Step,
) -> Result<String, HandlerError> {
    assert_eq!(event.run_id(), failure.run_id);
    assert_eq!(run.handler_id, "shop-checkout-rollback/charge-card");
    let failed = &trace.failed_step().unwrap().name;
    let refunded = step.run("refund", async || Ok::<_, HandlerError>(*charge)).await?;
    Ok(format!("{} {} {refunded} {failed}", shop.name, failure.event.data.order_id))
}

#[on_failure(function = "checkout", step = "reserve-stock")]
async fn release() {}

#[on_failure(function = "checkout", step = "greet")]
async fn take_back(
    greeting: Result<StepOutput<u8>, inngest_failure::ParseError>,
) -> Result<bool, String> {
    Ok(greeting.is_err())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher =
        Dispatcher::builder().app("shop").state(Shop { name: "corner" }).build().unwrap();
    let [charge, greet, reserve] = dispatcher.handlers() else { panic!("{dispatcher:?}") };
    let steps = [charge, greet, reserve].map(|info| info.step.unwrap());
    assert_eq!(steps, ["charge-card", "greet", "reserve-stock"]);

    let event = failure("shop-checkout")
        .data(json!({ "order_id": "o1" }))
        .completed_step("greet", "hello")
        .completed_step("reserve-stock", "r-1")
        .completed_step("charge-card", 4200)
        .failed_step("ship")
        .build();
    let report = dispatcher.dispatch(event).await;
    let results: Vec<_> = report.runs.iter().map(|run| run.result.as_ref().unwrap()).collect();
    assert_eq!(results, [&json!("corner o1 4200 ship"), &json!(true), &json!(null)]);
}
