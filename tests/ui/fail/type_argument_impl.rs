use inngest_failure::{FromFailure, on_failure};

#[on_failure(function = "checkout")]
async fn undo(_anything: impl FromFailure) {}

fn main() {}
