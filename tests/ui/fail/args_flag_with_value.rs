use inngest_failure::on_failure;

#[on_failure(function = "checkout", cancelled = true)]
async fn undo() {}

#[on_failure(fallback = "checkout")]
async fn undo_refund() {}

fn main() {}
