use inngest_failure::on_failure;

const BLANK: &str = "";

#[on_failure(function = "checkout", step = BLANK)]
async fn undo() {}

fn main() {}
