//! What is counted, for the facade of the crate `metrics`; without the feature `metrics`, nothing.
//!
//! The labels are the handlers' ids and a few outcomes, so that there are as many series as the program's text says, whatever
//! events come.

#[cfg(feature = "metrics")]
pub(crate) use self::on::*;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::off::*;

#[cfg(feature = "metrics")]
mod on {
    use std::{sync::Arc, time::Instant};

    use metrics::{
        Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    };

    use crate::event::FailureKind;

    const EVENTS: &str = "inngest_failure_events_total";
    const UNHANDLED: &str = "inngest_failure_unhandled_events_total";
    const RUNS: &str = "inngest_failure_handler_runs_total";
    const ATTEMPTS: &str = "inngest_failure_handler_attempts_total";
    const DURATION: &str = "inngest_failure_handler_attempt_duration_seconds";
    const IN_FLIGHT: &str = "inngest_failure_handler_attempts_in_flight";
    const DEAD_LETTERS: &str = "inngest_failure_dead_letters_total";

    /// Tells the recorder what all of it means.
    pub(crate) fn describe() {
        let count = Unit::Count;
        describe_counter!(EVENTS, count, "Failure events dispatched in process, by kind");
        describe_counter!(
            UNHANDLED,
            count,
            "Failure events that no handler which names their function took, and no fallback"
        );
        describe_counter!(RUNS, count, "Handler runs that have ended for good, by outcome");
        describe_counter!(ATTEMPTS, count, "Attempts of handlers, by outcome");
        describe_histogram!(DURATION, Unit::Seconds, "How long attempts of handlers took");
        describe_gauge!(IN_FLIGHT, count, "Attempts of handlers that are being made");
        describe_counter!(
            DEAD_LETTERS,
            count,
            "Dead letters, by what became of them: kept by a sink, or logged since it could not"
        );
    }

    pub(crate) fn event(kind: FailureKind) {
        let kind = match kind {
            FailureKind::Failed => "failed",
            FailureKind::Cancelled => "cancelled",
        };
        counter!(EVENTS, "kind" => kind).increment(1);
    }

    pub(crate) fn unhandled() {
        counter!(UNHANDLED).increment(1);
    }

    pub(crate) fn dead_letter(outcome: &'static str) {
        counter!(DEAD_LETTERS, "outcome" => outcome).increment(1);
    }

    /// A handler's id, as a label.
    #[derive(Clone, Debug)]
    pub(crate) struct Label(Arc<str>);

    impl Label {
        pub(crate) fn new(handler_id: &str) -> Self {
            Self(handler_id.into())
        }

        /// An attempt begins.
        pub(crate) fn attempt(&self) -> Attempt<'_> {
            gauge!(IN_FLIGHT, "handler_id" => Arc::clone(&self.0)).increment(1);
            Attempt { label: self, begun: Instant::now(), outcome: "dropped" }
        }

        /// A run has ended for good.
        pub(crate) fn run(&self, outcome: &'static str) {
            counter!(RUNS, "handler_id" => Arc::clone(&self.0), "outcome" => outcome).increment(1);
        }
    }

    /// An attempt that is being made: it counts when this is dropped.
    pub(crate) struct Attempt<'a> {
        label: &'a Label,
        begun: Instant,
        outcome: &'static str,
    }

    impl Attempt<'_> {
        pub(crate) fn end(mut self, outcome: &'static str) {
            self.outcome = outcome;
        }
    }

    impl Drop for Attempt<'_> {
        fn drop(&mut self) {
            let id = || Arc::clone(&self.label.0);
            gauge!(IN_FLIGHT, "handler_id" => id()).decrement(1);
            counter!(ATTEMPTS, "handler_id" => id(), "outcome" => self.outcome).increment(1);
            histogram!(DURATION, "handler_id" => id()).record(self.begun.elapsed());
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use crate::event::FailureKind;

    pub(crate) fn describe() {}

    pub(crate) fn event(_: FailureKind) {}

    pub(crate) fn unhandled() {}

    pub(crate) fn dead_letter(_: &'static str) {}

    #[derive(Clone, Debug)]
    pub(crate) struct Label;

    impl Label {
        pub(crate) fn new(_: &str) -> Self {
            Self
        }

        pub(crate) fn attempt(&self) -> Attempt {
            Attempt
        }

        pub(crate) fn run(&self, _: &'static str) {}
    }

    pub(crate) struct Attempt;

    impl Attempt {
        pub(crate) fn end(self, _: &'static str) {}
    }
}
