use inngest_failure::on_failure;

#[on_failure(function = "checkout", timout = "30s", canceled)]
async fn undo() {}

#[on_failure(fn = "refund")]
async fn undo_refund() {}

fn main() {}
