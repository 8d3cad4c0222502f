use inngest_failure::{Failure, on_failure};

#[on_failure(function = "checkout")]
fn undo(failure: Failure) -> bool {
    failure.error.stack.is_some()
}

fn main() {}
