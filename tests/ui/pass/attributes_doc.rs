use inngest_failure::{Dispatcher, on_failure};

/// Undo a checkout
/// that ran out of retries.
///
/// - Give the *money* back.
///   - All of it.
#[on_failure(function = "a")]
async fn several_lines() {}

#[on_failure(function = "b")]
/// Below the attribute.
async fn below() {}

#[doc = "Spelt out."]
#[on_failure(function = "c")]
async fn spelt_out() {}

/**A block comment.*/
#[on_failure(function = "d")]
async fn block() {}

#[on_failure(function = "e")]
async fn none() {}

fn main() {
    let dispatcher = Dispatcher::builder().build().unwrap();
    let descriptions: Vec<_> =
        dispatcher.handlers().iter().map(|handler| handler.description).collect();
    assert_eq!(
        descriptions,
        [
            "Undo a checkout\nthat ran out of retries.\n\n- Give the *money* back.\n  - All of it.",
            "Below the attribute.",
            "Spelt out.",
            "A block comment.",
            "",
        ],
    );
}
