use inngest_failure::{Dispatcher, on_failure};

#[on_failure(function = "checkout")]
#[cfg(all())]
async fn here() {}

#[on_failure(function = "refund")]
#[cfg(any())]
async fn not_here() {}

#[cfg(any())]
#[on_failure(function = "ship")]
async fn not_here_either() {}

#[on_failure(function = "pack")]
#[cfg_attr(all(), cfg(all()))]
async fn here_by_cfg_attr() {}

#[on_failure(function = "bill")]
#[cfg_attr(all(), doc = "gone", cfg(any()))]
async fn not_here_by_cfg_attr() {}

fn main() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let ids: Vec<_> = dispatcher.handlers().iter().map(|handler| &handler.id).collect();
    assert_eq!(ids, ["checkout-failure", "pack-failure"]);
}
