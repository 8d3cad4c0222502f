use inngest_failure::on_failure;

const APPS: &str = "shop*";

#[on_failure(function = "checkout", app = APPS)]
async fn undo() {}

fn main() {}
