use inngest_failure::{State, on_failure};

#[on_failure(function = "checkout")]
async fn undo(State(_shop): State<std::cell::Cell<u32>>) {}

fn main() {}
