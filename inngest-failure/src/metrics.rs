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
    use std::{
        sync::{Arc, OnceLock},
        time::Instant,
    };

    use metrics::{
        Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge,
        describe_histogram, gauge, histogram,
    };

    use crate::event::FailureKind;

    const EVENTS: &str = "inngest_failure_events_total";
    const UNHANDLED: &str = "inngest_failure_unhandled_events_total";
    const RUNS: &str = "inngest_failure_handler_runs_total";
    const ATTEMPTS: &str = "inngest_failure_handler_attempts_total";
    const DURATION: &str = "inngest_failure_handler_attempt_duration_seconds";
    const IN_FLIGHT: &str = "inngest_failure_handler_attempts_in_flight";
    const DEAD_LETTERS: &str = "inngest_failure_dead_letters_total";

    const SUCCEEDED: &str = "succeeded";

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
            "Dead letters, by what became of them: kept by every sink, or logged since one could not"
        );
    }

    pub(crate) fn dead_letter(outcome: &'static str) {
        counter!(DEAD_LETTERS, "outcome" => outcome).increment(1);
    }

    /// The events of a dispatcher.
    #[derive(Default)]
    pub(crate) struct Events {
        failed: OnceLock<Counter>,
    }

    impl Events {
        /// All that there may be is there from the beginning, at zero, so that nobody misses the first of them.
        pub(crate) fn new() -> Self {
            for kind in ["failed", "cancelled"] {
                drop(counter!(EVENTS, "kind" => kind));
            }
            drop(counter!(UNHANDLED));
            for outcome in ["kept", "logged"] {
                drop(counter!(DEAD_LETTERS, "outcome" => outcome));
            }
            Self::default()
        }

        pub(crate) fn count(&self, kind: FailureKind) {
            match kind {
                // What is counted for nearly every failure is looked up once.
                FailureKind::Failed => {
                    self.failed.get_or_init(|| counter!(EVENTS, "kind" => "failed")).increment(1);
                }
                FailureKind::Cancelled => counter!(EVENTS, "kind" => "cancelled").increment(1),
            }
        }

        pub(crate) fn unhandled(&self) {
            counter!(UNHANDLED).increment(1);
        }
    }

    /// What is counted of a handler.
    #[derive(Debug)]
    pub(crate) struct OfHandler {
        id: Arc<str>,
        frequent: OnceLock<Frequent>,
    }

    /// What is counted for nearly every failure, and so looked up once.
    struct Frequent {
        in_flight: Gauge,
        duration: Histogram,
        attempts_succeeded: Counter,
        runs_succeeded: Counter,
    }

    impl OfHandler {
        pub(crate) fn new(handler_id: &str) -> Self {
            let new = Self { id: handler_id.into(), frequent: OnceLock::new() };
            for outcome in [SUCCEEDED, "failed", "payload", "timed_out", "panicked"] {
                drop(new.counter(RUNS, outcome));
                drop(new.counter(ATTEMPTS, outcome));
            }
            new
        }

        fn frequent(&self) -> &Frequent {
            self.frequent.get_or_init(|| {
                let id = || Arc::clone(&self.id);
                Frequent {
                    in_flight: gauge!(IN_FLIGHT, "handler_id" => id()),
                    duration: histogram!(DURATION, "handler_id" => id()),
                    attempts_succeeded: self.counter(ATTEMPTS, SUCCEEDED),
                    runs_succeeded: self.counter(RUNS, SUCCEEDED),
                }
            })
        }

        fn counter(&self, name: &'static str, outcome: &'static str) -> Counter {
            counter!(name, "handler_id" => Arc::clone(&self.id), "outcome" => outcome)
        }

        /// An attempt begins.
        pub(crate) fn attempt(&self) -> Attempt<'_> {
            self.frequent().in_flight.increment(1);
            Attempt { of: self, begun: Instant::now(), outcome: "dropped" }
        }

        /// A run has ended for good.
        pub(crate) fn run(&self, outcome: &'static str) {
            match outcome {
                SUCCEEDED => self.frequent().runs_succeeded.increment(1),
                _ => self.counter(RUNS, outcome).increment(1),
            }
        }
    }

    impl std::fmt::Debug for Frequent {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Frequent").finish_non_exhaustive()
        }
    }

    /// An attempt that is being made: it counts when this is dropped.
    pub(crate) struct Attempt<'a> {
        of: &'a OfHandler,
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
            let frequent = self.of.frequent();
            frequent.in_flight.decrement(1);
            frequent.duration.record(self.begun.elapsed());
            match self.outcome {
                SUCCEEDED => frequent.attempts_succeeded.increment(1),
                outcome => self.of.counter(ATTEMPTS, outcome).increment(1),
            }
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use crate::event::FailureKind;

    pub(crate) fn describe() {}

    pub(crate) fn dead_letter(_: &'static str) {}

    pub(crate) struct Events {}

    impl Events {
        pub(crate) fn new() -> Self {
            Self {}
        }

        pub(crate) fn count(&self, _: FailureKind) {}

        pub(crate) fn unhandled(&self) {}
    }

    #[derive(Debug)]
    pub(crate) struct OfHandler;

    impl OfHandler {
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
