use inngest_failure::{Failure, on_failure};

#[on_failure(function = "checkout")]
async fn undo(_failure: Failure<_>) {}

fn main() {}
