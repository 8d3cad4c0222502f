//! Whatever a run had done, what had completed is undone, each use once, the last one first.

use std::time::Duration;

use inngest_failure::{
    Backoff, Dispatcher, RunTrace, State, StepOutput, handlers, on_failure,
    testing::{TestRun, failure},
};
use proptest::{
    prelude::{Just, Strategy, any, prop_oneof},
    prop_assert_eq,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};
use tokio::runtime;

use crate::{Seen, builder};

/// The steps that have an undo, and one that has none.
const STEPS: [&str; 4] = ["a", "b", "c", "other"];

/// One use of a step, as the failed run came to it.
#[derive(Clone, Debug)]
struct Use {
    step: usize,
    /// How many attempts failed before the one that completed, or all of them.
    failures: u32,
    completes: bool,
    /// Whether it is a sleep.
    sleeps: bool,
    output: Value,
    /// Whether it runs beside the one before.
    is_parallel: bool,
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let output = prop_oneof![
        Just(json!(null)),
        any::<i32>().prop_map(|number| json!(number)),
        "[a-z\"]{0,6}".prop_map(|text| json!(text)),
        any::<u8>().prop_map(|number| json!({ "n": number })),
        Just(json!([1, { "data": 2 }])),
    ];
    let one = (0..STEPS.len(), 0..3_u32, any::<bool>(), any::<bool>(), any::<bool>(), output);
    let one = one.prop_map(|(step, failures, completes, sleeps, is_parallel, output)| Use {
        step,
        failures,
        completes: completes || sleeps,
        sleeps: sleeps && failures == 0,
        output,
        is_parallel,
    });
    proptest::collection::vec(one, 0..9)
}

fn time(millis: u64) -> String {
    let (seconds, millis) = (millis / 1000, millis % 1000);
    format!(
        "2026-11-22T{:02}:{:02}:{:02}.{millis:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// A step's id as the JavaScript SDK has it, or the Rust SDK 0.1.1.
fn hash(id: &str, index: u32, by_rust: bool) -> String {
    let sha = |text: String| sha1_smol::Sha1::from(text).digest().to_string();
    match (by_rust, index) {
        (true, index) => sha(format!("{id}:{}", index + 1)).to_uppercase(),
        (false, 0) => sha(id.to_owned()),
        (false, index) => sha(format!("{id}:{index}")),
    }
}

/// The trace of such a run, with the server's redundancy and its children in any order; and what is to be undone.
fn trace(uses: &[Use], seed: u64) -> (RunTrace, Vec<String>) {
    let mut random = StdRng::seed_from_u64(seed);
    let by_rust = random.random();
    let mut children = Vec::new();
    let mut completed = Vec::new();
    let mut counts = [0; STEPS.len()];
    let (mut now, mut began) = (0, 0);
    for one in uses {
        let id = STEPS[one.step];
        let index = counts[one.step];
        counts[one.step] += 1;
        if !one.is_parallel {
            began = now;
        }
        // Two steps that run side by side may begin together; no two end in one millisecond.
        now = now.max(began) + random.random_range(1..1000);
        let ended = time(now);
        let output = match &one.output {
            object @ Value::Object(_) => object.clone(),
            other => json!({ "data": other }),
        };
        let status = if one.completes { "COMPLETED" } else { "FAILED" };
        let error = json!({ "name": "Error", "message": format!("{id} failed") });
        let mut span = json!({
            "name": id, "stepId": hash(id, index, by_rust), "status": status, "queuedAt": time(began),
            "startedAt": time(began), "endedAt": ended,
        });
        if one.sleeps {
            span["stepOp"] = "SLEEP".into();
        } else {
            span["output"] = if one.completes { output.clone() } else { error.clone() };
            if one.completes {
                span["stepOp"] = "RUN".into();
            }
        }
        let mut attempts = Vec::new();
        for attempt in 0..one.failures {
            let mut failed = span.clone();
            failed["name"] = format!("Attempt {attempt}").into();
            failed["status"] = "FAILED".into();
            failed["output"] = error.clone();
            failed["endedAt"] = time(began).into();
            attempts.push(failed.clone());
            if random.random() {
                // Also one of its own.
                failed["name"] = id.into();
                children.push(failed);
            }
        }
        let mut twice = span.clone();
        attempts.shuffle(&mut random);
        span["children"] = attempts.into();
        children.push(span);
        if random.random() && one.completes {
            // Planned, and noted as done a little later.
            twice["endedAt"] = time(now + random.random_range(0..1)).into();
            children.push(twice);
        }
        if one.completes && id != "other" {
            let value = if one.sleeps { &Value::Null } else { &output };
            completed.push(format!("{id} {index} {value}"));
        }
    }
    children.push(json!({ "name": "Finalization", "status": "FAILED", "endedAt": time(now + 2) }));
    children
        .push(json!({ "name": "executor.nonstep", "status": "FAILED", "endedAt": time(now + 2) }));
    children.shuffle(&mut random);
    let root = json!({
        "name": "Run", "status": "FAILED", "endedAt": time(now + 2), "children": children,
        "output": { "name": "Error", "message": "end" },
    });
    let answer = json!({ "data": { "runId": "r1", "rootSpan": root } });
    completed.reverse();
    (answer.to_string().parse().unwrap(), completed)
}

macro_rules! undo {
    ($name:ident, $step:literal) => {
        #[on_failure(function = "checkout", step = $step, retries = 0)]
        async fn $name(output: StepOutput<Value>, State(seen): State<Seen>) {
            seen.note(format!("{} {} {}", output.step_id, output.index, *output));
        }
    };
}

undo!(undo_a, "a");
undo!(undo_b, "b");
undo!(undo_c, "c");

fn check(
    runtime: &runtime::Runtime,
    dispatcher: &Dispatcher,
    seen: &Seen,
    (uses, seed): (Vec<Use>, u64),
) -> Result<(), TestCaseError> {
    let (trace, expected) = trace(&uses, seed);
    let event = failure("shop-checkout").trace(trace).build();
    let report = runtime.block_on(dispatcher.dispatch(event.clone()));
    prop_assert_eq!(seen.take(), expected.clone());
    prop_assert_eq!((report.runs.len(), report.is_ok()), (3, true));

    let run = TestRun::new(dispatcher, "shop-checkout-rollback", event).seed(seed);
    let transcript = runtime.block_on(run.repeat_calls(0.3).run());
    transcript.assert_undone(expected.iter().map(|undone| &undone[..1]));
    let once: Vec<String> = {
        let mut all = seen.take();
        // A call that is made twice may run an undo twice; it is the order of the first ones that counts.
        let mut known = std::collections::HashSet::new();
        all.retain(|one| known.insert(one.clone()));
        all
    };
    prop_assert_eq!(once, expected);
    Ok(())
}

fn all(cases: u32) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let seen = Seen::default();
    let backoff = Backoff::new().first(Duration::from_millis(1)).max(Duration::from_millis(1));
    let builder = builder().backoff(backoff).state(seen.clone());
    let dispatcher = builder.register(handlers![undo_a, undo_b, undo_c]).build().unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng)
        .run(&(uses(), any::<u64>()), |case| check(&runtime, &dispatcher, &seen, case))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn what_had_completed_is_undone_in_reverse() {
    all(200);
}

#[test]
#[ignore = "the full count"]
fn what_had_completed_is_undone_in_reverse_20000() {
    all(20_000);
}
