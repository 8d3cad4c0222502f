use inngest_failure::{Dispatcher, on_failure};

#[on_failure(function = "checkout")]
async fn refund() {}

#[on_failure(function = "checkout", id = "checkout-restock")]
async fn restock() {}

#[on_failure(function = "checkout", error = "CardError", id = "checkout-card")]
async fn card() {}

fn main() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let ids: Vec<_> = dispatcher.handlers().iter().map(|handler| &handler.id).collect();
    assert_eq!(ids, ["checkout-card", "checkout-failure", "checkout-restock"]);
}
