use inngest_failure::on_failure;

#[on_failure(function = "checkout", timeout = 30)]
async fn number() {}

#[on_failure(function = "refund", timeout = "30")]
async fn text() {}

fn main() {}
