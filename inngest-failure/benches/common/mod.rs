//! What the benchmarks share: the baseline's types, and ratios that a drifting machine does not move.

#![allow(dead_code, reason = "no benchmark uses all of it")]

use std::{process::ExitCode, time::Instant};

/// What someone would write by hand: the same fields in a type of their own.
pub(crate) mod by_hand {
    use std::time::SystemTime;

    use serde::Deserialize;

    #[derive(Deserialize)]
    pub(crate) struct Event<T> {
        pub(crate) id: String,
        pub(crate) name: String,
        pub(crate) ts: u64,
        pub(crate) data: Data<T>,
    }

    #[derive(Deserialize)]
    pub(crate) struct Data<T> {
        pub(crate) function_id: String,
        pub(crate) run_id: String,
        pub(crate) error: Error,
        pub(crate) event: Trigger<T>,
        pub(crate) correlation_id: Option<String>,
        #[serde(skip)]
        pub(crate) failed_at: Option<SystemTime>,
    }

    #[derive(Deserialize)]
    pub(crate) struct Error {
        pub(crate) name: String,
        pub(crate) message: String,
        pub(crate) stack: Option<String>,
    }

    #[derive(Deserialize)]
    pub(crate) struct Trigger<T> {
        pub(crate) id: String,
        pub(crate) name: String,
        pub(crate) data: T,
        pub(crate) ts: i64,
        pub(crate) user: Option<serde_json::Value>,
        pub(crate) v: Option<String>,
    }
}

/// One of the things that are measured, which does its work `n` times.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    pub(crate) work: Box<dyn Fn(u64) + 'a>,
}

/// The median of the ratios of many short rounds, in each of which the two follow each other at once.
///
/// Criterion measures one after the other, for seconds each: where the machine's speed drifts, the
/// ratio of its figures would be one of two different machines.
pub(crate) fn ratio(ours: &Contender<'_>, baseline: &Contender<'_>, times: u64) -> f64 {
    const ROUNDS: usize = 201;
    let time = |contender: &Contender<'_>| {
        let started = Instant::now();
        (contender.work)(times);
        started.elapsed().as_secs_f64()
    };
    median((0..ROUNDS).map(|_| time(ours) / time(baseline)).collect())
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A limit for a ratio.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// The table of ratios at the end of a benchmark, which fails if one is past its limit.
pub(crate) struct Ratios {
    kept: bool,
}

impl Ratios {
    pub(crate) fn new() -> Self {
        println!("\n{:<75} {:>8} {:>14}", "ratio", "measured", "limit");
        Self { kept: true }
    }

    pub(crate) fn add(&mut self, what: &str, ratio: f64, limit: Limit) {
        let (kept, limit) = match limit {
            Limit::AtLeast(least) => (ratio >= least, format!("at least {least:.2}")),
            Limit::AtMost(most) => (ratio <= most, format!("at most {most:.2}")),
            Limit::None => (true, String::new()),
        };
        self.kept &= kept;
        println!("{what:<75} {ratio:>8.2} {limit:>14}{}", if kept { "" } else { "  past it" });
    }

    pub(crate) fn exit_code(self) -> ExitCode {
        if self.kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Whether the benchmark is only to show that it runs.
pub(crate) fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test" || arg == "--list")
}
