use inngest_failure::{Failure, on_failure};

struct Order;

#[on_failure(function = "checkout")]
async fn undo(_failure: Failure<Order>) {}

fn main() {}
