use inngest_failure::on_failure;

const SOON: &str = "30s";

#[on_failure(function = "checkout", timeout = SOON)]
async fn undo() {}

fn main() {}
