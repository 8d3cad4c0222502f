use inngest_failure::on_failure;

#[on_failure(function = "checkout", retries = "3")]
async fn text() {}

#[on_failure(function = "refund", retries = 3.5)]
async fn fraction() {}

#[on_failure(function = "ship", retries = 3u8)]
async fn suffix() {}

fn main() {}
