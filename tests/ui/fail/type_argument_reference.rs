use inngest_failure::{Failure, on_failure};

#[on_failure(function = "checkout")]
async fn undo(_failure: &Failure) {}

#[on_failure(function = "refund")]
async fn undo_refund(_failure: &mut Failure) {}

fn main() {}
