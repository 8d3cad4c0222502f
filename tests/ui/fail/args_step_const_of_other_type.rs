use inngest_failure::on_failure;

const FIRST: u8 = 1;

#[on_failure(function = "checkout", step = FIRST)]
async fn undo() {}

fn main() {}
