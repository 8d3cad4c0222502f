//! Endpoints that can't be: what `build` says of each.

use inngest_failure::{
    __private::{Call, Registration},
    Api, BuildError, DispatcherBuilder, handlers, on_failure,
    serve::Endpoint,
};
use serde_json::Value;
use tests::{Log, http::KEY};

use crate::{builder, cloud};

#[on_failure(function = "checkout")]
async fn checkout() {}

#[on_failure(function = "pick", app = "depot", id = "pick it")]
async fn pick() {}

#[on_failure(function = "acme-web-signup", id = "signup")]
async fn of_any_app() {}

#[on_failure(fallback)]
async fn rest() {}

#[track_caller]
fn refused(build: Result<Endpoint, BuildError>) -> String {
    build.expect_err("it can't be").to_string()
}

fn sound() -> DispatcherBuilder {
    builder().register(handlers![checkout])
}

#[test]
fn cloud_mode_without_a_signing_key_says_both_ways_out() {
    // The environment of a test has no key: what it has must not decide.
    let api = Api::builder().dev(false).api_origin("https://api.example.com").build().unwrap();
    let dispatcher = sound().api(api).build().unwrap();
    assert_eq!(
        refused(Endpoint::builder(dispatcher.clone(), "shop-failures").build()),
        "1 problem with the failure handlers:\n  - there is no signing key, so that calls could not be told from \
         forged ones; set `INNGEST_SIGNING_KEY` to the key that the dashboard shows, or choose dev mode with \
         `INNGEST_DEV=1` where no one else can reach the endpoint"
    );
    assert!(Endpoint::builder(dispatcher.clone(), "shop-failures").dev(true).build().is_ok());
    assert!(Endpoint::builder(dispatcher, "shop-failures").signing_key(KEY).build().is_ok());
}

#[test]
fn an_app_of_failed_functions_is_refused_for_its_sync_would_erase_it() {
    let build = |app: &str| Endpoint::builder(sound().build().unwrap(), app).dev(true).build();
    assert_eq!(
        refused(build("shop")),
        "1 problem with the failure handlers:\n  - the endpoint's app id `shop` is also the dispatcher's `app`, \
         whose functions its sync would erase; give the endpoint an app id of its own, such as `shop-failures`"
    );
    assert!(build("shop-checkout").is_ok());

    let dispatcher = builder().register(handlers![pick]).build().unwrap();
    let error = refused(Endpoint::builder(dispatcher, "depot").dev(true).build());
    assert!(
        error.contains("the endpoint's app id `depot` is also the app of `depot-pick`"),
        "{error}"
    );

    // A composite id does not say where its app ends.
    let without_app = || {
        let builder = inngest_failure::Dispatcher::builder().without_inventory();
        builder.register(handlers![of_any_app]).build().unwrap()
    };
    for app in ["acme", "acme-web"] {
        let error = refused(Endpoint::builder(without_app(), app).dev(true).build());
        assert!(
            error.contains("if the function's app is another one, name it with `app = \"..\"`"),
            "{error}"
        );
    }
    assert!(Endpoint::builder(without_app(), "acme-failures").dev(true).build().is_ok());
}

#[test]
fn every_problem_is_reported_at_once_with_its_remedy() {
    let dispatcher = builder().register(handlers![checkout, pick]).build().unwrap();
    let error = refused(
        Endpoint::builder(dispatcher, "my failures")
            .dev(false)
            .signing_key("hunter2")
            .serve_origin("shop.example.com")
            .serve_path("api")
            .build(),
    );
    for line in [
        "- `.signing_key(..)` is no signing key; it is `signkey-<env>-` and hexadecimal digits, or those alone: \
         copy it whole",
        "- `.serve_origin(..)` is no URL with a scheme and a host; write it as `https://example.com`",
        "- `.serve_path(..)` is no path; write it as `/api/failures`",
        "- the endpoint's app id \"my failures\" has a ' ' in it; write it with letters, digits, `-`, `_` and `.`",
        "its id \"pick it\" has a ' ' in it, which the id of an Inngest function can't have; give it an `id = \
         \"..\"` of letters, digits, `-`, `_` and `.`",
    ] {
        assert!(error.contains(line), "{line} in {error}");
    }
    assert!(error.starts_with("5 problems"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_blank_app_id_is_refused() {
    for app in ["", " "] {
        let error = refused(Endpoint::builder(sound().build().unwrap(), app).dev(true).build());
        assert!(error.contains("the endpoint's app id is blank"), "{error}");
    }
}

/// So many handlers of functions with long names.
fn many(count: usize) -> Vec<&'static Registration> {
    (0..count)
        .map(|i| {
            let function: &'static str = format!("{}-{i}", "a-function".repeat(10)).leak();
            let call = Call::Async(|_| Box::pin(async { Ok(Value::Null) }));
            let registration =
                Registration::new(function, function, (file!(), line!()), "", |_| {}, call)
                    .function(function);
            &*Box::leak(Box::new(registration))
        })
        .collect()
}

#[test]
fn a_fallback_that_excepts_too_many_functions_is_refused() {
    let endpoint = |count| {
        let dispatcher = builder().register(handlers![rest]).register(many(count)).build().unwrap();
        cloud(dispatcher).build()
    };
    assert!(endpoint(600).is_ok());
    let error = refused(endpoint(1_000));
    assert!(error.starts_with("1 problem"), "{error}");
    assert!(error.contains("and Inngest takes 100000: a fallback names every function"), "{error}");
    assert!(error.contains("take `function = \"*\"` instead of `fallback`"), "{error}");
}

#[on_failure(function = "a", error = r"App\CardError", id = "backslash")]
async fn backslash() {}

#[on_failure(function = "b", error = "vars.x", id = "variable")]
async fn variable() {}

#[on_failure(function = "a*b^c", id = "pattern")]
async fn pattern() {}

#[on_failure(function = "c*.x", error = "it's \"it\"", id = "quotes")]
async fn quotes() {}

#[test]
fn what_inngest_would_evaluate_otherwise_than_it_is_meant_is_refused() {
    let dispatcher =
        builder().register(handlers![backslash, variable, pattern, quotes]).build().unwrap();
    let error = refused(cloud(dispatcher).build());
    assert!(error.starts_with("3 problems"), "{error}");
    for handler in ["backslash", "variable", "pattern"] {
        assert!(error.contains(&format!("serve::build::{handler}`")), "{error}");
    }
    assert!(
        error.contains("can't be written so that Inngest evaluates it as it is meant"),
        "{error}"
    );
}

#[test]
fn without_a_fallback_there_is_a_warning() {
    tests::listen();
    let (log, _guard) = Log::start(tracing::Level::WARN);
    cloud(builder().register(handlers![checkout, rest]).build().unwrap()).build().unwrap();
    assert_eq!(log.text(), "");
    cloud(sound().build().unwrap()).build().unwrap();
    let log = log.text();
    assert!(log.contains("no handler is a `fallback` or for `*`"), "{log}");
    assert!(log.contains("app_id=\"shop-failures\""), "{log}");
}

#[test]
fn an_endpoint_takes_the_dispatchers_api_and_what_it_is_given_goes_before_it() {
    let api = Api::builder()
        .dev(false)
        .signing_key(KEY)
        .env("of-the-dispatcher")
        .api_origin("https://api.example.com")
        .build()
        .unwrap();
    let dispatcher = sound().api(api).build().unwrap();
    let endpoint = Endpoint::builder(dispatcher, "shop-failures").env("mine").build().unwrap();
    let shown = format!("{endpoint:?}");
    assert!(shown.contains("env: Some(\"mine\")"), "{shown}");
    assert!(shown.contains("api_origin: \"https://api.example.com\""), "{shown}");
    assert!(!shown.contains(&KEY["signkey-test-".len()..]), "{shown}");
}
