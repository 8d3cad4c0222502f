//! What a dispatch costs, as ratios to a baseline measured in the same run:
//!
//! `cargo bench -p inngest-failure --bench dispatch`
//!
//! The last lines compare the lower quartiles and hold them against the limits that the crate promises.

use std::{
    collections::HashMap,
    fs,
    hint::black_box,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion};
use inngest_failure::{
    __private::{Call, Registration, Value},
    Dispatcher, Failure, handlers, on_failure,
};
use serde::Deserialize;
use tokio::runtime;

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

/// What someone would write by hand: the same fields in a type of their own.
mod by_hand {
    use std::time::SystemTime;

    use serde::Deserialize;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read for the sake of the comparison")]
    pub(super) struct Event<T> {
        pub(super) id: String,
        pub(super) name: String,
        pub(super) ts: u64,
        pub(super) data: Data<T>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read for the sake of the comparison")]
    pub(super) struct Data<T> {
        pub(super) function_id: String,
        pub(super) run_id: String,
        pub(super) error: Error,
        pub(super) event: Trigger<T>,
        pub(super) correlation_id: Option<String>,
        #[serde(skip)]
        pub(super) failed_at: Option<SystemTime>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read for the sake of the comparison")]
    pub(super) struct Error {
        pub(super) name: String,
        pub(super) message: String,
        pub(super) stack: Option<String>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read for the sake of the comparison")]
    pub(super) struct Trigger<T> {
        pub(super) id: String,
        pub(super) name: String,
        pub(super) data: T,
        pub(super) ts: i64,
        pub(super) user: Option<serde_json::Value>,
        pub(super) v: Option<String>,
    }
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

fn benchmark(criterion: &mut Criterion) {
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime starts");

    let mut group = criterion.benchmark_group("dispatch");
    group.bench_function("by_hand", |bencher| {
        bencher.iter(|| {
            let event: by_hand::Event<Signup> = serde_json::from_slice(black_box(EVENT)).unwrap();
            black_box(work(&event.data.event.data.billing_plan, &event.data.error.message))
        });
    });
    let setups = [
        ("handlers_1", dispatcher(Vec::new())),
        ("handlers_10", dispatcher(exact(10))),
        ("handlers_10000", dispatcher(exact(MANY))),
        ("handlers_10000_patterns_100", dispatcher(with_patterns(MANY))),
    ];
    for (name, dispatcher) in &setups {
        group.bench_function(*name, |bencher| {
            bencher.iter_custom(|times| runtime.block_on(dispatch(dispatcher, times)));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("build");
    let others = exact(MANY);
    group.bench_function(BenchmarkId::new("hash_map", MANY), |bencher| {
        let ids: Vec<String> = (0..MANY).map(|i| format!("shop-function-{i}")).collect();
        bencher.iter(|| -> HashMap<String, usize> {
            ids.iter().enumerate().map(|(i, id)| (id.clone(), i)).collect()
        });
    });
    group.bench_function(BenchmarkId::new("dispatcher", MANY), |bencher| {
        bencher.iter(|| dispatcher(others.clone()));
    });
    group.finish();
}

async fn dispatch(dispatcher: &Dispatcher, times: u64) -> Duration {
    let started = Instant::now();
    for _ in 0..times {
        let report = dispatcher.dispatch_json(black_box(EVENT)).await.unwrap();
        assert_eq!(black_box(report).runs.len(), 1);
    }
    started.elapsed()
}

/// The lower quartile of a benchmark's samples of this run, in nanoseconds: what disturbs a measurement
/// only ever makes it longer.
fn lower_quartile(id: &str) -> f64 {
    #[derive(Deserialize)]
    struct Samples {
        iters: Vec<f64>,
        times: Vec<f64>,
    }
    // Next to the folder in which the benchmark's own program lies: target/release/deps.
    let program = std::env::current_exe().expect("the program has a path");
    let target = program.ancestors().nth(3).expect("cargo's folders are nested");
    let file: PathBuf = target.join("criterion").join(id).join("new/sample.json");
    let json = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let Samples { iters, times } = serde_json::from_slice(&json).expect("criterion's own format");
    let mut each: Vec<f64> = times.iter().zip(&iters).map(|(time, n)| time / n).collect();
    each.sort_by(f64::total_cmp);
    each[each.len() / 4]
}

fn main() -> ExitCode {
    let mut criterion = Criterion::default().configure_from_args();
    benchmark(&mut criterion);
    criterion.final_summary();
    if std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        return ExitCode::SUCCESS;
    }

    let comparisons = [
        (
            "one handler to parsing and calling by hand",
            "dispatch/handlers_1",
            "dispatch/by_hand",
            1.5,
        ),
        ("10,000 handlers to 10", "dispatch/handlers_10000", "dispatch/handlers_10", 1.1),
        (
            "10,000 handlers, 100 of them patterns, to 10",
            "dispatch/handlers_10000_patterns_100",
            "dispatch/handlers_10",
            2.0,
        ),
        (
            "build() to a HashMap of 10,000 ids",
            "build/dispatcher/10000",
            "build/hash_map/10000",
            100.0,
        ),
    ];
    let mut kept = true;
    println!("\n{:<48} {:>8} {:>8}", "ratio of", "measured", "at most");
    for (what, ours, baseline, limit) in comparisons {
        let ratio = lower_quartile(ours) / lower_quartile(baseline);
        kept &= ratio <= limit;
        println!(
            "{what:<48} {ratio:>8.2} {limit:>8.2}{}",
            if ratio <= limit { "" } else { "  over" }
        );
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
