//! How undos are wired: what `build` refuses, what they are called, what Inngest is told of them, which of them a
//! failure reaches.

use ::http::Request;
use bytes::Bytes;
use inngest::{client::Inngest, handler::Handler, result::Error};
use inngest_failure::{
    Api, BuildError, Dispatch, Dispatcher, DispatcherBuilder, Failure, FailureEvent, HandlerInfo,
    ParseError, RunContext, RunTrace, State, Step, StepOutput, handlers, on_failure, sdk,
    serve::Endpoint,
    testing::{FailureBuilder, failure},
};
use serde_json::{Value, json};
use tests::{
    Log,
    http::{self, KEY, PATH},
};

use crate::{Outcome, Seen, builder, sdk_server};

/// The message without the places in this file.
fn message(error: &BuildError) -> String {
    let mut message = error.to_string();
    while let Some(start) = message.find(" (tests/rollback/wiring.rs:") {
        let length = message[start..].find(')').expect("it ends") + 1;
        message.replace_range(start..start + length, "");
    }
    message
}

mod refused {
    use super::*;

    #[on_failure(function = "checkout", step = "charge-card")]
    async fn refund(charge: StepOutput<String>) {
        drop(charge);
    }

    /// The same function by its composite id.
    #[on_failure(function = "checkout", app = "shop", step = "charge-card", error = "CardError")]
    async fn refund_again() {}

    #[on_failure(function = "checkout", step = "charge-card", cancelled)]
    async fn refund_once_more() {}

    /// Another app's.
    #[on_failure(function = "checkout", app = "depot", step = "charge-card")]
    async fn refund_elsewhere() {}

    #[on_failure(function = "pick")]
    async fn outside(charge: StepOutput<String>) {
        drop(charge);
    }

    #[on_failure(fallback)]
    fn far_outside(charge: Result<StepOutput<u8>, ParseError>) {
        drop(charge);
    }

    #[on_failure(function = "pick*", id = "shop-checkout-rollback")]
    async fn namesake() {}

    #[on_failure(function = "pack*", id = "shop-checkout-rollback/reserve-stock")]
    async fn namesake_of_an_undo() {}

    #[on_failure(function = "checkout", step = "reserve-stock")]
    fn release(step: Step, shop: State<Vec<u8>>) {
        drop((step, shop));
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let error = builder()
            .register(handlers![refund, refund_again, refund_once_more, refund_elsewhere])
            .register(handlers![outside, far_outside, namesake, namesake_of_an_undo, release])
            .build()
            .unwrap_err();
        assert_eq!(message(&error), "\
7 problems with the failure handlers:
  - `rollback::wiring::refused::refund`: it undoes step `charge-card`, and so does `rollback::wiring::refused::refund_again` and `rollback::wiring::refused::refund_once_more`; let one handler undo a step
  - `rollback::wiring::refused::outside`: it takes `StepOutput`, but undoes no step; write `step = \"..\"` in its attribute, or take `RunTrace`, which has all steps
  - `rollback::wiring::refused::far_outside`: it takes `StepOutput`, but undoes no step; write `step = \"..\"` in its attribute, or take `RunTrace`, which has all steps
  - `rollback::wiring::refused::namesake`: its id `shop-checkout-rollback` is also that of the rollback that `rollback::wiring::refused::refund` is a part of; give it another `id = \"..\"`
  - `rollback::wiring::refused::namesake_of_an_undo`: its id `shop-checkout-rollback/reserve-stock` is also that of `rollback::wiring::refused::release`; give it another `id = \"..\"`
  - `rollback::wiring::refused::release`: it needs state of type `alloc::vec::Vec<u8>`, and the dispatcher has none; give the dispatcher's builder a `.state(..)` of that type
  - `rollback::wiring::refused::release`: it takes `Step` but is a plain `fn`, which can't await one; make it an `async fn`");
    }

    #[test]
    fn two_undos_of_one_step_are_a_problem_by_themselves() {
        let error = builder().register(handlers![refund_again, refund]).build().unwrap_err();
        assert_eq!(message(&error), "\
1 problem with the failure handlers:
  - `rollback::wiring::refused::refund`: it undoes step `charge-card`, and so does `rollback::wiring::refused::refund_again`; let one handler undo a step");
    }

    #[test]
    fn an_undo_of_an_unknown_function_is_a_problem_as_any_handler_of_one() {
        let error = builder()
            .register(handlers![refund, refund_elsewhere])
            .known_functions(["shop-chekout", "depot-checkout"])
            .build()
            .unwrap_err();
        assert_eq!(message(&error), "\
1 problem with the failure handlers:
  - `rollback::wiring::refused::refund`: `function = \"checkout\"` means `shop-checkout`, which fits none of the known functions; did you mean `shop-chekout`?");
    }
}

mod both {
    use super::*;

    #[on_failure(function = "checkout", step = "charge-card")]
    async fn refund() {}

    #[on_failure(function = "checkout", step = "reserve-stock")]
    async fn release() {}

    #[on_failure(function = "checkout")]
    async fn exact() {}

    #[on_failure(function = "check*", error = "CardError")]
    async fn pattern() {}

    #[on_failure(function = "checkout", step = "ship", error = "ShippingError")]
    async fn recall() {}

    #[on_failure(function = "check*", app = "depot", id = "other-app")]
    async fn other_app() {}

    #[on_failure(function = "pick")]
    async fn other_function() {}

    #[on_failure(function = "pick", step = "label")]
    async fn unlabel() {}

    #[on_failure(function = "*")]
    async fn every() {}

    #[on_failure(fallback)]
    async fn rest() {}

    /// What is logged when it is built.
    fn warnings(builder: DispatcherBuilder) -> Vec<String> {
        let (log, _guard) = Log::start(tracing::Level::WARN);
        builder.build().unwrap();
        log.text().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn check(warning: &str, function_id: &str, handler: &str, undo: &str) {
        for part in [
            "the function's failures have a handler, and its steps have undos: both run, in no order",
            &format!("function_id=\"{function_id}\""),
            &format!("handler=\"rollback::wiring::both::{handler}\""),
            &format!("undo=\"rollback::wiring::both::{undo}\""),
        ] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
    }

    #[test]
    fn a_function_with_a_handler_and_undos_is_a_warning_once() {
        let found = warnings(builder().register(handlers![refund, release, exact]));
        assert_eq!(found.len(), 1, "{found:#?}");
        check(&found[0], "shop-checkout", "exact", "refund");

        let found = warnings(builder().register(handlers![release, pattern]));
        assert_eq!(found.len(), 1, "{found:#?}");
        check(&found[0], "shop-checkout", "pattern", "release");

        // However many cover it, and for each function by itself.
        let handlers = handlers![exact, pattern, refund, release, other_function, unlabel];
        let found = warnings(builder().register(handlers));
        assert_eq!(found.len(), 2, "{found:#?}");
        check(&found[0], "shop-checkout", "pattern", "refund");
        check(&found[1], "shop-pick", "other_function", "unlabel");
    }

    #[test]
    fn handlers_that_never_run_beside_an_undo_are_no_warning() {
        let handlers = handlers![refund, release, other_function, other_app, every, rest];
        assert_eq!(warnings(builder().register(handlers)), [""; 0]);
        assert_eq!(warnings(builder().register(handlers![refund, release])), [""; 0]);
        // Never both for one failure.
        assert_eq!(warnings(builder().register(handlers![recall, pattern])), [""; 0]);
    }
}

/// Gives the money back.
#[on_failure(function = "checkout", step = "charge-card", retries = 7, timeout = "90s")]
async fn refund(charge: StepOutput<String>, step: Step) -> Outcome<String> {
    drop(step);
    Ok(charge.into_inner())
}

#[on_failure(function = "checkout", step = "Reserve stock: \"all\"", retries = 1, cancelled)]
fn release(failure: Failure, run: RunContext) -> Outcome<String> {
    Ok(format!("{} {}", failure.function_id, run.max_attempts))
}

#[on_failure(function = "pick", app = "depot", step = "label", error = "LabelError")]
async fn unlabel(trace: RunTrace) {
    drop(trace);
}

#[on_failure(fallback, id = "rest", retries = 0)]
async fn rest() {}

fn all() -> Dispatcher {
    builder().register(handlers![refund, release, unlabel, rest]).build().unwrap()
}

#[test]
fn an_undo_is_listed_with_its_step_and_named_after_it() {
    let dispatcher = all();
    let [label, rest, reserve, charge] = dispatcher.handlers() else { panic!("{dispatcher:?}") };
    assert_eq!((rest.id.as_str(), rest.step), ("rest", None));

    assert_eq!(label.id, "depot-pick-rollback/label");
    assert_eq!(label.name, "pick (undo label)");
    assert_eq!(label.step, Some("label"));
    assert_eq!(label.selector, "depot-pick, error LabelError, step label");
    let expression =
        "event.data.function_id == 'depot-pick' && event.data.error.name == 'LabelError'";
    assert_eq!(triggers(label), [("inngest/function.failed", expression)]);

    assert_eq!(reserve.id, "shop-checkout-rollback/Reserve stock: \"all\"");
    assert_eq!(reserve.name, "checkout (undo Reserve stock: \"all\")");
    assert_eq!(reserve.selector, "shop-checkout, or cancelled, step Reserve stock: \"all\"");
    let expression = "event.data.function_id == 'shop-checkout'";
    assert_eq!(
        triggers(reserve),
        [("inngest/function.failed", expression), ("inngest/function.cancelled", expression)]
    );

    assert_eq!(charge.id, "shop-checkout-rollback/charge-card");
    assert_eq!(charge.name, "checkout (undo charge-card)");
    assert_eq!(charge.selector, "shop-checkout, step charge-card");
    assert_eq!((charge.retries, charge.timeout.unwrap().as_secs()), (7, 90));
    assert_eq!((charge.concurrency, charge.priority, charge.idempotency), (None, None, None));
    assert!(charge.throttle.is_none() && charge.rate_limit.is_none());
    assert_eq!(charge.rust_name, "rollback::wiring::refund");
    assert_eq!(charge.location.file, "tests/rollback/wiring.rs");
    assert_eq!(charge.description, "Gives the money back.");
}

fn triggers(info: &HandlerInfo) -> Vec<(&str, &str)> {
    let of = |trigger: &'static str, expression| (trigger, expression);
    info.triggers
        .iter()
        .map(|trigger| of(trigger.event, trigger.expression.as_deref().unwrap_or_default()))
        .collect()
}

/// The functions that a server was told of, sorted by id.
fn functions(api: &http::Api) -> Value {
    let received = api.received();
    assert_eq!(received.len(), 1);
    let mut payload: Value = serde_json::from_slice(received[0].body()).unwrap();
    payload["functions"]
        .as_array_mut()
        .unwrap()
        .sort_by_key(|function| function["id"].as_str().unwrap().to_owned());
    payload["functions"].take()
}

const SYNCED: &str = r#"{"ok":true,"modified":true}"#;

const FAILED: &str = "inngest/function.failed";
const CANCELLED: &str = "inngest/function.cancelled";
const CHECKOUT: &str = "event.data.function_id == 'shop-checkout'";
const PICK: &str = "event.data.function_id == 'depot-pick'";

#[tokio::test]
async fn an_endpoint_syncs_one_function_for_all_undos_of_a_function() {
    let api = http::Api::start(&[(200, SYNCED)]).await;
    let endpoint = Endpoint::builder(all(), "undos")
        .dev(false)
        .signing_key(KEY)
        .api_origin(api.origin())
        .serve_origin("https://shop.example.com")
        .serve_path(PATH)
        .build()
        .unwrap();
    assert!(endpoint.sync().await.unwrap().modified);

    let function = |id: &str, name: &str, retries: u32, triggers: &[(&str, &str)]| {
        let triggers: Vec<Value> = triggers
            .iter()
            .map(|(event, expression)| json!({ "event": event, "expression": expression }))
            .collect();
        json!({
            "id": id, "name": name, "triggers": triggers,
            "steps": { "step": {
                "id": "step", "name": "step", "retries": { "attempts": retries },
                "runtime": {
                    "type": "http",
                    "url": format!("https://shop.example.com{PATH}?fnId={id}&stepId=step"),
                },
            } },
        })
    };
    // What the fallback leaves to them depends on the undos themselves, not on their rollback.
    let rest = format!("!({PICK} && event.data.error.name == 'LabelError') && !({CHECKOUT})");
    let functions = functions(&api);
    let expected = json!([
        function("undos-depot-pick-rollback", "pick (rollback)", 3, &[(FAILED, PICK)]),
        function("undos-rest", "fallback (failure)", 0, &[(FAILED, &rest)]),
        function(
            "undos-shop-checkout-rollback",
            "checkout (rollback)",
            7,
            &[(FAILED, CHECKOUT), (CANCELLED, CHECKOUT)]
        ),
    ]);
    assert_eq!(functions, expected, "{functions:#}");
}

#[tokio::test]
async fn the_sdk_syncs_one_function_for_each_trigger_of_a_rollback() {
    let api = http::Api::start(&[(200, SYNCED)]).await;
    let client = Inngest::new("shop").api_origin(&api.origin());
    let mut handler: Handler<Value, Error> = Handler::new(&client).signing_key(KEY);
    handler.register_fns(sdk::servable_fns(&all(), &client));
    let layer = sdk::Layer::new(Api::builder().dev(true).build().unwrap()).unwrap();
    let server = sdk_server::Server::start(handler, Some(layer)).await;
    let host = format!("localhost:{}", server.address.port());
    let request = Request::put("/api/inngest").header("host", &host).body(Bytes::new()).unwrap();
    assert_eq!(server.send(request).await.status(), 200);

    let function = |id: &str, name: &str, retries: u32, event: &str, expression: &str| {
        json!({
            "id": id, "name": name,
            "triggers": [{ "event": event, "expression": expression }],
            "steps": { "step": {
                "id": "step", "name": "step", "retries": { "attempts": retries },
                "runtime": { "type": "http", "url": format!("http://{host}/api/inngest?fnId={id}&step=step") },
            } },
        })
    };
    let rest = format!("!({PICK} && event.data.error.name == 'LabelError') && !({CHECKOUT})");
    let functions = functions(&api);
    let expected = json!([
        function("shop-checkout-rollback", "checkout (rollback)", 7, FAILED, CHECKOUT),
        function(
            "shop-checkout-rollback-cancelled",
            "checkout (rollback) (cancelled)",
            7,
            CANCELLED,
            CHECKOUT
        ),
        function("shop-depot-pick-rollback", "pick (rollback)", 3, FAILED, PICK),
        function("shop-rest", "fallback (failure)", 0, FAILED, &rest),
    ]);
    assert_eq!(functions, expected, "{functions:#}");
}

/// In process: which undos have a run.
mod selected {
    use super::*;

    #[on_failure(function = "checkout", step = "a")]
    async fn always(State(seen): State<Seen>) {
        seen.note("always");
    }

    #[on_failure(function = "checkout", step = "b", error = "CardError")]
    async fn of_card(State(seen): State<Seen>) {
        seen.note("of_card");
    }

    #[on_failure(function = "checkout", step = "c", cancelled)]
    fn also_cancelled(State(seen): State<Seen>) {
        seen.note("also_cancelled");
    }

    #[on_failure(fallback, id = "rest", cancelled)]
    async fn rest(State(seen): State<Seen>) {
        seen.note("rest");
    }

    #[on_failure(function = "*", id = "every")]
    async fn every(State(seen): State<Seen>) {
        seen.note("every");
    }

    const UNDO: [&str; 3] =
        ["shop-checkout-rollback/a", "shop-checkout-rollback/b", "shop-checkout-rollback/c"];

    fn checkout() -> FailureBuilder {
        failure("shop-checkout")
            .completed_step("b", 1)
            .completed_step("a", 2)
            .completed_step("c", 3)
    }

    fn card() -> FailureEvent {
        checkout().error(("CardError", "declined")).build()
    }

    fn other() -> FailureEvent {
        checkout().error(("Error", "no stock")).build()
    }

    fn cancelled() -> FailureEvent {
        checkout().cancelled().build()
    }

    /// The ids of the handlers that have a run, and what ran, in its order.
    async fn dispatch(
        builder: DispatcherBuilder,
        event: FailureEvent,
    ) -> (Dispatch, Vec<String>, Vec<String>) {
        let seen = Seen::default();
        let dispatcher = builder.state(seen.clone()).build().unwrap();
        let dispatch = dispatcher.dispatch(event).await;
        assert!(dispatch.is_ok(), "{dispatch:?}");
        let ids = dispatch.runs.iter().map(|run| run.handler_id.clone()).collect();
        (dispatch, ids, seen.take())
    }

    #[tokio::test]
    async fn an_undo_has_a_run_if_it_takes_the_failure() {
        for (event, undos, ran) in [
            (card(), &UNDO[..], &["also_cancelled", "always", "of_card"][..]),
            (other(), &[UNDO[0], UNDO[2]], &["also_cancelled", "always"]),
            (cancelled(), &[UNDO[2]], &["also_cancelled"]),
        ] {
            let handlers = handlers![always, of_card, also_cancelled, rest];
            let (dispatch, ids, seen) = dispatch(builder().register(handlers), event).await;
            assert!(!dispatch.is_unhandled());
            assert_eq!(ids, undos);
            assert_eq!(seen, ran);
        }
    }

    #[tokio::test]
    async fn a_failure_that_no_undo_takes_is_left_to_a_fallback() {
        for (event, handler) in [(card(), UNDO[1]), (other(), "rest"), (cancelled(), "rest")] {
            let (dispatch, ids, seen) =
                dispatch(builder().register(handlers![of_card, rest]), event).await;
            assert!(!dispatch.is_unhandled());
            assert_eq!(ids, [handler]);
            assert_eq!(seen, [if handler == "rest" { "rest" } else { "of_card" }]);
        }
    }

    #[tokio::test]
    async fn a_failure_that_no_undo_takes_is_unhandled_without_a_fallback() {
        let (log, _guard) = Log::start(tracing::Level::WARN);
        let (unhandled, ids, _) = dispatch(builder().register(handlers![of_card]), other()).await;
        assert!(unhandled.is_unhandled() && ids.is_empty());
        let hint = "`shop-checkout, error CardError` covers the function but not this error; add a handler for it";
        assert!(log.text().contains(&format!("hint={hint:?}")), "{}", log.text());

        let (unhandled, ids, seen) =
            dispatch(builder().register(handlers![of_card, every]), other()).await;
        assert!(unhandled.is_unhandled());
        assert_eq!((ids, seen), (vec!["every".to_owned()], vec!["every".to_owned()]));
    }

    #[tokio::test]
    async fn an_undo_takes_the_failure_whatever_had_completed() {
        let event = failure("shop-checkout").failed_step("a").build();
        let (dispatch, ids, seen) =
            dispatch(builder().register(handlers![always, rest]), event).await;
        assert!(!dispatch.is_unhandled());
        assert_eq!(ids, [UNDO[0]]);
        assert!(seen.is_empty());
        assert_eq!(dispatch.runs[0].attempts, 0);
        assert_eq!(dispatch.runs[0].result.as_ref().unwrap(), &Value::Null);
    }

    #[on_failure(function = "check*", id = "shop-checkout-rollback/ab")]
    async fn beside(State(seen): State<Seen>) {
        seen.note("beside");
    }

    #[tokio::test]
    async fn a_handler_beside_them_has_its_own_run_in_the_order_of_the_ids() {
        let handlers = handlers![also_cancelled, beside, always];
        let (_, ids, mut seen) = dispatch(builder().register(handlers), other()).await;
        assert_eq!(ids, [UNDO[0], "shop-checkout-rollback/ab", UNDO[2]]);
        seen.sort();
        assert_eq!(seen, ["also_cancelled", "always", "beside"]);
    }
}
