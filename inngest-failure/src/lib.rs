//! Failure handlers for [Inngest](https://www.inngest.com) functions: annotate a Rust function, and it
//! runs when a function, written in any language, has failed for good.
//!
//! ```standalone_crate
//! use inngest_failure::{Dispatcher, Failure, HandlerError, Step, on_failure};
//!
//! #[derive(serde::Deserialize)]
//! struct Order { order_id: String }
//!
//! /// Undo a checkout that ran out of retries.
//! #[on_failure(function = "checkout", retries = 5, timeout = "30s")]
//! async fn undo_checkout(failure: Failure<Order>, step: Step) -> Result<String, HandlerError> {
//!     let key = failure.idempotency_key("refund");
//!     let refund = step.run("refund", || refund(&key)).await?;
//!     Ok(format!("{}: {}, {refund}", failure.event.data.order_id, failure.error))
//! }
//! # async fn refund(_key: &str) -> Result<String, HandlerError> { Ok("refunded".to_owned()) }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let bytes = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout","run_id":"r1",
//! #     "error":{"message":"card declined"},"event":{"data":{"order_id":"o1"}}}}"#;
//! let dispatcher = Dispatcher::builder().app("shop").build()?;
//! let report = dispatcher.dispatch_json(bytes).await?;
//! assert_eq!(report.runs[0].result.as_ref().unwrap(), "o1: card declined, refunded");
//! # Ok(())
//! # }
//! ```
//!
//! # Concepts
//!
//! - **Failed function.** When a run has used up its retries, Inngest sends the event
//!   `inngest/function.failed`; when it is cancelled, `inngest/function.cancelled`. The event names the
//!   function by its composite id, `{app}-{function}`. [`FailureEvent`] is such an event as it came,
//!   [`Failure<T>`] is one whose original data was read as `T`.
//! - **Handler.** A function under [`#[on_failure(..)]`](macro@on_failure). The attribute registers
//!   it at link time. It takes any number of [extractors](extract) and returns nothing or a `Result`;
//!   its error becomes a [`HandlerError`], which says whether it is tried again.
//! - **Selector.** Which failures a handler takes: those of one function, of a pattern with `*`, of
//!   every function, or, as the `fallback`, those that no handler that names the function takes.
//! - **Step.** With an argument of type [`Step`] a handler is tried again part by part: a step that has completed gives
//!   its remembered result and does not run again. It runs at least once, so what must count once takes an
//!   [idempotency key](Failure::idempotency_key). At an endpoint and in a server of the SDK Inngest remembers steps, in
//!   process the dispatch does. A handler without steps is tried again as a whole.
//! - **Undo, rollback.** With `step = ".."` a handler undoes one step of the failed function: it runs if the failed
//!   run had completed that step, and [`StepOutput<T>`] is what the step had returned. All undos of a function are one
//!   rollback, which undoes the step that completed last first. What the run had done is its trace, [`RunTrace`], which
//!   comes from Inngest's API or from a [`TraceSource`]. If an undo fails, [`Rollback`] says what becomes of the others.
//! - **Dispatcher.** [`Dispatcher`] collects the handlers, checks how they are wired, all at once, before
//!   the first event, and runs each failure through every handler that takes it, each on its own.
//! - **Endpoint.** [`Endpoint`][endpoint] makes the dispatcher's handlers an Inngest app of their own: the server
//!   selects the failures, calls each handler with a signed request, tries it again when it fails, and shows its
//!   runs on the dashboard. Without it the program brings the events, from a file, a queue, or a function that an
//!   SDK serves.
//! - **Server of the SDK.** In a server of the crate `inngest`, Inngest's Rust SDK, the handlers can be
//!   [functions][sdk] of its app. Inngest selects their failures and calls them as it does at an endpoint.
//! - **Flow control.** `concurrency`, `throttle`, `rate_limit`, `priority` and `idempotency` in the attribute say how
//!   many runs there may be and in which order. At an endpoint Inngest keeps these limits; in process and in a server
//!   of the SDK the dispatcher keeps [three of them](macro@on_failure#flow-control).
//!
//! # What is never lost in silence
//!
//! A failure that no handler takes is a warning with the selector that comes nearest. A handler that
//! fails, times out or panics is a warning at each attempt and an error at the last one, and stands in
//! the [`Dispatch`] with its [`RunError`]. Data that does not fit a handler's type is an error that
//! names the path and the type. All of it goes through [`tracing`](https://docs.rs/tracing), in one span
//! per dispatch and one per handler, or in one per call where Inngest calls the handler.
//!
//! Without a subscriber of `tracing` in the program only the [`Dispatch`] says so: ask
//! [`is_unhandled`](Dispatch::is_unhandled) as well as [`is_ok`](Dispatch::is_ok), which is true of a failure
//! that nothing ran for.
//!
//! At an endpoint or in a server of the SDK a failure that no handler takes never arrives, nor does one that
//! Inngest drops for an endpoint's `rate_limit` or `idempotency`. The endpoint's builder, or what makes functions of the
//! SDK, warns where there is neither a fallback nor a handler for `*`.
//!
//! # Dead letters
//!
//! Inngest sends no failure event for a run that a failure event had itself started: if a handler fails for good, nobody is
//! told. Give the dispatcher a place for [dead letters](DeadLetters), a [file](JsonLines) for example, and each such failure
//! is there with all that is needed to [try again](Dispatcher::retry): the event, the error, and the steps that the handler
//! had completed, which do not run once more. With the [command line][cli] an operator lists them and tries them again: see the
//! [runbook].
//!
//! # Metrics
//!
//! With the feature `metrics` the following goes to the recorder that the program has installed before it builds the
//! dispatcher. `handler_id` is that of a handler, or of a rollback as a whole. Most counters are
//! there from the beginning, at zero.
//!
//! | name | labels | |
//! |---|---|---|
//! | `inngest_failure_events_total` | `kind` | counter: failure events dispatched in process |
//! | `inngest_failure_unhandled_events_total` | | counter: those that were [unhandled](Dispatch::is_unhandled) |
//! | `inngest_failure_handler_runs_total` | `handler_id`, `outcome` | counter: runs that have ended for good. `outcome` is `succeeded`, `failed`, `payload`, `timed_out`, `panicked` or `rate_limited` |
//! | `inngest_failure_handler_attempts_total` | `handler_id`, `outcome` | counter: attempts, which are calls under Inngest. `outcome` may also be `stopped`, of one that a step has ended, and `dropped` |
//! | `inngest_failure_handler_attempt_duration_seconds` | `handler_id` | histogram |
//! | `inngest_failure_handler_attempts_in_flight` | `handler_id` | gauge |
//! | `inngest_failure_dead_letters_total` | `outcome` | counter: `kept` by every sink, or `logged` since one could not |
//!
//! # Runtime
//!
//! Handlers run on [Tokio](https://tokio.rs), with its timer enabled. Panics are caught where they unwind, not
//! with `panic = "abort"`.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | none, the default | handlers and the dispatcher, without HTTP |
//! | `api` | [`Api`][api]: the keys, mode and origins of Inngest's API, and an HTTP client for it, by which traces of failed runs are read. Its TLS is rustls with `ring`, which needs a C compiler to build |
//! | `serve` | [`Endpoint`][endpoint], and `api` with it |
//! | `sdk` | [`sdk`][sdk]: the handlers as functions of a server of the crate `inngest`, which is **licensed under GPL-3.0** and links OpenSSL, whose headers must be there to build it; `api` with it |
//! | `cli` | [`cli`][cli]: a command line for operators, for a program of yours: what there is, what would run, dead letters and failures that were missed, each run once; its ledger is an SQLite that is built along, which needs a C compiler; `serve` with it |
//! | `metrics` | counters, durations and a gauge of events, attempts, runs and dead letters, [for the facade](#metrics) of the crate `metrics` |
//! | `testing` | [`testing`][testing]: failure events and steps for tests of handlers, and a player of the server that calls them; `serve` with it |
//!
//! # Guides
//!
//! - [From `onFailure` in TypeScript or Python to Rust][from-on-failure]
//! - [Undo a TypeScript function's steps from Rust][undo-steps]
//! - [Deploying an endpoint][deploying]
//! - [Testing handlers][testing-handlers]
//! - [A compensation failed at 3 a.m.][runbook]
//!
#![cfg_attr(feature = "api", doc = "[api]: Api")]
#![cfg_attr(
    not(feature = "api"),
    doc = "[api]: https://docs.rs/inngest-failure/latest/inngest_failure/struct.Api.html"
)]
#![cfg_attr(
    feature = "serve",
    doc = "[endpoint]: serve::Endpoint
[deploying]: guide::deploying
[from-on-failure]: guide::from_on_failure"
)]
#![cfg_attr(
    not(feature = "serve"),
    doc = "[endpoint]: https://docs.rs/inngest-failure/latest/inngest_failure/serve/struct.Endpoint.html
[deploying]: https://docs.rs/inngest-failure/latest/inngest_failure/guide/deploying/index.html
[from-on-failure]: https://docs.rs/inngest-failure/latest/inngest_failure/guide/from_on_failure/index.html"
)]
#![cfg_attr(
    feature = "cli",
    doc = "[cli]: cli
[runbook]: guide::runbook"
)]
#![cfg_attr(
    not(feature = "cli"),
    doc = "[cli]: https://docs.rs/inngest-failure/latest/inngest_failure/cli/index.html
[runbook]: https://docs.rs/inngest-failure/latest/inngest_failure/guide/runbook/index.html"
)]
#![cfg_attr(feature = "sdk", doc = "[sdk]: sdk")]
#![cfg_attr(
    not(feature = "sdk"),
    doc = "[sdk]: https://docs.rs/inngest-failure/latest/inngest_failure/sdk/index.html"
)]
#![cfg_attr(
    feature = "testing",
    doc = "[testing]: testing
[testing-handlers]: guide::testing
[undo-steps]: guide::rollback"
)]
#![cfg_attr(
    not(feature = "testing"),
    doc = "[testing]: https://docs.rs/inngest-failure/latest/inngest_failure/testing/index.html
[testing-handlers]: https://docs.rs/inngest-failure/latest/inngest_failure/guide/testing/index.html
[undo-steps]: https://docs.rs/inngest-failure/latest/inngest_failure/guide/rollback/index.html"
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// What the attribute writes refers to `::inngest_failure`, also here.
extern crate self as inngest_failure;

#[doc(hidden)]
pub mod __private;
#[cfg(feature = "api")]
#[cfg_attr(
    not(feature = "serve"),
    expect(dead_code, unused_imports, reason = "most of it is for the endpoint")
)]
mod api;
#[cfg(feature = "cli")]
pub mod cli;
mod dead_letter;
mod dispatcher;
mod error;
mod event;
pub mod extract;
/// Guides.
#[cfg(all(feature = "serve", any(doc, doctest)))]
pub mod guide {
    #[doc = include_str!("../guides/deploying.md")]
    pub mod deploying {}
    #[doc = include_str!("../guides/from-on-failure.md")]
    pub mod from_on_failure {}
    #[cfg(feature = "testing")]
    #[doc = include_str!("../guides/rollback.md")]
    pub mod rollback {}
    #[cfg(feature = "cli")]
    #[doc = include_str!("../guides/runbook.md")]
    pub mod runbook {}
    #[cfg(feature = "testing")]
    #[doc = include_str!("../guides/testing.md")]
    pub mod testing {}
}
mod metrics;
mod panic;
mod rate;
mod registry;
#[cfg(feature = "sdk")]
pub mod sdk;
mod selector;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(any(feature = "serve", feature = "sdk"))]
mod server;
mod step;
mod suggest;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;

#[cfg(feature = "api")]
pub use self::{
    api::{Api, ApiBuilder},
    dead_letter::SendEvent,
};

#[doc(no_inline)]
pub use self::__private::BoxFuture;
#[doc(inline)]
pub use self::{
    dead_letter::{CompletedStep, DeadLetter, DeadLetters, JsonLines},
    dispatcher::{
        Backoff, Dispatch, DispatchFuture, Dispatcher, DispatcherBuilder, HandlerRun, Rollback,
        RunError, UnknownHandler,
    },
    error::{
        BoxError, BuildError, HandlerError, Location, NonRetriable, ParseError, Problem, ResultExt,
        RetryAfter, StepError,
    },
    event::{
        Dashboard, Failure, FailureError, FailureEvent, FailureKind, TriggerEvent, TriggerEvents,
    },
    extract::{Context, FromFailure, MissingState, Needs, RunContext, State},
    rate::Rate,
    registry::{HandlerInfo, on_failure},
    selector::Trigger,
    step::{Event, Invoke, Step, StepFailure, StepValue, Wait},
    trace::{RunTrace, StepOutput, StepStatus, TraceError, TraceSource, TraceStep},
};
