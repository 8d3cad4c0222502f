//! The attribute `#[on_failure(..)]` of the crate [`inngest-failure`], which re-exports it: depend on
//! that one. What the attribute writes refers to `::inngest_failure`.
//!
//! [`inngest-failure`]: https://docs.rs/inngest-failure

mod args;
mod expand;
mod model;
mod validate;

use proc_macro::TokenStream;

/// Makes a function the handler of an Inngest function's failures.
///
/// The function stays as it is written: it can be called and tested like any other. The attribute
/// registers it at link time, and a [`Dispatcher`] runs it for each failure that it is meant for.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `function = ".."` | the id of the function whose failures to handle, relative to the app. May hold `*`, which is any run of characters. A bare `*` is every function of the environment, or of `app` where the attribute names one. Required, unless `fallback` |
/// | `fallback` | handle what no handler takes that names the function |
/// | `app = ".."` | the function's app. Default: the dispatcher's `app`; with neither, `function` is the whole composite id |
/// | `error = ".."` | only failures whose error has this name: `data.error.name` of the event |
/// | `cancelled` | also handle runs that were cancelled, as Inngest's own time-outs do |
/// | `id = ".."` | the handler's id. Default: the composite id of the function and `-failure`; for a pattern, `*` or a fallback the Rust name in kebab case, which changes when the function is renamed |
/// | `name = ".."` | the display name. Default: `<function> (failure)` |
/// | `retries = 3` | attempts after the first one, 0 to 20. Default: 3 |
/// | `timeout = "30s"` | how long one call may take, such as `500ms`, `30s`, `5m`, `2h45m`, `1d`. Default: any time |
/// | `concurrency = 10` | calls of this handler at once in this process. Default: any number |
/// | `crate = path` | where the crate `inngest_failure` is, if it was renamed |
///
/// What is a text is a string literal or the path of a `const` of type `&'static str`.
///
/// # The function
///
/// - Any number of arguments, each an extractor: a type that implements [`FromFailure`].
/// - It returns nothing, or `Result<T, E>` with `T: Serialize` and an `E` that turns into
///   [`HandlerError`], as every error does.
/// - An `async fn` is dropped at its current `.await` when its time is over or its dispatch is
///   dropped. Its future is `Send`.
/// - A plain `fn` runs on Tokio's blocking pool. It can't be stopped: once it has started it runs to
///   its end. When its time is over the attempt has failed, but the next one starts, and its
///   place under `concurrency` is free, only after it has returned.
/// - No generics, lifetimes, `self`, `unsafe`, `const` or `extern`: Inngest calls it, with nothing but
///   the failure.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Failure, HandlerError, State, on_failure};
///
/// # #[derive(Clone)]
/// # struct Shop;
/// # impl Shop {
/// #     async fn refund(&self, _: &str, _: &str) -> Result<(), std::io::Error> { Ok(()) }
/// # }
/// #[derive(serde::Deserialize)]
/// struct Order {
///     order_id: String,
/// }
///
/// /// Give the money back.
/// #[on_failure(function = "checkout", retries = 5, timeout = "30s")]
/// async fn refund(failure: Failure<Order>, State(shop): State<Shop>) -> Result<(), HandlerError> {
///     let order = &failure.event.data;
///     shop.refund(&order.order_id, &failure.idempotency_key("refund")).await?;
///     Ok(())
/// }
///
/// /// Count every failure of every function.
/// #[on_failure(function = "*", cancelled, retries = 0)]
/// fn count(failure: Failure) {
///     println!("{} {:?}", failure.function_id, failure.kind);
/// }
/// ```
///
/// # Errors
///
/// Every fault in the arguments or the signature is a compile error of its own, with the remedy. What
/// can be known only at start-up is an error of [`build()`].
///
/// [`Dispatcher`]: https://docs.rs/inngest-failure/latest/inngest_failure/struct.Dispatcher.html
/// [`FromFailure`]: https://docs.rs/inngest-failure/latest/inngest_failure/trait.FromFailure.html
/// [`HandlerError`]: https://docs.rs/inngest-failure/latest/inngest_failure/struct.HandlerError.html
/// [`build()`]: https://docs.rs/inngest-failure/latest/inngest_failure/struct.DispatcherBuilder.html#method.build
#[proc_macro_attribute]
pub fn on_failure(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::on_failure(args.into(), item.into()).into()
}
