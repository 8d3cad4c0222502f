//! The same rollback in process, at an endpoint and in a server of the SDK, with a server that plays the API.

use std::time::Duration;

use inngest_failure::{
    Api, Backoff, DispatcherBuilder, Failure, FailureEvent, HandlerError, Rollback, RunContext,
    State, Step, StepOutput, handlers, on_failure, serve::Endpoint, testing::TestRun,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::http;

use crate::{Outcome, Seen, builder, sdk_server, traces::recorded};

#[derive(Deserialize)]
struct Reservation {
    reservation: String,
    qty: u32,
}

#[derive(Deserialize)]
struct Charge {
    charge_id: String,
}

#[derive(Deserialize)]
struct Order {
    order_id: String,
}

/// Without steps: it is one itself. Its first attempt fails.
#[on_failure(function = "serial", app = "tr4", step = "reserve-stock", retries = 1)]
async fn release(
    reserved: StepOutput<Reservation>,
    run: RunContext,
    State(seen): State<Seen>,
) -> Outcome<String> {
    if run.attempt == 0 {
        return Err("the warehouse is closed".into());
    }
    seen.note(format!("release {} ({})", reserved.reservation, reserved.idempotency_key()));
    Ok(format!("{} units, {}", reserved.qty, run.handler_id))
}

/// With steps of its own.
#[on_failure(function = "serial", app = "tr4", step = "charge-card")]
async fn refund(
    charge: StepOutput<Charge>,
    failure: Failure<Order>,
    State(seen): State<Seen>,
    step: Step,
) -> Outcome<String> {
    let refund = step
        .run("refund", async || {
            seen.note(format!("refund {} ({})", charge.charge_id, charge.idempotency_key()));
            Ok::<_, HandlerError>("re_1".to_owned())
        })
        .await?;
    step.sleep("settle", Duration::from_secs(60)).await?;
    step.run("tell", async || {
        seen.note(format!("tell about {}", failure.event.data.order_id));
        Ok::<_, HandlerError>(())
    })
    .await?;
    Ok(refund)
}

/// Had not completed, for it failed the run.
#[on_failure(function = "serial", app = "tr4", step = "ship")]
async fn unship(State(seen): State<Seen>) {
    seen.note("unship");
}

/// Slept, and returned nothing.
#[on_failure(function = "serial", app = "tr4", step = "cool-down")]
fn warm_up(slept: StepOutput<()>, State(seen): State<Seen>) {
    seen.note(format!("warm up after {}", slept.step_id));
}

/// Fails for good.
#[on_failure(function = "loop", app = "tr3", step = "item", retries = 1)]
async fn unpack(item: StepOutput<Value>, State(seen): State<Seen>) -> Outcome<Value> {
    seen.note(format!("unpack {} ({})", item["i"], item.index));
    match item.index {
        1 => Err("stuck".into()),
        _ => Ok(item["i"].clone()),
    }
}

fn all(seen: &Seen) -> DispatcherBuilder {
    let backoff = Backoff::new().first(Duration::from_millis(1)).max(Duration::from_millis(1));
    let handlers = handlers![release, refund, unship, warm_up, unpack];
    builder().backoff(backoff).state(seen.clone()).register(handlers)
}

/// What came of a rollback, and what undos did.
type Came = (Result<Value, String>, Vec<String>);

fn event(name: &str) -> FailureEvent {
    FailureEvent::try_from(recorded(name).0).unwrap()
}

/// A server that plays the API, with the trace of a recorded run.
async fn api_of(name: &str) -> http::Api {
    let file: Value =
        serde_json::from_slice(&tests::fixture(&format!("traces/{name}.json"))).unwrap();
    http::Api::start(&[(200, &file["trace"].to_string())]).await
}

fn client(api: &http::Api) -> Api {
    Api::builder().dev_server(api.origin()).build().unwrap()
}

/// What each host makes of a rollback: its report, and what the undos did.
struct Hosts {
    in_process: Dispatched,
    endpoint: Came,
    sdk: Came,
}

/// Each undo's result and attempts, by handler id.
type Dispatched = (Vec<(String, Result<Value, String>, u32)>, Vec<String>);

async fn on_all_hosts(name: &str, policy: Rollback) -> Hosts {
    let event = event(name);
    let id = format!("{}-rollback", event.function_id());
    let seen = Seen::default();
    let build = |api: &http::Api| all(&seen).rollback(policy).api(client(api)).build().unwrap();

    let api = api_of(name).await;
    tokio::time::pause();
    let dispatch = build(&api).dispatch(event.clone()).await;
    tokio::time::resume();
    assert!(!dispatch.is_unhandled());
    let runs = dispatch
        .runs
        .into_iter()
        .map(|run| (run.handler_id, run.result.map_err(|error| error.to_string()), run.attempts));
    let in_process = (runs.collect(), seen.take());
    assert_eq!(api.received().len(), 1);

    let api = api_of(name).await;
    let dispatcher = build(&api);
    let endpoint = Endpoint::builder(dispatcher.clone(), "undos").build().unwrap();
    let server = http::Server::start(endpoint).await;
    let run = TestRun::new(&dispatcher, &id, event.clone()).app_id("undos").path(http::PATH);
    let transcript = run.run_through(async |request| server.send(request).await).await;
    let endpoint = (of_answer(transcript.result()), seen.take());
    assert_eq!(api.received().len(), 1);
    let asked = &api.received()[0];
    let path = format!("/api/v2/runs/{}/trace", event.run_id());
    assert_eq!(
        (asked.uri().path(), asked.uri().query()),
        (path.as_str(), Some("includeOutput=true"))
    );

    let api = api_of(name).await;
    let dispatcher = build(&api);
    let client = inngest::client::Inngest::new("shop");
    let mut handler = inngest::handler::Handler::<Value, inngest::result::Error>::new(&client);
    handler.register_fns(inngest_failure::sdk::servable_fns(&dispatcher, &client));
    let layer =
        inngest_failure::sdk::Layer::new(Api::builder().dev(true).build().unwrap()).unwrap();
    let server = sdk_server::Server::start(handler, Some(layer)).await;
    let retries = dispatcher.handlers().iter().filter(|info| info.id.starts_with(&id));
    let attempts = retries.map(|info| info.retries).max().unwrap() + 1;
    let run = server.run(&format!("shop-{id}"), &event, attempts).await;
    let sdk = (of_answer(run.result.as_ref()), seen.take());
    Hosts { in_process, endpoint, sdk }
}

fn of_answer(result: Result<&Value, &Value>) -> Result<Value, String> {
    result.cloned().map_err(|error| error["message"].as_str().unwrap().to_owned())
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

#[tokio::test]
async fn what_had_completed_is_undone_in_reverse_order_on_every_host() {
    let Hosts { in_process, endpoint, sdk } = on_all_hosts("tr4.serial", Rollback::Continue).await;
    let event = event("tr4.serial");
    let run = event.run_id();
    let did = [
        "warm up after cool-down".to_owned(),
        format!("refund ch_42 ({run}:undo/charge-card)"),
        "tell about o1".to_owned(),
        format!("release r-1 ({run}:undo/reserve-stock)"),
    ];
    assert_eq!(endpoint.1, did);
    let released = "2 units, tr4-serial-rollback/reserve-stock";
    let report = json!({
        "undone": [
            { "step": "cool-down", "result": null },
            { "step": "charge-card", "result": "re_1" },
            { "step": "reserve-stock", "result": released },
        ],
        "not_completed": ["ship"],
    });
    assert_eq!(endpoint.0, Ok(report));
    assert_eq!(sdk, endpoint);
    let undo = |step: &str, result: Value, attempts: u32| {
        (format!("tr4-serial-rollback/{step}"), Ok(result), attempts)
    };
    let runs = vec![
        undo("charge-card", json!("re_1"), 1),
        undo("cool-down", json!(null), 1),
        undo("reserve-stock", json!(released), 2),
        undo("ship", json!(null), 0),
    ];
    assert_eq!(in_process, (runs, did.to_vec()));
}

#[tokio::test]
async fn an_undo_that_fails_for_good_does_not_stop_the_others_unless_it_is_to() {
    let Hosts { in_process, endpoint, sdk } = on_all_hosts("tr3.loop", Rollback::Continue).await;
    let did = texts(["unpack 2 (2)", "unpack 1 (1)", "unpack 1 (1)", "unpack 0 (0)"]);
    let run = "01M82KHGGM2MDJTWGVX9PNYEFG";
    let message = format!(
        "1 of 3 undos of run `{run}` failed for good: `item` (1): stuck | undone: `item` (2), `item`"
    );
    assert_eq!(endpoint, (Err(message), did.clone()));
    assert_eq!(sdk, endpoint);
    let runs = vec![("tr3-loop-rollback/item".to_owned(), Err("stuck".to_owned()), 4)];
    assert_eq!(in_process, (runs.clone(), did.clone()));

    let Hosts { in_process, endpoint, sdk } = on_all_hosts("tr3.loop", Rollback::StopAtFirst).await;
    let message = format!(
        "1 of 3 undos of run `{run}` failed for good: `item` (1): stuck | undone: `item` (2) | left: `item`"
    );
    assert_eq!(endpoint, (Err(message), did[..3].to_vec()));
    assert_eq!(sdk, endpoint);
    let runs = vec![("tr3-loop-rollback/item".to_owned(), Err("stuck".to_owned()), 3)];
    assert_eq!(in_process, (runs, did[..3].to_vec()));
}

#[on_failure(function = "no-steps", app = "tr3", step = "charge-card", retries = 0)]
async fn never(State(seen): State<Seen>) {
    seen.note("never");
}

#[tokio::test]
async fn of_a_run_that_had_completed_nothing_nothing_is_undone() {
    let api = api_of("tr3.no-steps").await;
    let seen = Seen::default();
    let builder = builder().state(seen.clone()).register(handlers![never]);
    let dispatcher = builder.api(client(&api)).build().unwrap();
    let endpoint = Endpoint::builder(dispatcher.clone(), "undos").build().unwrap();
    let server = http::Server::start(endpoint).await;
    let run = TestRun::new(&dispatcher, "tr3-no-steps-rollback", event("tr3.no-steps"));
    let run = run.app_id("undos").path(http::PATH);
    let transcript = run.run_through(async |request| server.send(request).await).await;
    let report = json!({
        "undone": [], "not_completed": ["charge-card"],
        "note": "the failed run had completed no step that has an undo",
    });
    assert_eq!(transcript.assert_succeeded(), &report);
    assert_eq!(transcript.calls().len(), 2);
    assert!(seen.take().is_empty());
}
