//! What a run had done: its steps, as the server has kept them.

mod cache;
mod output;
mod read;
#[cfg(feature = "cli")]
pub(crate) mod rebuild;
mod rollback;
mod source;

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc, time::SystemTime};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sha1::{Digest, Sha1};

#[cfg(feature = "cli")]
pub(crate) use self::read::{status, time};
pub(crate) use self::{
    cache::Traces,
    output::{Undone, label},
    rollback::{Plan, Planned},
};
pub use self::{
    output::StepOutput,
    source::{TraceError, TraceSource},
};
use crate::{error::ParseError, event::FailureError};

/// What a run had done before it failed: its steps, with what became of each. Cheap to clone.
///
/// It is what the server keeps of every run, of functions in any language. A handler takes it as an argument; it is fetched
/// then, once for all handlers of one failure in this process.
///
/// # Examples
///
/// ```
/// use inngest_failure::{HandlerError, RunTrace, on_failure};
///
/// #[derive(serde::Deserialize)]
/// struct Charge {
///     charge_id: String,
/// }
///
/// #[on_failure(function = "checkout")]
/// async fn report(trace: RunTrace) -> Result<String, HandlerError> {
///     let failed = trace.failed_step().map_or("its own code", |step| &step.name);
///     Ok(match trace.completed("charge-card").next() {
///         Some(step) => format!("{failed} failed, {} is charged", step.output::<Charge>()?.charge_id),
///         None => format!("{failed} failed, nothing is charged"),
///     })
/// }
/// ```
#[derive(Clone)]
pub struct RunTrace {
    inner: Arc<Inner>,
}

struct Inner {
    run_id: String,
    status: StepStatus,
    /// Those that have ended by the time at which they did, then the others.
    steps: Vec<TraceStep>,
    /// Where the step of an id stands among them.
    places: HashMap<String, usize>,
    failed: Option<usize>,
    /// How large its text was.
    bytes: usize,
}

/// One step of a run: what the server has of it, planned and run and tried again, as one.
#[derive(Clone)]
#[non_exhaustive]
pub struct TraceStep {
    /// Its id as the server keeps it, a SHA-1: each use of an id in a loop has one of its own.
    pub step_id: String,
    /// Its display name, which is its id unless the function says otherwise.
    pub name: String,
    /// What the step is for the server, such as `RUN`, `SLEEP`, `WAIT_FOR_EVENT`, `INVOKE`; of some failed steps it does
    /// not say.
    pub op: Option<String>,
    /// What became of it.
    pub status: StepStatus,
    /// When it ended, if it has.
    pub ended_at: Option<SystemTime>,
    /// What it failed with, if it has.
    pub error: Option<FailureError>,
    output: Option<Box<RawValue>>,
}

/// What became of a step, or of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StepStatus {
    /// It has ended well.
    Completed,
    /// It has failed. The function may have gone on.
    Failed,
    /// It runs.
    Running,
    /// It waits, or is planned.
    Waiting,
    /// It was cancelled.
    Cancelled,
    /// It was skipped.
    Skipped,
    /// Something that this crate does not know.
    Other,
}

impl RunTrace {
    /// Reads the answer of the API to `GET /runs/{run_id}/trace?includeOutput=true`.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if it is none.
    pub fn from_slice(json: &[u8]) -> Result<Self, ParseError> {
        let text = std::str::from_utf8(json).map_err(|error| ParseError::not_utf8(&error))?;
        text.parse()
    }

    /// The run's id.
    pub fn run_id(&self) -> &str {
        &self.inner.run_id
    }

    /// The steps, in the order in which they ended; those that have not ended come last.
    pub fn steps(&self) -> &[TraceStep] {
        &self.inner.steps
    }

    /// The uses of this step id that had completed, in the order of use: more than one if the step was in a loop.
    ///
    /// The id is that of the function's code, whatever its display name is.
    pub fn completed<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a TraceStep> + use<'a> {
        let uses = self.uses(id).into_iter().map(|(_, step)| step);
        uses.filter(|step| step.status == StepStatus::Completed)
    }

    /// The step that failed the run, if one did: a run may also fail in its code between steps.
    pub fn failed_step(&self) -> Option<&TraceStep> {
        self.inner.failed.map(|failed| &self.inner.steps[failed])
    }

    /// Whether the run had not ended when the trace was taken, so that its last step may be missing.
    pub(crate) fn is_unfinished(&self) -> bool {
        matches!(self.inner.status, StepStatus::Running | StepStatus::Waiting)
    }

    /// The step of this id, as the server keeps it.
    pub(crate) fn step(&self, hash: &str) -> Option<&TraceStep> {
        self.inner.places.get(hash).map(|place| &self.inner.steps[*place])
    }

    /// Where the step stands in the order.
    pub(crate) fn place(&self, step: &TraceStep) -> usize {
        self.inner.places.get(&step.step_id).copied().unwrap_or_default()
    }

    /// The uses of this step id, numbered from 0.
    pub(crate) fn uses(&self, id: &str) -> Vec<(u32, &TraceStep)> {
        // A step of the code may have had the number's own id, so that a number is left out.
        (0..=u32::try_from(self.inner.steps.len()).unwrap_or(u32::MAX))
            .filter_map(|number| {
                let own = self.step(&hash(id, number)).filter(|step| {
                    // A step whose own id is that: the number belongs to it.
                    number == 0 || step.name != format!("{id}:{number}")
                });
                let step = own.or_else(|| self.step(&rust_hash(id, number)))?;
                Some((number, step))
            })
            .collect()
    }
}

/// A step's id as the server keeps it: `id`, then `id:1`, `id:2`.
pub(crate) fn hash(id: &str, number: u32) -> String {
    let digest = match number {
        0 => Sha1::digest(id),
        number => Sha1::digest(format!("{id}:{number}")),
    };
    hex::encode(digest)
}

/// The same as the Rust SDK 0.1.1 has it: `id:1`, `id:2`, in upper case.
fn rust_hash(id: &str, number: u32) -> String {
    hex::encode_upper(Sha1::digest(format!("{id}:{}", u64::from(number) + 1)))
}

impl TraceStep {
    /// What the step returned, as `T`. A sleep, and an event that did not come, give `null`.
    ///
    /// The server shows an object as it is and wraps anything else, as `{"data": 7}`. So an object whose only key is `data`
    /// can't be told from a wrapped value: the whole is tried as `T` first, and then what stands under `data`.
    ///
    /// # Errors
    ///
    /// [`ParseError`], with the JSON path, if it fits neither way.
    pub fn output<T: DeserializeOwned>(&self) -> Result<T, ParseError> {
        read::output(&self.name, self.raw_output())
    }

    /// The output as the server shows it; `null` if there is none.
    pub fn raw_output(&self) -> &RawValue {
        self.output.as_deref().unwrap_or(RawValue::NULL)
    }
}

/// Reads a trace from JSON text, as [`RunTrace::from_slice`] does.
impl FromStr for RunTrace {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Ok(Self { inner: Arc::new(read::trace(text)?) })
    }
}

/// Shows the steps, not what they returned.
impl fmt::Debug for RunTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunTrace")
            .field("run_id", &self.inner.run_id)
            .field("steps", &self.inner.steps)
            .field("failed_step", &self.failed_step().map(|step| &step.name))
            .finish_non_exhaustive()
    }
}

/// Shows what became of it, not what it returned.
impl fmt::Debug for TraceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceStep")
            .field("name", &self.name)
            .field("op", &self.op)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
