//! `StepOutput<T>`: what a step of the failed run had returned.

use std::{fmt, ops::Deref, time::SystemTime};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::read;
use crate::{
    error::ParseError,
    event::idempotency_key,
    extract::{Context, FromFailure, Needs},
};

/// What the step that the handler undoes had returned: an argument of a handler with `step = ".."`.
///
/// It derefs to the value. If the step's output does not fit `T`, the handler does not run: that is final, and names
/// the path and the type.
///
/// The server shows an object as it is and wraps anything else: see [`TraceStep::output`](crate::TraceStep::output).
///
/// # Examples
///
/// ```
/// use inngest_failure::{HandlerError, State, StepOutput, on_failure};
///
/// # #[derive(Clone)]
/// # struct Bank;
/// # impl Bank {
/// #     async fn refund(&self, _: &str, _: &str) -> Result<(), std::io::Error> { Ok(()) }
/// # }
/// #[derive(serde::Deserialize)]
/// struct Charge {
///     charge_id: String,
/// }
///
/// /// Refund the card, if it had been charged.
/// #[on_failure(function = "checkout", step = "charge-card")]
/// async fn refund(charge: StepOutput<Charge>, State(bank): State<Bank>) -> Result<(), HandlerError> {
///     bank.refund(&charge.charge_id, &charge.idempotency_key()).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct StepOutput<T> {
    /// The step's id, as the attribute has it.
    pub step_id: String,
    /// Which use of the id it is, in a loop: 0 for the first.
    pub index: u32,
    /// When the step had completed.
    pub completed_at: SystemTime,
    run_id: String,
    value: T,
}

impl<T> StepOutput<T> {
    /// A key for a request that must count once, however often the handler runs: the same in every attempt and on every
    /// host, and different for every failed run, every step, and every use of it.
    ///
    /// So a refund that is asked for twice is one refund.
    pub fn idempotency_key(&self) -> String {
        idempotency_key(&self.run_id, &label(&self.step_id, self.index))
    }

    /// The value itself.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// As a test has it: see [`testing::step_output`](crate::testing::step_output).
    #[cfg(feature = "testing")]
    pub(crate) fn for_test(value: T) -> Self {
        Self {
            step_id: "step".to_owned(),
            index: 0,
            completed_at: SystemTime::UNIX_EPOCH,
            run_id: "run".to_owned(),
            value,
        }
    }
}

/// What an undo of this use of a step is called.
pub(crate) fn label(step: &str, index: u32) -> String {
    match index {
        0 => format!("undo/{step}"),
        index => format!("undo/{step}:{index}"),
    }
}

impl<T> Deref for StepOutput<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: DeserializeOwned + Send> FromFailure for StepOutput<T> {
    type Rejection = ParseError;

    async fn from_failure(cx: &Context) -> Result<Self, ParseError> {
        let undone = cx.undone().ok_or_else(ParseError::no_output::<T>)?;
        Ok(Self {
            step_id: undone.step.to_owned(),
            index: undone.index,
            completed_at: undone.completed_at,
            run_id: cx.event().run_id().to_owned(),
            value: read::output(undone.step, &undone.output)?,
        })
    }

    fn needs(needs: &mut Needs) {
        needs.step_output();
    }
}

/// Shows which step it is, not what it returned.
impl<T> fmt::Debug for StepOutput<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepOutput")
            .field("step_id", &self.step_id)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// The completed step that a handler is called to undo.
#[derive(Clone, Debug)]
pub(crate) struct Undone {
    pub(crate) step: &'static str,
    pub(crate) index: u32,
    pub(crate) completed_at: SystemTime,
    pub(crate) output: Box<RawValue>,
}
