//! Lints of a strict crate do not fire in what the attribute writes.

#![forbid(unsafe_code)]
#![deny(
    warnings,
    future_incompatible,
    keyword_idents,
    let_underscore,
    missing_copy_implementations,
    missing_debug_implementations,
    missing_docs,
    nonstandard_style,
    rust_2018_idioms,
    rust_2021_compatibility,
    rust_2024_compatibility,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unreachable_pub,
    unused,
    unused_crate_dependencies,
    unused_import_braces,
    unused_lifetimes,
    unused_qualifications,
    unused_results,
    variant_size_differences
)]
// The dependencies of the other cases.
#![allow(unused_crate_dependencies)]

use inngest_failure::{Dispatcher, Failure, HandlerError, State, handlers, on_failure};

/// A constant.
pub const REFUND: &str = "refund";

/// Undo a checkout.
#[on_failure(function = "checkout", timeout = "30s")]
pub async fn undo(
    failure: Failure,
    State(text): State<&'static str>,
) -> Result<String, HandlerError> {
    Ok(format!("{text}{}", failure.run_id))
}

#[on_failure(function = REFUND, concurrency = 1)]
fn undo_refund(_: Failure<serde_json::Value>) {}

mod inner {
    #[inngest_failure::on_failure(fallback)]
    pub(crate) async fn rest() {}
}

fn main() {
    let handlers = handlers![undo, undo_refund, inner::rest];
    let dispatcher = Dispatcher::builder().state("").register(handlers).build();
    assert_eq!(dispatcher.unwrap().handlers().len(), 3);
}
