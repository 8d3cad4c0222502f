use inngest_failure::on_failure;

#[on_failure(function = "checkout", concurrency = 0)]
async fn zero() {}

#[on_failure(function = "refund", concurrency = "10")]
async fn text() {}

fn main() {}
