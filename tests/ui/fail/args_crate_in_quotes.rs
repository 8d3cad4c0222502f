use inngest_failure::on_failure;

#[on_failure(function = "checkout", crate = "inngest_failure")]
async fn undo() {}

fn main() {}
