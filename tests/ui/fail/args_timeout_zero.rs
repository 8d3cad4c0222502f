use inngest_failure::on_failure;

#[on_failure(function = "checkout", timeout = "0s")]
async fn undo() {}

fn main() {}
