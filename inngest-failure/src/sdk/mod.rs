//! Handlers as functions of an existing server of the `inngest` crate, Inngest's Rust SDK.
//!
//! A server that serves functions with that SDK (`inngest` 0.1.1, on axum 0.6) serves the handlers as well, as functions of
//! the same app: one URL, one sync, one signing key.
//!
//! **Licence.** The crate `inngest` is licensed under GPL-3.0, which a program that is built with this feature has to
//! comply with. It also links OpenSSL, whose headers must be there when it is built.
//!
//! # Examples
//!
//! ```no_run,standalone_crate
//! # use axum_06 as axum;
//! use std::sync::Arc;
//!
//! use axum::{Router, extract::DefaultBodyLimit, routing::get};
//! use inngest::{client::Inngest, handler::Handler, result::Error, serve};
//! use inngest_failure::{Dispatcher, Failure, HandlerError, Step, on_failure, sdk};
//! use serde_json::Value;
//!
//! /// A function of the app `shop`, the one below or one in another program.
//! #[on_failure(function = "checkout")]
//! async fn undo_checkout(failure: Failure, step: Step) -> Result<(), HandlerError> {
//!     let key = failure.idempotency_key("refund");
//!     step.run("refund", || refund(&key)).await?;
//!     Ok(())
//! }
//! # async fn refund(_: &str) -> std::io::Result<()> { Ok(()) }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Inngest::new("shop");
//! let dispatcher = Dispatcher::builder().app("shop").build()?;
//! let mut handler: Handler<Value, Error> = Handler::new(&client);
//! // handler.register_fn(checkout(&client));
//! handler.register_fns(sdk::servable_fns(&dispatcher, &client));
//!
//! let inngest = get(serve::axum::introspect).put(serve::axum::register).post(serve::axum::invoke);
//! let app = Router::new()
//!     .route("/api/inngest", inngest)
//!     .route_layer(DefaultBodyLimit::max(4 * 1024 * 1024))
//!     .route_layer(sdk::Layer::from_env()?)
//!     .with_state(Arc::new(handler));
//! axum::Server::bind(&([127, 0, 0, 1], 3000).into()).serve(app.into_make_service()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What becomes of the attribute
//!
//! | argument | here |
//! |---|---|
//! | `function`, `app`, `error`, `fallback` | the function's trigger, as at an `Endpoint` |
//! | `cancelled` | a second function, `{id}-cancelled`, for the SDK knows one trigger of a function |
//! | `id` | the function's id, without the app's prefix if it has it, for the SDK puts that before it. It makes a slug of it: `Shop_Undo` becomes `shop-undo` |
//! | `name`, `retries` | the function's |
//! | `timeout` | kept in this process, for each call |
//! | `concurrency` | kept in this process: a call above it waits for its turn, its connection open |
//! | `throttle` | kept in this process, in the same way. With [`Step`](crate::Step), refused at start-up |
//! | `rate_limit` | kept in this process: a run above it does not take place. It is answered as one that succeeded, with a warning in the log |
//! | `priority`, `idempotency` | refused at start-up: only Inngest could keep them, and the SDK does not tell it |
//!
//! A server's own settings apply to it alone: of two copies, each lets as many calls run as `concurrency` says.
//!
//! # Steps
//!
//! [`Step`](crate::Step) is the same, carried by the SDK's own step tool; Inngest remembers what has completed. What differs:
//!
//! - **One step at a time.** Of steps that are awaited together the first one to be met runs, or sleeps, or waits, and the
//!   others begin when it has ended: the SDK would start a step that is in flight once more. So `select!` between a step that
//!   waits and one that sleeps has no race: the first one wins.
//! - **A step that failed for good is green on the dashboard.** The SDK can't tell Inngest of a step's failure, so it
//!   is the value of a step that ran, in an envelope (`{"inngest-failure":{"error":..}}`). The handler sees a
//!   [`StepError`](crate::StepError), as everywhere.
//! - The ids of steps are hashed in the SDK's way. A handler that moves from the SDK to an `Endpoint` begins its runs anew.
//! - `send_event` sends with the dispatcher's [`Api`](crate::Api): give its builder an `.api(..)`.
//! - An event that `wait_for_event` was given has lost its `user`, and so has an event that the SDK has read. One that
//!   the SDK can't read, for it has no `data`, counts as one that did not come.
//! - A run whose events and steps are too large for a call, 4 MiB, fails: the SDK does not fetch them.
//!
//! # Errors
//!
//! | a handler's error | the SDK's | what Inngest is told | with [`Layer`] |
//! |---|---|---|---|
//! | retriable | `DevError::Basic` | 500, the message as bare text | 500, name, message, stack and causes |
//! | retry-after | `DevError::RetryAt` | 500 with `retry-after`, the message | 500 with `retry-after`, all of it |
//! | non-retriable | `DevError::NoRetry` | 500, the text `no retry error`: **it is tried again, and its message is lost** | 400 with `x-inngest-no-retry: true`, all of it |
//! | of a step that is to be tried again | that of the step tool, or `DevError::RetryAt` | 500, `Step failed` and the message | 500, all of it |
//!
//! In dev mode an unsigned call passes [`Layer`] as it is, its body unread and unbounded but for axum's own limit.
//!
//! A panic is a retriable error with its message and place, a call that took too long one as well. [`handler_error`] takes
//! the SDK's errors the other way.
//!
//! `E`, the error type of the server, is made of the SDK's and must keep it: what its tool returns to say that there is a
//! step panics when it is dropped.

mod check;
mod error;
mod event_data;
mod function;
mod layer;

use std::fmt::Debug;

use inngest::{client::Inngest, function::ServableFn, result::Error};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    error::handler_error,
    event_data::{EventData, adapt},
    layer::{Guard, GuardFuture, Layer, ResponseBody},
};
use crate::{dispatcher::Dispatcher, error::BuildError};

/// The dispatcher's handlers as functions of the SDK, to be registered with its `Handler::register_fns`.
///
/// `T` is the data type of the server, which failure events go through: `serde_json::Value`, [`EventData`], or an untagged
/// enum that keeps everything. A function that is registered under an id that another one has takes its place, without
/// a word: the SDK's doing.
///
/// # Panics
///
/// If a handler can't be served in this app: what [`try_servable_fns`] returns as an error, in its words.
#[track_caller]
pub fn servable_fns<T, E>(dispatcher: &Dispatcher, client: &Inngest) -> Vec<ServableFn<T, E>>
where
    T: Serialize + DeserializeOwned + Debug + Send + 'static,
    E: From<Error> + 'static,
{
    try_servable_fns(dispatcher, client).unwrap_or_else(|error| panic!("{error}"))
}

/// The same as [`servable_fns`], without a panic.
///
/// A warning is logged if no handler is a `fallback` or for every function (`*`), for then failures of functions
/// that nothing names never arrive.
///
/// # Errors
///
/// [`BuildError`] with every problem at once: a handler for a function of this app, or an app, that is written in another
/// way than the SDK writes it, which makes slugs of all ids; ids that are one slug; a `priority`, an `idempotency`, a `throttle` beside
/// [`Step`](crate::Step); a trigger expression that Inngest would not evaluate as it is meant, or that is too long; a `T` that
/// can't hold a failure event.
pub fn try_servable_fns<T, E>(
    dispatcher: &Dispatcher,
    client: &Inngest,
) -> Result<Vec<ServableFn<T, E>>, BuildError>
where
    T: Serialize + DeserializeOwned + Debug + Send + 'static,
    E: From<Error> + 'static,
{
    let app = client.app_id();
    let mut problems = Vec::new();
    let functions = check::functions(dispatcher, &app, &mut problems);
    check::check_data::<T>(dispatcher, &mut problems);
    if !problems.is_empty() {
        return Err(BuildError::new(problems));
    }
    if !dispatcher.takes_unnamed() {
        tracing::warn!(
            app_id = app,
            "no handler is a `fallback` or for `*`: failures of functions that no handler names never arrive here",
        );
    }
    Ok(functions.into_iter().map(|function| function.serve(dispatcher, client)).collect())
}
