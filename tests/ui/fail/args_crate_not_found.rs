use inngest_failure::on_failure;

#[on_failure(function = "checkout", crate = crate::nowhere)]
async fn undo() {}

fn main() {}
