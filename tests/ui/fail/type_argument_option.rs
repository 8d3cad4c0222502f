use inngest_failure::{Failure, on_failure};

#[on_failure(function = "checkout")]
async fn undo(_failure: Option<Failure>) {}

fn main() {}
