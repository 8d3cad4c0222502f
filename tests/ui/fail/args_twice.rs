use inngest_failure::on_failure;

#[on_failure(function = "checkout", retries = 3, function = "refund")]
async fn undo() {}

fn main() {}
