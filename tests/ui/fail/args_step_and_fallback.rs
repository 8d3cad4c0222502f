use inngest_failure::on_failure;

#[on_failure(fallback, step = "charge-card")]
async fn undo() {}

#[on_failure(function = "checkout", fallback, step = "charge-card")]
async fn undo_of_both() {}

fn main() {}
