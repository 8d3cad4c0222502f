//! What happened in a run, and what a test says of it.

use std::{fmt, time::Duration};

use serde_json::Value;

/// What happened in a [`TestRun`](super::TestRun): its end, each call, each operation, each execution of a closure.
///
/// Its `Display` is for people, and stands in the message of every assertion that fails.
#[derive(Clone, Debug)]
pub struct Transcript {
    pub(super) handler_id: String,
    pub(super) end: Result<Value, Value>,
    pub(super) calls: Vec<TestCall>,
    pub(super) sent: Vec<Value>,
    pub(super) elapsed: Duration,
}

/// One call of the endpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TestCall {
    /// The step that the server asked for, if it was one; else the call was to find out what comes next.
    pub step: Option<String>,
    /// The attempt, counted from 0.
    pub attempt: u32,
    /// When it was made, on the clock of the run, which skips all waiting.
    pub at: Duration,
    /// The status of the answer.
    pub status: u16,
    /// The operations of the answer, each in a line; or its body. Empty if the answer was lost.
    pub operations: Vec<String>,
    /// What the closures of steps did.
    pub executions: Vec<Execution>,
    /// Whether the answer was lost.
    pub is_lost: bool,
}

/// Something that the closure of a step did; the step is given by its id, a repeated one with its number (`id:1`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Execution {
    /// It began to run.
    Started(String),
    /// It returned a value.
    Completed(String),
    /// It returned an error or panicked, with this message.
    Failed(String, String),
    /// It did not run, for the test made the step fail.
    MadeToFail(String),
}

impl TestCall {
    pub(super) fn new(step: Option<String>, attempt: u32, at: Duration) -> Self {
        Self {
            step,
            attempt,
            at,
            status: 0,
            operations: Vec::new(),
            executions: Vec::new(),
            is_lost: false,
        }
    }
}

impl Transcript {
    /// How the run ended: what the handler returned, or the error that it failed with for good, as Inngest has it.
    pub fn result(&self) -> Result<&Value, &Value> {
        self.end.as_ref()
    }

    /// The calls, in order.
    pub fn calls(&self) -> &[TestCall] {
        &self.calls
    }

    /// What steps of `run` and of `send_event` did at the endpoint, in order.
    pub fn executions(&self) -> impl Iterator<Item = &Execution> {
        self.calls.iter().flat_map(|call| &call.executions)
    }

    /// How often a step of `run` or `send_event` completed.
    pub fn completions(&self, step: &str) -> usize {
        let completed =
            |execution: &&Execution| matches!(execution, Execution::Completed(id) if id == step);
        self.executions().filter(completed).count()
    }

    /// The events that were sent, as they were sent.
    pub fn sent_events(&self) -> &[Value] {
        &self.sent
    }

    /// How long the run would have taken, with the waits that were skipped.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Asserts that the handler returned a value, and gives it.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[track_caller]
    pub fn assert_succeeded(&self) -> &Value {
        match &self.end {
            Ok(value) => value,
            Err(_) => panic!("the run was to succeed\n\n{self}"),
        }
    }

    /// Asserts that the run failed for good, with a message that contains this text.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[track_caller]
    pub fn assert_failed(&self, message: &str) {
        match &self.end {
            Err(error) if error["message"].as_str().is_some_and(|it| it.contains(message)) => {}
            _ => panic!("the run was to fail with {message:?}\n\n{self}"),
        }
    }

    /// Asserts that these steps, of `run` and of `send_event`, completed in this order, and no others. Sleeps, waits and
    /// invocations are not among them.
    ///
    /// # Panics
    ///
    /// If they did not.
    #[track_caller]
    pub fn assert_completed<'a>(&self, steps: impl IntoIterator<Item = &'a str>) {
        let expected: Vec<&str> = steps.into_iter().collect();
        let completed = self.executions().filter_map(|execution| match execution {
            Execution::Completed(step) => Some(step.as_str()),
            _ => None,
        });
        let completed: Vec<&str> = completed.collect();
        assert!(
            completed == expected,
            "the steps {expected:?} were to complete, in this order, but {completed:?} did\n\n{self}"
        );
    }

    /// Asserts that a rollback has succeeded and undone these steps, in this order: a step in a loop as often as it had
    /// completed.
    ///
    /// # Panics
    ///
    /// If it has not.
    #[track_caller]
    pub fn assert_undone<'a>(&self, steps: impl IntoIterator<Item = &'a str>) {
        let expected: Vec<&str> = steps.into_iter().collect();
        let result = self.assert_succeeded();
        let undone = result["undone"].as_array().into_iter().flatten();
        let undone: Vec<&str> = undone.filter_map(|undone| undone["step"].as_str()).collect();
        assert!(
            undone == expected,
            "the steps {expected:?} were to be undone, in this order, but {undone:?} were\n\n{self}"
        );
    }

    /// Asserts that the failed run had come to each step that a rollback has an undo of, whether it had completed or not: a
    /// misspelt step is one that no run comes to.
    ///
    /// # Panics
    ///
    /// If it had not, with the nearest name.
    #[track_caller]
    pub fn assert_steps_known(&self) {
        let operations = self.calls.iter().flat_map(|call| &call.operations);
        let plan =
            operations.filter_map(|operation| operation.strip_prefix("StepRun plan ")).next();
        let plan: Option<Value> = plan.and_then(|plan| serde_json::from_str(plan).ok());
        let Some(plan) = plan else { panic!("there was no plan of a rollback\n\n{self}") };
        let unknown = plan["unknown"].as_object().into_iter().flatten();
        let unknown: Vec<String> = unknown
            .map(|(step, near)| match near.as_str() {
                Some(near) => format!("`{step}` (did you mean `{near}`?)"),
                None => format!("`{step}`"),
            })
            .collect();
        assert!(
            unknown.is_empty(),
            "the failed run had come to no step {}, which has an undo\n\n{self}",
            unknown.join(" and ")
        );
    }

    /// Asserts how often the closure of a step ran, also in vain.
    ///
    /// # Panics
    ///
    /// If it ran more or less often.
    #[track_caller]
    pub fn assert_ran(&self, step: &str, times: usize) {
        let started =
            |execution: &&Execution| matches!(execution, Execution::Started(id) if id == step);
        let ran = self.executions().filter(started).count();
        assert!(
            ran == times,
            "step {step:?} was to run {times} times, but ran {ran} times\n\n{self}"
        );
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handler_id, end, calls, .. } = self;
        match end {
            Ok(value) => write!(f, "`{handler_id}` returned {value}")?,
            Err(error) => write!(f, "`{handler_id}` failed for good with {error}")?,
        }
        write!(f, " after {} calls", calls.len())?;
        for (i, call) in calls.iter().enumerate() {
            write!(f, "\n{:>4}. {call}", i + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for TestCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => write!(f, "step `{step}`")?,
            None => f.write_str("what comes next?")?,
        }
        if self.attempt > 0 {
            write!(f, " (attempt {})", self.attempt)?;
        }
        for execution in &self.executions {
            write!(f, ", {execution}")?;
        }
        write!(f, " -> {}", self.status)?;
        match self.is_lost {
            true => f.write_str(" (the answer was lost)"),
            false => write!(f, " {}", self.operations.join("; ")),
        }?;
        Ok(())
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(step) => write!(f, "`{step}` ran"),
            Self::Completed(step) => write!(f, "`{step}` completed"),
            Self::Failed(step, message) => write!(f, "`{step}` failed with {message:?}"),
            Self::MadeToFail(step) => write!(f, "`{step}` was made to fail"),
        }
    }
}
