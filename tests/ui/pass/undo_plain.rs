//! A plain `fn` undoes a step as well.

use inngest_failure::{Dispatcher, Failure, StepOutput, on_failure, testing::failure};

#[on_failure(function = "checkout", step = "charge-card")]
fn refund(charge_id: StepOutput<String>, failure: Failure) -> Result<String, String> {
    Ok(format!("{} {}", *charge_id, failure.error.message))
}

#[on_failure(function = "checkout", step = "reserve-stock")]
fn release() {}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let ids: Vec<_> = dispatcher.handlers().iter().map(|info| info.id.as_str()).collect();
    assert_eq!(ids, ["shop-checkout-rollback/charge-card", "shop-checkout-rollback/reserve-stock"]);
    let event = failure("shop-checkout").error("declined").completed_step("charge-card", "ch_1");
    let report = dispatcher.dispatch(event.build()).await;
    assert_eq!(report.runs[0].result.as_ref().unwrap(), "ch_1 declined");
    assert!(report.runs[1].result.as_ref().unwrap().is_null());
    assert_eq!([report.runs[0].attempts, report.runs[1].attempts], [1, 0]);
}
