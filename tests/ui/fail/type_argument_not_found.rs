use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo(_failure: inngest_failure::Failure<Order>) {}

fn main() {}
