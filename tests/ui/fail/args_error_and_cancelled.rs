use inngest_failure::on_failure;

#[on_failure(function = "checkout", error = "CardError", cancelled)]
async fn undo() {}

fn main() {}
