use inngest_failure::on_failure;

#[on_failure(function = "checkout", step = "charge-card", step = "reserve-stock")]
async fn undo() {}

fn main() {}
