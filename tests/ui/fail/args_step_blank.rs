use inngest_failure::on_failure;

#[on_failure(function = "checkout", step = " ")]
async fn undo() {}

#[on_failure(function = "checkout", step)]
async fn undo_nothing() {}

fn main() {}
