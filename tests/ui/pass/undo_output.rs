//! What an undo usually takes: what its step had returned, and nothing else.

use inngest_failure::{Dispatcher, StepOutput, on_failure, testing::failure};

#[derive(serde::Deserialize)]
struct Charge {
    charge_id: String,
}

#[on_failure(function = "checkout", step = "charge-card")]
async fn refund(charge: StepOutput<Charge>) -> Result<String, std::io::Error> {
    assert_eq!((charge.step_id.as_str(), charge.index), ("charge-card", 0));
    Ok(charge.into_inner().charge_id)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let [info] = dispatcher.handlers() else { panic!("{dispatcher:?}") };
    assert_eq!(info.id, "shop-checkout-rollback/charge-card");
    assert_eq!(info.step, Some("charge-card"));

    let charge = serde_json::json!({ "charge_id": "ch_1" });
    let event = failure("shop-checkout").completed_step("charge-card", charge).build();
    let report = dispatcher.dispatch(event).await;
    assert_eq!(report.runs[0].handler_id, info.id);
    assert_eq!(report.runs[0].result.as_ref().unwrap(), "ch_1");
}
