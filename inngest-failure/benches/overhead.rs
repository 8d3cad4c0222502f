//! What metrics and a place for dead letters cost a dispatch that succeeds, as ratios to the same dispatch without them, in
//! the same run:
//!
//! `cargo bench -p inngest-failure --features metrics --bench overhead`
//!
//! That the feature is turned on, with no recorder, costs what `dispatch` shows with and without `--features metrics`.

mod common;

use std::{hint::black_box, process::ExitCode, sync::Arc};

use common::{Contender, Limit, Ratios, is_test, ratio};
use inngest_failure::{
    BoxError, BoxFuture, DeadLetter, DeadLetters, Dispatcher, DispatcherBuilder, Failure, handlers,
    on_failure,
};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::registry::{AtomicStorage, Registry};
use serde::Deserialize;
use tokio::runtime::{self, Runtime};

/// The example of Inngest's documentation.
const EVENT: &[u8] = include_bytes!("documentation-example.event.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signup {
    billing_plan: String,
}

#[on_failure(function = "my-gcp-cloud-functions-app-hello-inngest")]
async fn handle(failure: Failure<Signup>) {
    black_box(failure.event.data.billing_plan.len() + failure.error.message.len());
}

/// Where no letter ever comes.
struct Unused;

impl DeadLetters for Unused {
    fn put<'a>(&'a self, _: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
        unreachable!("the handler succeeds")
    }
}

/// Keeps metrics as exporters do: in a registry of atomics.
struct Kept(Registry<Key, AtomicStorage>);

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.get_or_create_counter(key, |counter| Counter::from_arc(Arc::clone(counter)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.get_or_create_gauge(key, |gauge| Gauge::from_arc(Arc::clone(gauge)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.get_or_create_histogram(key, |histogram| Histogram::from_arc(Arc::clone(histogram)))
    }
}

fn builder() -> DispatcherBuilder {
    Dispatcher::builder().without_inventory().register(handlers![handle])
}

fn contender<'a>(
    name: &'static str,
    runtime: &'a Runtime,
    builder: DispatcherBuilder,
) -> Contender<'a> {
    let dispatcher = builder.build().expect("the handler is sound");
    let dispatch = move |n| {
        runtime.block_on(async {
            for _ in 0..n {
                let report = dispatcher.dispatch_json(black_box(EVENT)).await.unwrap();
                assert!(black_box(report).is_ok());
            }
        });
    };
    // What is counted is looked up the first time.
    dispatch(1);
    Contender { name, work: Box::new(dispatch) }
}

fn main() -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime starts");
    let times = if is_test() { 1 } else { 2_000 };

    let plain = contender("dispatch", &runtime, builder());
    let with_sink = contender("an unused sink", &runtime, builder().dead_letters(Unused));
    let recorder = Kept(Registry::atomic());
    let (recorded, counted) = metrics::with_local_recorder(&recorder, || {
        let recorded = contender("a recorder", &runtime, builder());
        (recorded.work)(10);
        let mut counted = 0;
        recorder.0.visit_counters(|_, value| {
            counted += value.load(std::sync::atomic::Ordering::Relaxed);
        });
        (recorded, counted)
    });
    assert_eq!(counted, 3 * 11, "an event, an attempt and a run are counted of each dispatch");

    let mut ratios = Ratios::new();
    for ours in [&with_sink, &recorded] {
        let name = format!("dispatch with {} / without", ours.name);
        ratios.add(&name, ratio(ours, &plain, times), Limit::AtMost(1.05));
    }
    if is_test() { ExitCode::SUCCESS } else { ratios.exit_code() }
}
