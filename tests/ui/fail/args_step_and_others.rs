use inngest_failure::on_failure;

#[on_failure(function = "checkout", step = "charge-card", id = "refund")]
async fn with_id() {}

#[on_failure(function = "checkout", step = "charge-card", name = "refund")]
async fn with_name() {}

#[on_failure(function = "checkout", step = "charge-card", concurrency = 10)]
async fn with_concurrency() {}

#[on_failure(function = "checkout", step = "charge-card", throttle = "10/1m")]
async fn with_throttle() {}

#[on_failure(function = "checkout", step = "charge-card", rate_limit = "1/5m")]
async fn with_rate_limit() {}

#[on_failure(function = "checkout", step = "charge-card", priority = 100)]
async fn with_priority() {}

#[on_failure(function = "checkout", step = "charge-card", idempotency = "event.data.run_id")]
async fn with_idempotency() {}

fn main() {}
