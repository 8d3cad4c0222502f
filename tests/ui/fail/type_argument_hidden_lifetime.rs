use inngest_failure::{Failure, on_failure};

#[derive(serde::Deserialize)]
struct Order<'a> {
    order_id: &'a str,
}

#[on_failure(function = "checkout")]
async fn undo(_failure: Failure<Order>) {}

fn main() {}
