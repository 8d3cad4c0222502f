use inngest_failure::on_failure;

const CHECKOUT: u32 = 1;

#[on_failure(function = CHECKOUT)]
async fn undo() {}

#[on_failure(function = "refund", id = String::new)]
async fn undo_refund() {}

fn main() {}
