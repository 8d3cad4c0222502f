//! What is counted, for the facade of the crate `metrics`.

use std::{collections::BTreeMap, time::Duration};

use http_body_util::Full;
use inngest_failure::{
    DispatcherBuilder, Failure, HandlerError, NonRetriable, RunContext, Step, StepOutput, handlers,
    on_failure, serve::Endpoint, testing::failure,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use serde_json::json;
use tests::http;
use tower::ServiceExt;

use crate::{
    Broken, Kept, Outcome, PANIC, builder, event,
    sdk_server::{self, Call},
};

/// Each series as `name{label=value,..}` with its value; of a histogram, how many values it has.
type Counted = BTreeMap<String, f64>;

/// What is counted on this thread while the future runs.
async fn counted(future: impl Future<Output = ()>) -> Counted {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let guard = metrics::set_default_local_recorder(&recorder);
    future.await;
    drop(guard);
    let mut counted = Counted::new();
    let mut zeros = Vec::new();
    for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<String> =
            key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = key.key().name();
        assert!(unit.is_some() && description.is_some_and(|text| !text.is_empty()), "{name}");
        let value = match value {
            // What may be counted is there from the beginning, so that a rate has where to begin.
            DebugValue::Counter(0) => {
                zeros.push(name.to_owned());
                continue;
            }
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => {
                assert!(values.iter().all(|value| (0.0..60.0).contains(&value.into_inner())));
                values.len() as f64
            }
        };
        counted.insert(format!("{name}{{{}}}", labels.join(",")), value);
    }
    assert!(zeros.iter().any(|name| name == "inngest_failure_handler_runs_total"), "{zeros:?}");
    counted
}

#[track_caller]
fn assert_counted<const N: usize>(counted: &Counted, expected: [(&str, f64); N]) {
    let expected: Counted = expected
        .into_iter()
        .map(|(series, value)| (format!("inngest_failure_{series}"), value))
        .collect();
    assert_eq!(*counted, expected);
}

#[on_failure(function = "checkout", id = "fails", retries = 2)]
async fn fails() -> Outcome {
    Err("closed".into())
}

#[on_failure(function = "checkout", id = "second", retries = 1)]
async fn second(run: RunContext) -> Outcome {
    match run.attempt {
        0 => panic!("{PANIC}"),
        _ => Ok(()),
    }
}

#[on_failure(function = "checkout", id = "slow", retries = 0, timeout = "5ms")]
async fn slow() {
    std::future::pending::<()>().await;
}

#[on_failure(function = "checkout", id = "typed")]
async fn typed(_: Failure<u8>) {}

#[on_failure(function = "checkout", id = "limited", rate_limit = "1/1h")]
async fn limited() {}

#[tokio::test]
async fn dispatches_in_process_are_counted() {
    let counted = counted(async {
        let builder = builder().register(handlers![fails, second, slow, typed, limited]);
        let builder = builder.dead_letters(Kept::default()).dead_letters(Broken::Refuses);
        let dispatcher = builder.build().unwrap();
        dispatcher.dispatch(event("shop-checkout")).await;
        dispatcher.dispatch(event("shop-checkout")).await;
        dispatcher.dispatch(event("shop-other")).await;
        dispatcher.dispatch(failure("shop-checkout").cancelled().build()).await;
    })
    .await;
    assert_counted(
        &counted,
        [
            ("events_total{kind=failed}", 3.0),
            ("events_total{kind=cancelled}", 1.0),
            ("unhandled_events_total{}", 2.0),
            ("handler_runs_total{handler_id=fails,outcome=failed}", 2.0),
            ("handler_runs_total{handler_id=second,outcome=succeeded}", 2.0),
            ("handler_runs_total{handler_id=slow,outcome=timed_out}", 2.0),
            ("handler_runs_total{handler_id=typed,outcome=payload}", 2.0),
            ("handler_runs_total{handler_id=limited,outcome=succeeded}", 1.0),
            ("handler_runs_total{handler_id=limited,outcome=rate_limited}", 1.0),
            ("handler_attempts_total{handler_id=fails,outcome=failed}", 6.0),
            ("handler_attempts_total{handler_id=second,outcome=panicked}", 2.0),
            ("handler_attempts_total{handler_id=second,outcome=succeeded}", 2.0),
            ("handler_attempts_total{handler_id=slow,outcome=timed_out}", 2.0),
            ("handler_attempts_total{handler_id=typed,outcome=payload}", 2.0),
            ("handler_attempts_total{handler_id=limited,outcome=succeeded}", 1.0),
            ("handler_attempt_duration_seconds{handler_id=fails}", 6.0),
            ("handler_attempt_duration_seconds{handler_id=second}", 4.0),
            ("handler_attempt_duration_seconds{handler_id=slow}", 2.0),
            ("handler_attempt_duration_seconds{handler_id=typed}", 2.0),
            ("handler_attempt_duration_seconds{handler_id=limited}", 1.0),
            ("handler_attempts_in_flight{handler_id=fails}", 0.0),
            ("handler_attempts_in_flight{handler_id=second}", 0.0),
            ("handler_attempts_in_flight{handler_id=slow}", 0.0),
            ("handler_attempts_in_flight{handler_id=typed}", 0.0),
            ("handler_attempts_in_flight{handler_id=limited}", 0.0),
            // Three letters of each dispatch, in two sinks.
            ("dead_letters_total{outcome=logged}", 6.0),
        ],
    );
}

#[on_failure(function = "checkout", id = "steps", retries = 1)]
async fn steps(step: Step) -> Outcome {
    step.run("first", async || Ok::<_, HandlerError>(1)).await?;
    step.run("second", async || Outcome::<()>::Err("closed".into())).await?;
    Ok(())
}

#[on_failure(function = "checkout", step = "charge-card", retries = 0)]
async fn refund(_: StepOutput<u32>) -> Result<(), NonRetriable> {
    Err(NonRetriable::new("no such card"))
}

#[tokio::test]
async fn steps_and_rollbacks_are_counted_as_their_functions() {
    let counted = counted(async {
        let builder = builder().register(handlers![steps]).dead_letters(Kept::default());
        builder.build().unwrap().dispatch(event("shop-checkout")).await;
        let builder = self::builder().register(handlers![refund]).dead_letters(Kept::default());
        let event = failure("shop-checkout").completed_step("charge-card", 1).build();
        builder.build().unwrap().dispatch(event).await;
    })
    .await;
    let rollback = "handler_id=shop-checkout-rollback";
    assert_counted(
        &counted,
        [
            ("events_total{kind=failed}", 2.0),
            ("handler_runs_total{handler_id=steps,outcome=failed}", 1.0),
            // The step fails once and ends the attempt; then for good, which the handler is told.
            ("handler_attempts_total{handler_id=steps,outcome=stopped}", 1.0),
            ("handler_attempts_total{handler_id=steps,outcome=failed}", 1.0),
            ("handler_attempt_duration_seconds{handler_id=steps}", 2.0),
            ("handler_attempts_in_flight{handler_id=steps}", 0.0),
            (&format!("handler_runs_total{{{rollback},outcome=failed}}"), 1.0),
            (&format!("handler_attempts_total{{{rollback},outcome=failed}}"), 1.0),
            (&format!("handler_attempt_duration_seconds{{{rollback}}}"), 1.0),
            (&format!("handler_attempts_in_flight{{{rollback}}}"), 0.0),
            ("dead_letters_total{outcome=kept}", 2.0),
        ],
    );
}

/// Calls an endpoint on this thread.
async fn call(builder: DispatcherBuilder, handler_id: &str, attempts: u32) {
    let endpoint = Endpoint::builder(builder.build().unwrap(), "letters");
    let endpoint = endpoint.dev_server("http://127.0.0.1:9").build().unwrap();
    for attempt in 0..attempts {
        let call = Call { attempt, ..Call::default() };
        let body = sdk_server::body(&event("shop-checkout"), &call);
        let request = http::call(&format!("letters-{handler_id}"), body).map(Full::new);
        endpoint.clone().oneshot(request).await.unwrap();
    }
}

#[tokio::test]
async fn calls_of_an_endpoint_are_counted_and_runs_only_when_they_end() {
    let all =
        || builder().register(handlers![fails, second, typed, steps]).dead_letters(Kept::default());
    let counted = counted(async {
        call(all(), "fails", 3).await;
        call(all(), "fails", 4).await;
        call(all(), "typed", 1).await;
        call(all(), "second", 2).await;
        call(all(), "steps", 1).await;
    })
    .await;
    assert_counted(
        &counted,
        [
            // Of the first three calls none was the last of four.
            ("handler_runs_total{handler_id=fails,outcome=failed}", 1.0),
            ("handler_runs_total{handler_id=typed,outcome=payload}", 1.0),
            ("handler_runs_total{handler_id=second,outcome=succeeded}", 1.0),
            ("handler_attempts_total{handler_id=fails,outcome=failed}", 7.0),
            ("handler_attempts_total{handler_id=typed,outcome=payload}", 1.0),
            ("handler_attempts_total{handler_id=second,outcome=panicked}", 1.0),
            ("handler_attempts_total{handler_id=second,outcome=succeeded}", 1.0),
            ("handler_attempts_total{handler_id=steps,outcome=stopped}", 1.0),
            ("handler_attempt_duration_seconds{handler_id=fails}", 7.0),
            ("handler_attempt_duration_seconds{handler_id=typed}", 1.0),
            ("handler_attempt_duration_seconds{handler_id=second}", 2.0),
            ("handler_attempt_duration_seconds{handler_id=steps}", 1.0),
            ("handler_attempts_in_flight{handler_id=fails}", 0.0),
            ("handler_attempts_in_flight{handler_id=typed}", 0.0),
            ("handler_attempts_in_flight{handler_id=second}", 0.0),
            ("handler_attempts_in_flight{handler_id=steps}", 0.0),
            ("dead_letters_total{outcome=kept}", 2.0),
        ],
    );
}

#[tokio::test]
async fn calls_of_the_sdk_are_counted_as_those_of_an_endpoint() {
    let counted = counted(async {
        let builder = builder().register(handlers![fails, limited]).dead_letters(Kept::default());
        let server = crate::hosts::sdk(&builder.build().unwrap()).await;
        let event = event("shop-checkout");
        for attempt in 0..3 {
            let call = Call { attempt, ..Call::default() };
            assert_eq!(server.call("shop-fails", &event, &call).await.status, 500);
        }
        for _ in 0..2 {
            let answer = server.call("shop-limited", &event, &Call::default()).await;
            assert_eq!(answer.status, 200);
        }
    })
    .await;
    assert_counted(
        &counted,
        [
            ("handler_runs_total{handler_id=fails,outcome=failed}", 1.0),
            ("handler_runs_total{handler_id=limited,outcome=succeeded}", 1.0),
            ("handler_runs_total{handler_id=limited,outcome=rate_limited}", 1.0),
            ("handler_attempts_total{handler_id=fails,outcome=failed}", 3.0),
            ("handler_attempts_total{handler_id=limited,outcome=succeeded}", 1.0),
            ("handler_attempt_duration_seconds{handler_id=fails}", 3.0),
            ("handler_attempt_duration_seconds{handler_id=limited}", 1.0),
            ("handler_attempts_in_flight{handler_id=fails}", 0.0),
            ("handler_attempts_in_flight{handler_id=limited}", 0.0),
            ("dead_letters_total{outcome=kept}", 1.0),
        ],
    );
}

#[on_failure(function = "checkout", id = "endless", retries = 0)]
async fn endless() {
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_dispatch_that_is_dropped_is_not_in_flight_any_more() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let gauge = || {
        let gauges = snapshotter.snapshot().into_vec().into_iter();
        let values: Vec<f64> = gauges
            .filter_map(|(key, _, _, value)| match value {
                DebugValue::Gauge(value) if key.key().name().ends_with("_in_flight") => {
                    Some(value.into_inner())
                }
                _ => None,
            })
            .collect();
        assert_eq!(values.len(), 1);
        values[0]
    };
    let dispatcher = builder().register(handlers![endless]).build().unwrap();
    let mut dispatches: Vec<_> =
        (0..3).map(|_| Box::pin(dispatcher.dispatch(event("shop-checkout")))).collect();
    for dispatch in &mut dispatches {
        let early = tokio::time::timeout(Duration::from_millis(5), dispatch).await;
        assert!(early.is_err());
    }
    assert_eq!(gauge(), 3.0);
    drop(dispatches);
    // Since it was last looked at.
    assert_eq!(gauge(), -3.0);

    let counted = counted(async {
        let dispatcher = builder().register(handlers![endless]).build().unwrap();
        let dispatch = dispatcher.dispatch(event("shop-checkout"));
        assert!(tokio::time::timeout(Duration::from_millis(5), dispatch).await.is_err());
    })
    .await;
    assert_counted(
        &counted,
        [
            ("events_total{kind=failed}", 1.0),
            ("handler_attempts_total{handler_id=endless,outcome=dropped}", 1.0),
            ("handler_attempt_duration_seconds{handler_id=endless}", 1.0),
            ("handler_attempts_in_flight{handler_id=endless}", 0.0),
        ],
    );
}

#[on_failure(fallback, app = "shop", id = "any", retries = 0)]
async fn any(failure: Failure) -> Outcome {
    match failure.run_id.len() % 2 {
        0 => Err(failure.run_id.into()),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn there_are_no_more_series_for_more_events() {
    let series = async |events: usize| {
        let counted = counted(async {
            let builder = builder().register(handlers![any]).dead_letters(Kept::default());
            let dispatcher = builder.build().unwrap();
            for i in 0..events {
                let function = if i % 3 == 0 { format!("blog-{i}") } else { format!("shop-{i}") };
                let event = failure(function).run_id("r".repeat(1 + i)).error(("E", "no"));
                dispatcher.dispatch(event.data(json!({ "i": i })).build()).await;
            }
        });
        counted.await.into_keys().collect::<Vec<_>>()
    };
    let few = series(6).await;
    assert_eq!(few.len(), 9, "{few:#?}");
    assert_eq!(series(200).await, few);
}
