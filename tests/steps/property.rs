//! Whatever a handler's steps are, and whatever becomes of the calls, the run ends as plain code would.

use std::{collections::BTreeMap, time::Duration};

use inngest_failure::{
    Backoff, Dispatcher, handlers,
    testing::{TestRun, failure},
};
use proptest::{
    prelude::{Strategy, any},
    prop_assert, prop_assert_eq,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use serde_json::json;
use tokio::runtime;

use crate::{
    Seen, builder,
    program::{self, Program, programs},
};

/// How the calls go.
#[derive(Clone, Debug)]
struct Weather {
    seed: u64,
    lost: f64,
    repeated: f64,
}

fn weather() -> impl Strategy<Value = Weather> {
    (any::<u64>(), 0..3_u8, 0..3_u8).prop_map(|(seed, lost, repeated)| Weather {
        seed,
        lost: f64::from(lost) * 0.15,
        repeated: f64::from(repeated) * 0.25,
    })
}

fn dispatcher(seen: &Seen) -> Dispatcher {
    let backoff = Backoff::new().first(Duration::from_millis(1)).max(Duration::from_millis(1));
    let builder = builder().backoff(backoff).state(seen.clone());
    builder.register(handlers![program::program]).build().unwrap()
}

fn counts(seen: &Seen) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for id in seen.take() {
        *counts.entry(id).or_default() += 1;
    }
    counts
}

fn check(
    runtime: &runtime::Runtime,
    program: &Program,
    Weather { seed, lost, repeated }: &Weather,
) -> Result<(), TestCaseError> {
    let mut completions = BTreeMap::new();
    let expected = program.expected(&mut completions);
    let seen = Seen::default();
    let dispatcher = dispatcher(&seen);
    let event = failure("shop-program").data(program).build();

    // With a server that is played.
    let run = TestRun::new(&dispatcher, "shop-program-failure", event.clone());
    let run = run.seed(*seed).lose_answers(*lost).repeat_calls(*repeated);
    let transcript = runtime.block_on(run.run());
    let outcome = match transcript.result() {
        Ok(value) => Ok(value.clone()),
        Err(error) => Err(error["message"].clone()),
    };
    let wanted = expected.clone().map(|values| json!(values)).map_err(|error| json!(error));
    // Of steps side by side, the first error in the code's order is known only if all are waited for, as here.
    prop_assert_eq!(&outcome, &wanted, "{}", transcript);
    let counted = counts(&seen);
    if *lost == 0.0 {
        prop_assert_eq!(&counted, &completions, "{}", transcript);
    } else {
        prop_assert!(
            counted.keys().eq(completions.keys()),
            "{:?} {:?}\n{}",
            counted,
            completions,
            transcript
        );
    }

    // In process.
    let run = runtime.block_on(async {
        tokio::time::pause();
        let mut dispatch = dispatcher.dispatch(event).await;
        tokio::time::resume();
        dispatch.runs.remove(0)
    });
    let outcome = run.result.map_err(|error| error.to_string());
    match (&outcome, &expected) {
        (Ok(value), Ok(values)) => prop_assert_eq!(value, &json!(values)),
        (Err(error), Err(message)) => {
            prop_assert!(error.ends_with(&format!("failed: {message}")), "{}", error);
        }
        _ => prop_assert!(false, "{:?} is not {:?}", outcome, expected),
    }
    prop_assert_eq!(counts(&seen), completions);
    Ok(())
}

fn all(cases: u32) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    runner
        .run(&(programs(true), weather()), |(program, weather)| check(&runtime, &program, &weather))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_run_ends_as_plain_code_would() {
    all(200);
}

#[test]
#[ignore = "the full count"]
fn a_run_ends_as_plain_code_would_20000() {
    all(20_000);
}
