#![deny(warnings)]

use inngest_failure::{Dispatcher, Failure, on_failure};

#[deprecated = "refund by hand"]
#[on_failure(function = "checkout")]
pub async fn undo() {}

#[on_failure(function = "refund")]
#[deprecated(since = "1.0.0", note = "refund by hand")]
pub async fn undo_refund() {}

#[allow(unused_variables, non_snake_case)]
#[inline]
#[on_failure(function = "ship")]
async fn Ship(failure: Failure) {}

#[on_failure(function = "pack")]
#[must_use]
#[track_caller]
fn pack() -> Result<u32, String> {
    Ok(1)
}

#[cold]
#[expect(unused_variables)]
#[on_failure(function = "bill")]
fn bill(failure: Failure) {}

fn main() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    assert_eq!(dispatcher.handlers().len(), 5);
    assert_eq!(pack(), Ok(1));
}
