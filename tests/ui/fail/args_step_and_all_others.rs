use inngest_failure::on_failure;

#[on_failure(
    function = "checkout-*",
    fallback,
    step = "charge-card",
    id = "refund",
    name = "refund",
    concurrency = 10,
    throttle = "10/1m",
    rate_limit = "1/5m",
    priority = 100,
    idempotency = "event.data.run_id"
)]
async fn undo(_order: &str) {}

fn main() {}
