//! Whatever a handler's steps are, its run in a server of the SDK ends as plain code would.

use std::collections::BTreeMap;

use inngest_failure::{handlers, testing::failure};
use proptest::{
    prop_assert_eq,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use serde_json::json;
use tokio::runtime;

use crate::{
    Seen, builder,
    program::{self, Program, programs},
    serve,
};

async fn check(program: &Program) -> Result<(), TestCaseError> {
    let mut completions = BTreeMap::new();
    let expected = program.expected(&mut completions);
    let seen = Seen::default();
    let server = serve(builder().state(seen.clone()).register(handlers![program::program])).await;
    let event = failure("shop-program").data(program).build();
    let run = server.run("shop-program-failure", &event, 21).await;
    let result = run.result.map_err(|error| error["message"].clone());
    let expected = expected.map(|values| json!(values)).map_err(|error| json!(error));
    prop_assert_eq!(result, expected, "{:?}", run.answers);
    let mut counts = BTreeMap::new();
    for id in seen.take() {
        *counts.entry(id).or_default() += 1;
    }
    prop_assert_eq!(counts, completions, "{:?}", run.answers);
    Ok(())
}

fn all(cases: u32) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    runner
        .run(&programs(true), |program| runtime.block_on(check(&program)))
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_run_ends_as_plain_code_would() {
    all(50);
}

#[test]
#[ignore = "the full count"]
fn a_run_ends_as_plain_code_would_5000() {
    all(5000);
}
