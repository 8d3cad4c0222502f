use inngest_failure::on_failure;

#[on_failure(function = "checkout-*", step = "charge-card")]
async fn undo() {}

#[on_failure(step = "charge-card", function = "*", app = "shop")]
async fn undo_of_all() {}

fn main() {}
