use inngest_failure::on_failure;

#[on_failure(function = "checkout",, retries = 3)]
async fn undo() {}

#[on_failure(, function = "refund")]
async fn undo_refund() {}

fn main() {}
