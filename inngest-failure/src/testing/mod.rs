//! Testing handlers: as plain functions, and the way the Inngest server calls them.
//!
//! A handler is a function, so most of it is tested by calling it: [`failure`] makes the failure, [`step`] and [`context`]
//! the rest of what it takes.
//!
//! ```
//! use inngest_failure::{Failure, HandlerError, Step, on_failure, testing};
//! use serde_json::json;
//!
//! #[derive(serde::Deserialize)]
//! struct Order { order_id: String }
//!
//! #[on_failure(function = "checkout")]
//! async fn undo_checkout(failure: Failure<Order>, step: Step) -> Result<String, HandlerError> {
//!     let order_id = failure.event.data.order_id;
//!     let refund = step.run("refund", async || Ok::<_, HandlerError>(format!("re_{order_id}"))).await?;
//!     Ok(refund)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let event = testing::failure("shop-checkout").data(json!({ "order_id": "o1" })).build();
//! let refund = undo_checkout(event.parse()?, testing::step()).await.unwrap();
//! assert_eq!(refund, "re_o1");
//! # Ok(())
//! # }
//! ```
//!
//! What no plain call shows is what happens when the handler is called again and again, as it is for its steps, when a
//! step fails, or when steps run side by side. [`TestRun`] plays the server, with the same bodies that a real one sends,
//! through the same endpoint.

mod failure;
mod probe;
mod run;
mod server;
mod transcript;

pub(crate) use self::failure::TestTrace;
pub(crate) use self::probe::Probe;
pub use self::{
    failure::{FailureBuilder, TestError},
    run::TestRun,
    transcript::{Execution, TestCall, Transcript},
};
use crate::{
    extract::RunContext,
    step::{Pass, Step},
    trace::StepOutput,
};

/// Starts a failure event of this function, a composite id such as `shop-checkout`.
///
/// # Examples
///
/// ```
/// use inngest_failure::testing;
/// use serde_json::json;
///
/// let event = testing::failure("shop-checkout")
///     .error(("CardError", "card declined"))
///     .data(json!({ "order_id": "o1" }))
///     .build();
/// assert_eq!(event.error().message, "card declined");
/// ```
pub fn failure(function_id: impl Into<String>) -> FailureBuilder {
    FailureBuilder::new(function_id.into())
}

/// Steps of no handler, to call one as a plain function: each runs where it is awaited, once, and is tried no second time.
///
/// A `sleep` takes its time, unless Tokio's clock is paused. What only the server can do, and sending an event, are errors
/// here: see [`TestRun`]. That a step is used in a spawned task, which is an error in a handler's call, is not noticed.
pub fn step() -> Step {
    crate::panic::install_hook();
    Step::new(Pass::plain(), None)
}

/// What a step of the failed run had returned, to call a handler that undoes it as a plain function. Its fields can be
/// changed: it is the first use of a step `step` of a run `run`, and had completed at the Unix epoch.
///
/// # Examples
///
/// ```
/// use inngest_failure::{StepOutput, on_failure, testing};
///
/// #[on_failure(function = "checkout", step = "reserve-stock")]
/// async fn release(reserved: StepOutput<u32>) {
///     assert_eq!(*reserved, 3);
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// release(testing::step_output(3)).await;
/// # }
/// ```
pub fn step_output<T>(value: T) -> StepOutput<T> {
    StepOutput::for_test(value)
}

/// The first of four attempts of a handler `test`, to call one as a plain function. Its fields can be changed.
pub fn context() -> RunContext {
    RunContext { attempt: 0, max_attempts: 4, handler_id: "test".to_owned() }
}
