use inngest_failure::{Dispatcher, on_failure};

#[on_failure(function = "*")]
async fn count_all_v2() {}

#[on_failure(function = "check*", id = "every-check")]
async fn checks() {}

fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let ids: Vec<_> = dispatcher.handlers().iter().map(|handler| &handler.id).collect();
    assert_eq!(ids, ["count-all-v2", "every-check"]);
}
