use inngest_failure::on_failure;

#[on_failure(function = "checkout", crate = crate)]
async fn undo() {}

fn main() {}
