use inngest_failure::on_failure;

#[on_failure(function = "checkout", steps = "charge-card")]
async fn undo() {}

#[on_failure(function = "checkout", step_id = "charge-card")]
async fn undo_again() {}

fn main() {}
