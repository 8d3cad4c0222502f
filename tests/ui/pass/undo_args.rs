//! What goes with `step`.

use std::time::Duration;

use inngest_failure::{Dispatcher, StepOutput, on_failure, testing::failure};

mod ids {
    pub const CHECKOUT: &str = "checkout";
    pub mod steps {
        pub const CHARGE: &str = concat!("charge", "-", "card");
    }
}

#[on_failure(
    function = ids::CHECKOUT,
    app = "shop",
    step = ids::steps::CHARGE,
    error = "CardError",
    retries = 20,
    timeout = "2h45m",
    crate = ::inngest_failure,
)]
async fn refund(charge_id: StepOutput<String>) -> Result<String, String> {
    Ok(charge_id.into_inner())
}

#[on_failure(step = "reserve stock / \"all\"", function = "shop-checkout", cancelled, retries = 0)]
async fn release() {}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let [refund, release] = dispatcher.handlers() else { panic!("{dispatcher:?}") };
    assert_eq!(refund.id, "shop-checkout-rollback/charge-card");
    assert_eq!(refund.step, Some("charge-card"));
    assert_eq!(refund.selector, "shop-checkout, error CardError, step charge-card");
    assert_eq!((refund.retries, refund.timeout), (20, Some(Duration::from_secs(9900))));
    assert_eq!(release.id, "shop-checkout-rollback/reserve stock / \"all\"");
    assert_eq!(release.step, Some("reserve stock / \"all\""));
    assert_eq!((release.retries, release.timeout), (0, None));
    let events = |triggers: &[inngest_failure::Trigger]| -> Vec<&str> {
        triggers.iter().map(|trigger| trigger.event).collect()
    };
    assert_eq!(events(&refund.triggers), ["inngest/function.failed"]);
    let both = ["inngest/function.failed", "inngest/function.cancelled"];
    assert_eq!(events(&release.triggers), both);

    let event = failure("shop-checkout").error(("CardError", "declined"));
    let event = event.completed_step("charge-card", "ch_1").build();
    let report = dispatcher.dispatch(event).await;
    assert_eq!(report.runs[0].result.as_ref().unwrap(), "ch_1");
    assert_eq!(report.runs[1].handler_id, release.id);
}
