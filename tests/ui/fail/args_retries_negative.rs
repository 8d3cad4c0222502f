use inngest_failure::on_failure;

#[on_failure(function = "checkout", retries = -1)]
async fn undo() {}

fn main() {}
