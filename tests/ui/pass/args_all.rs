use std::time::Duration;

use inngest_failure::{Dispatcher, on_failure};

#[on_failure(
    function = "checkout",
    app = "shop",
    error = "CardError",
    id = "undo-checkout",
    name = "undo a checkout",
    retries = 20,
    timeout = "2h45m",
    concurrency = 10,
    throttle = "10/1m",
    rate_limit = "1/24h",
    priority = -600,
    idempotency = "event.data.event.data.order_id",
    crate = ::inngest_failure,
)]
async fn undo() {}

#[on_failure(fallback, cancelled, retries = 0)]
async fn rest() {}

fn main() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let [rest, undo] = dispatcher.handlers() else { panic!("{dispatcher:?}") };
    assert_eq!(undo.id, "undo-checkout");
    assert_eq!(undo.name, "undo a checkout");
    assert_eq!(undo.selector, "shop-checkout, error CardError");
    assert_eq!(undo.retries, 20);
    assert_eq!(undo.timeout, Some(Duration::from_secs(9900)));
    assert_eq!(undo.concurrency, Some(10));
    assert_eq!(undo.throttle.unwrap().to_string(), "10/1m");
    assert_eq!(undo.rate_limit.unwrap().to_string(), "1/1d");
    assert_eq!(undo.priority, Some(-600));
    assert_eq!(undo.idempotency, Some("event.data.event.data.order_id"));
    assert_eq!(rest.id, "rest");
    assert_eq!(rest.triggers.len(), 2);
    assert_eq!((rest.retries, rest.timeout, rest.concurrency), (0, None, None));
}
