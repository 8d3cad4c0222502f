use inngest_failure::on_failure;

#[on_failure(function = "checkout", timeout = "99999999999999999999y")]
async fn undo() {}

fn main() {}
