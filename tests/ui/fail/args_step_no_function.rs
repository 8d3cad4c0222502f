use inngest_failure::on_failure;

#[on_failure(step = "charge-card")]
async fn undo() {}

fn main() {}
