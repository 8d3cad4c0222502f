use inngest_failure::on_failure;

#[on_failure(function = "checkout")]
async fn undo<T>(_failure: inngest_failure::Failure<T>) {}

fn main() {}
