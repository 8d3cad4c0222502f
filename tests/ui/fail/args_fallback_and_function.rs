use inngest_failure::on_failure;

#[on_failure(function = "checkout", fallback)]
async fn undo() {}

fn main() {}
