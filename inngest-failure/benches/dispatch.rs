//! What a dispatch costs, as ratios to a baseline measured in the same run:
//!
//! `cargo bench -p inngest-failure --bench dispatch`
//!
//! Criterion gives the figures of this machine; the last lines give the ratios, and hold them against the
//! limits that the crate keeps.

mod common;

use std::{
    collections::HashMap,
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use common::{Contender, Limit, Ratios, by_hand, is_test, ratio};
use criterion::Criterion;
use inngest_failure::{
    __private::{Call, Registration, Value},
    Dispatcher, Failure, handlers, on_failure,
};
use serde::Deserialize;
use tokio::runtime::{self, Runtime};

/// The example of Inngest's documentation.
const EVENT: &[u8] = include_bytes!("documentation-example.event.json");

const MANY: usize = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signup {
    billing_plan: String,
}

/// What a handler does in these benchmarks.
fn work(plan: &str, message: &str) -> usize {
    black_box(plan).len() + black_box(message).len()
}

#[on_failure(function = "my-gcp-cloud-functions-app-hello-inngest")]
async fn handle(failure: Failure<Signup>) {
    black_box(work(&failure.event.data.billing_plan, &failure.error.message));
}

/// Handlers that never match, written by hand: ten thousand attributes would take minutes to compile.
fn others(functions: impl Iterator<Item = String>) -> Vec<&'static Registration> {
    functions
        .map(|function| {
            let function: &'static str = function.leak();
            let call = Call::Async(|_| Box::pin(async { Ok(Value::Null) }));
            let registration =
                Registration::new(function, function, (file!(), line!()), "", |_| {}, call)
                    .function(function)
                    .id(function);
            &*Box::leak(Box::new(registration))
        })
        .collect()
}

fn dispatcher(others: Vec<&'static Registration>) -> Dispatcher {
    Dispatcher::builder()
        .without_inventory()
        .register(handlers![handle])
        .register(others)
        .build()
        .expect("the handlers are sound")
}

fn exact(count: usize) -> Vec<&'static Registration> {
    others((1..count).map(|i| format!("shop-function-{i}")))
}

/// A hundred patterns, of many shapes, among exact ids.
fn with_patterns(count: usize) -> Vec<&'static Registration> {
    let mut all = exact(count - 100);
    all.extend(others((0..100).map(|i| match i % 4 {
        0 => format!("app-{i}-*"),
        1 => format!("*-report-{i}"),
        2 => format!("my-*-{i}"),
        _ => format!("my-gcp-*-cron-*-{i}"),
    })));
    all
}

fn contenders(runtime: &Runtime) -> Vec<Contender<'_>> {
    let dispatch = |name, others| {
        let dispatcher = dispatcher(others);
        let work = move |n| {
            runtime.block_on(async {
                for _ in 0..n {
                    let report = dispatcher.dispatch_json(black_box(EVENT)).await.unwrap();
                    assert_eq!(black_box(report).runs.len(), 1);
                }
            });
        };
        Contender { name, work: Box::new(work) }
    };
    let by_hand = |n| {
        for _ in 0..n {
            let event: by_hand::Event<Signup> = serde_json::from_slice(black_box(EVENT)).unwrap();
            let plan = &event.data.event.data.billing_plan;
            black_box(work(plan, &event.data.error.message));
        }
    };
    let ids: Vec<String> = (0..MANY).map(|i| format!("shop-function-{i}")).collect();
    let hash_map = move |n| {
        for _ in 0..n {
            let map: HashMap<String, usize> =
                ids.iter().enumerate().map(|(i, id)| (id.clone(), i)).collect();
            black_box(map);
        }
    };
    let others = exact(MANY);
    let build = move |n| {
        for _ in 0..n {
            black_box(dispatcher(others.clone()));
        }
    };
    vec![
        Contender { name: BY_HAND, work: Box::new(by_hand) },
        dispatch(ONE, Vec::new()),
        dispatch(TEN, exact(10)),
        dispatch(THOUSANDS, exact(MANY)),
        dispatch(PATTERNS, with_patterns(MANY)),
        Contender { name: HASH_MAP, work: Box::new(hash_map) },
        Contender { name: BUILD, work: Box::new(build) },
    ]
}

const BY_HAND: &str = "parse and call by hand";
const ONE: &str = "dispatch, 1 handler";
const TEN: &str = "dispatch, 10 handlers";
const THOUSANDS: &str = "dispatch, 10,000 handlers";
const PATTERNS: &str = "dispatch, 10,000 handlers, 100 of them patterns";
const HASH_MAP: &str = "HashMap of 10,000 ids";
const BUILD: &str = "build() with 10,000 handlers";

/// What, against which baseline, at most how many times, and how often in each round.
const COMPARISONS: [(&str, &str, f64, u64); 4] = [
    (ONE, BY_HAND, 1.5, 2_000),
    (THOUSANDS, TEN, 1.1, 2_000),
    (PATTERNS, TEN, 2.0, 2_000),
    (BUILD, HASH_MAP, 100.0, 2),
];

fn main() -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime starts");
    let contenders = contenders(&runtime);

    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for Contender { name, work } in &contenders {
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|n| {
                let started = Instant::now();
                work(n);
                started.elapsed()
            });
        });
    }
    criterion.final_summary();
    if is_test() {
        return ExitCode::SUCCESS;
    }

    let find = |name| contenders.iter().find(|contender| contender.name == name).expect("one");
    let mut ratios = Ratios::new();
    for (ours, baseline, limit, times) in COMPARISONS {
        let ratio = ratio(find(ours), find(baseline), times);
        ratios.add(&format!("{ours} / {baseline}"), ratio, Limit::AtMost(limit));
    }
    ratios.exit_code()
}
