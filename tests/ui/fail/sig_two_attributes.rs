use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
#[on_failure(function = "refund")]
async fn undo() {}

fn main() {}
