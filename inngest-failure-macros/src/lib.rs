//! The attribute `#[on_failure(..)]` of the crate [`inngest-failure`], which re-exports it: depend on
//! that one. What the attribute writes refers to `::inngest_failure`.
//!
//! [`inngest-failure`]: https://docs.rs/inngest-failure

mod args;
mod expand;
mod model;
mod validate;

use proc_macro::TokenStream;

/// Makes a function the handler of an Inngest function's failures: see `inngest_failure::on_failure`.
#[proc_macro_attribute]
pub fn on_failure(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::on_failure(args.into(), item.into()).into()
}
