//! Traits of the user's that put methods on everything do not get in the way.

use inngest_failure::{Dispatcher, Failure, HandlerError, on_failure};

trait Everything: Sized {
    fn function(self, _: &str) -> Self {
        unreachable!()
    }
    fn retries(self, _: u32) -> Self {
        unreachable!()
    }
    fn next(&mut self) {
        unreachable!()
    }
    fn into_output(self) {
        unreachable!()
    }
    fn needs(&mut self) {
        unreachable!()
    }
    fn registration() {
        unreachable!()
    }
}

impl<T> Everything for T {}

#[on_failure(function = "checkout", retries = 1)]
async fn undo(failure: Failure) -> Result<String, HandlerError> {
    Ok(failure.run_id)
}

fn main() {
    let registered = inngest_failure::handlers![undo];
    let dispatcher =
        Dispatcher::builder().without_inventory().register(registered).build().unwrap();
    assert_eq!(dispatcher.handlers()[0].retries, 1);
}
