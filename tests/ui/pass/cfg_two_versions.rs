use inngest_failure::{Dispatcher, handlers, on_failure};

#[cfg(all())]
#[on_failure(function = "checkout")]
async fn undo() {}

#[cfg(not(all()))]
#[on_failure(function = "refund")]
async fn undo() {}

fn main() {
    let handlers = handlers![undo];
    let dispatcher = Dispatcher::builder().without_inventory().register(handlers).build().unwrap();
    assert_eq!(dispatcher.handlers()[0].id, "checkout-failure");
}
