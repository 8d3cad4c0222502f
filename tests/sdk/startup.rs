//! What is refused before the first call.

use inngest::{client::Inngest, function::ServableFn, result::Error};
use inngest_failure::{
    BuildError, DispatcherBuilder, Failure, Step, handlers, on_failure,
    sdk::{self, EventData},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tests::Log;

use crate::builder;

fn functions<T>(
    app: &str,
    builder: DispatcherBuilder,
) -> Result<Vec<ServableFn<T, Error>>, BuildError>
where
    T: Serialize + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    sdk::try_servable_fns(&builder.build().unwrap(), &Inngest::new(app))
}

#[track_caller]
fn refused<T>(app: &str, builder: DispatcherBuilder) -> Vec<String>
where
    T: Serialize + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let error = functions::<T>(app, builder).expect_err("it is refused");
    error
        .problems()
        .iter()
        .map(|problem| format!("{}; {}", problem.fault, problem.remedy))
        .collect()
}

#[on_failure(function = "checkout", priority = 100)]
async fn first_in_line() {}

#[on_failure(function = "checkout", id = "once", idempotency = "event.data.run_id")]
async fn once() {}

#[on_failure(function = "checkout", id = "slowly", throttle = "1/1s")]
async fn slowly(step: Step) {
    drop(step);
}

#[on_failure(function = "checkout", id = "rarely", throttle = "1/1s", concurrency = 2)]
async fn rarely() {}

#[on_failure(function = "checkout", id = "sometimes", rate_limit = "1/1h")]
async fn sometimes() {}

#[test]
fn settings_that_nobody_would_keep_are_refused_all_at_once() {
    let handlers = handlers![first_in_line, once, slowly, rarely, sometimes];
    let problems = refused::<Value>("shop", builder().register(handlers));
    assert_eq!(
        problems,
        [
            "its `priority` is for Inngest's queue, and the `inngest` crate does not tell Inngest of it; leave it out, \
             or serve the handler at a `serve::Endpoint`, where Inngest keeps it",
            "its `idempotency` is Inngest's to keep, and the `inngest` crate does not tell Inngest of it, so that \
             repetitions would run; leave it out and use `failure.idempotency_key(..)`, or serve the handler at a \
             `serve::Endpoint`, where Inngest keeps it",
            "it takes `Step` and has a `throttle`, but in a server of the `inngest` crate it is called for each step, \
             and not told which call is a run's first; limit it with `concurrency`, or serve the handler at a \
             `serve::Endpoint`, where Inngest keeps it",
        ]
    );
}

#[on_failure(function = "Check Out")]
async fn spaced() {}

#[on_failure(function = "check_*", id = "pattern")]
async fn pattern() {}

#[on_failure(function = "check-*", id = "sound-pattern")]
async fn sound_pattern() {}

#[on_failure(function = "Any_Thing", app = "depot")]
async fn of_another_app() {}

#[test]
fn functions_of_this_app_are_named_as_the_sdk_names_them() {
    let handlers = handlers![spaced, pattern, sound_pattern, of_another_app];
    let problems = refused::<Value>("shop", builder().register(handlers));
    let slugs = "but the `inngest` crate makes slugs of ids, so that no function of the app `shop` is called so";
    assert_eq!(
        problems,
        [
            format!(
                "it is for `shop-Check Out`, {slugs}; name the function `shop-check-out`; if it means another app, \
                 name that with `app = \"..\"`"
            ),
            format!(
                "it is for `shop-check_*`, {slugs}; leave the '_' out of the pattern: slugs have lower-case letters, \
                 digits and `-`"
            ),
        ]
    );
    // For another app's server they are as sound as any.
    assert!(functions::<Value>("depot-eu", builder().register(handlers![spaced, pattern])).is_ok());
}

#[on_failure(function = "checkout", app = "Shop")]
async fn of_the_shop() {}

#[on_failure(function = "*", app = "Shop", id = "every")]
async fn every() {}

#[test]
fn the_app_is_named_as_the_sdk_names_it() {
    let problems = refused::<Value>("Shop", builder().register(handlers![of_the_shop, every]));
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].starts_with("it is for `Shop-checkout`"), "{}", problems[0]);
    assert!(problems[1].starts_with("it is for `Shop-*`"), "{}", problems[1]);
    assert!(
        problems[0].ends_with(
            "write the app as `shop`, in the attribute or in the dispatcher's `.app(..)`"
        ),
        "{}",
        problems[0]
    );
}

#[on_failure(fallback)]
async fn rest() {}

#[on_failure(function = "*", id = "all")]
async fn all() {}

#[test]
fn a_handler_for_every_app_has_none_to_be_named_wrongly() {
    let shouting = inngest_failure::Dispatcher::builder().without_inventory().app("Shop");
    assert!(functions::<Value>("Shop", shouting.register(handlers![rest, all])).is_ok());
    let problems = refused::<Value>("!!!", builder().register(handlers![rest]));
    let none = "the client's app id has no letter or digit that a slug could have; give `Inngest::new(..)` an id of \
                letters, digits and `-`";
    assert_eq!(problems, [none]);
}

#[on_failure(function = "shop-checkout")]
async fn composite() {}

#[on_failure(function = "shop-Check")]
async fn misspelt() {}

#[on_failure(function = "shop-Check*", id = "misspelt-pattern")]
async fn misspelt_pattern() {}

#[test]
fn composite_ids_are_looked_at_too() {
    let builder = || inngest_failure::Dispatcher::builder().without_inventory();
    assert!(functions::<Value>("shop", builder().register(handlers![composite])).is_ok());
    let problems =
        refused::<Value>("shop", builder().register(handlers![misspelt, misspelt_pattern]));
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("name the function `shop-check`"), "{problems:#?}");
    assert!(problems[1].contains("leave the 'C' out of the pattern"), "{problems:#?}");
}

#[on_failure(function = "a", id = "undo.all")]
async fn dotted() {}

#[on_failure(function = "b", id = "Undo_All")]
async fn underlined() {}

#[on_failure(function = "c", id = "shop-undo-all")]
async fn prefixed() {}

#[on_failure(function = "d", id = "...")]
async fn blank() {}

#[on_failure(function = "e", cancelled)]
async fn two() {}

#[on_failure(function = "f", id = "e-failure-cancelled")]
async fn taken() {}

#[test]
fn ids_that_are_one_slug_are_refused() {
    let handlers = handlers![dotted, underlined, prefixed, blank, two, taken];
    let problems = refused::<Value>("shop", builder().register(handlers));
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems.iter().any(|problem| {
        problem.starts_with(
            "the `inngest` crate calls it `shop-undo-all`, and so it calls `sdk::startup::",
        ) && problem.contains("dotted") | problem.contains("prefixed")
    }));
    assert!(problems.iter().any(|problem| problem.contains("`shop-e-failure-cancelled`")));
    let none = "its id \"...\" has no letter or digit that a slug could have; give it an `id = \"..\"` of letters, digits \
                and `-`";
    assert!(problems.iter().any(|problem| problem == none), "{problems:#?}");
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Order {
    order_id: String,
}

/// Takes anything, and keeps nothing.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Lenient {
    #[serde(default)]
    order_id: String,
}

/// Takes no failure without an error.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Strict {
    function_id: String,
    run_id: String,
    event: Value,
    error: Value,
}

#[on_failure(function = "checkout")]
async fn undo(failure: Failure) {
    drop(failure);
}

#[on_failure(function = "checkout", cancelled)]
async fn undo_cancelled(failure: Failure) {
    drop(failure);
}

#[test]
fn a_data_type_that_can_t_hold_a_failure_is_refused() {
    let registered = || builder().register(handlers![undo]);
    let remedy = "let it be `serde_json::Value`, `sdk::EventData<T>`, which takes the server's other functions with \
                  `sdk::adapt`, or an untagged enum that has a variant for any `serde_json::Value`";
    let expected = |data: &str, fault: &str| {
        [format!(
            "the server's data type `{data}` can't hold the data of a failure event: {fault}; {remedy}"
        )]
    };
    assert_eq!(
        refused::<Order>("shop", registered()),
        expected("sdk::startup::Order", "missing field `order_id`")
    );
    assert_eq!(
        refused::<Lenient>("shop", registered()),
        expected("sdk::startup::Lenient", "it does not keep `function_id` as it came")
    );
    assert!(functions::<EventData<Order>>("shop", registered()).is_ok());
    let (log, _guard) = Log::start(tracing::Level::WARN);
    assert!(functions::<Strict>("shop", registered()).is_ok());
    assert!(log.text().contains(r#"lost=["events", "result", "_inngest"]"#), "{}", log.text());
    assert_eq!(
        refused::<Strict>("shop", builder().register(handlers![undo_cancelled])),
        expected("sdk::startup::Strict", "missing field `error`")
    );
}

#[test]
#[should_panic(
    expected = "1 problem with the failure handlers:\n  - the server's data type `sdk::startup::Order`"
)]
fn servable_fns_panics_with_the_same_words() {
    let dispatcher = builder().register(handlers![undo]).build().unwrap();
    drop(sdk::servable_fns::<Order, Error>(&dispatcher, &Inngest::new("shop")));
}

#[test]
fn failures_that_nobody_takes_are_warned_of() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    assert!(functions::<Value>("shop", builder().register(handlers![undo])).is_ok());
    assert!(log.text().contains("no handler is a `fallback` or for `*`"), "{}", log.text());
}
