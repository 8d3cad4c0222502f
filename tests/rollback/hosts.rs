//! The same rollback in process, at an endpoint and in a server of the SDK, with a server that plays the API.

use std::time::Duration;

use bytes::Bytes;
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
    step.sleep("settle", Duration::from_millis(20)).await?;
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
    let handlers =
        handlers![release, refund, unship, warm_up, unpack, look_first, takes_long, twice, last];
    builder().backoff(backoff).state(seen.clone()).register(handlers)
}

/// What came of a rollback, and what undos did.
type Came = (Result<Value, String>, Vec<String>);

fn event(name: &str) -> FailureEvent {
    FailureEvent::try_from(recorded(name).0).unwrap()
}

/// What the API answers, and how late.
struct Answers {
    answers: Vec<(u16, String)>,
    delay: Duration,
}

impl Answers {
    /// These, and then the trace of a recorded run.
    fn before<const N: usize>(name: &str, before: [(u16, &str); N]) -> Self {
        let mut answers = Self::only(before);
        answers.answers.push((200, trace_of(name)));
        answers
    }

    fn only<const N: usize>(answers: [(u16, &str); N]) -> Self {
        let answers = answers.map(|(status, body)| (status, body.to_owned())).to_vec();
        Self { answers, delay: Duration::ZERO }
    }

    async fn start(&self) -> http::Api {
        let answers: Vec<(u16, &str)> =
            self.answers.iter().map(|(status, body)| (*status, body.as_str())).collect();
        http::Api::start_late(&answers, self.delay).await
    }
}

fn trace_of(name: &str) -> String {
    let file: Value =
        serde_json::from_slice(&tests::fixture(&format!("traces/{name}.json"))).unwrap();
    file["trace"].to_string()
}

/// A server that plays the API, with the trace of a recorded run.
async fn api_of(name: &str) -> http::Api {
    Answers::before(name, []).start().await
}

fn client(api: &http::Api) -> Api {
    let keys = Api::builder().signing_key(http::KEY).signing_key_fallback(http::OTHER_KEY);
    keys.dev_server(api.origin()).build().unwrap()
}

/// What each host makes of a rollback: its report, and what the undos did.
struct Hosts {
    in_process: Dispatched,
    endpoint: Came,
    sdk: Came,
    /// What the API was asked, by all of them.
    asked: Vec<::http::Request<Bytes>>,
}

/// Each undo's result and attempts, by handler id.
type Dispatched = (Vec<(String, Result<Value, String>, u32)>, Vec<String>);

async fn on_all_hosts(name: &str, policy: Rollback) -> Hosts {
    let hosts = on_all_hosts_with(name, policy, &Answers::before(name, [])).await;
    let asked = &hosts.asked[0];
    let path = format!("/api/v2/runs/{}/trace", event(name).run_id());
    assert_eq!(
        (asked.uri().path(), asked.uri().query()),
        (path.as_str(), Some("includeOutput=true"))
    );
    assert_eq!(hosts.asked.len(), 3);
    hosts
}

async fn on_all_hosts_with(name: &str, policy: Rollback, answers: &Answers) -> Hosts {
    let event = event(name);
    let id = format!("{}-rollback", event.function_id());
    let seen = Seen::default();
    let build = |api: &http::Api| all(&seen).rollback(policy).api(client(api)).build().unwrap();

    let api = answers.start().await;
    let dispatch = build(&api).dispatch(event.clone()).await;
    assert!(!dispatch.is_unhandled());
    let runs = dispatch
        .runs
        .into_iter()
        .map(|run| (run.handler_id, run.result.map_err(|error| error.to_string()), run.attempts));
    let in_process = (runs.collect(), seen.take());
    let mut asked = api.received();

    let api = answers.start().await;
    let dispatcher = build(&api);
    let endpoint = Endpoint::builder(dispatcher.clone(), "undos").build().unwrap();
    let server = http::Server::start(endpoint).await;
    let run = TestRun::new(&dispatcher, &id, event.clone()).app_id("undos").path(http::PATH);
    let transcript = run.run_through(async |request| server.send(request).await).await;
    let endpoint = (of_answer(transcript.result()), seen.take());
    asked.extend(api.received());

    let api = answers.start().await;
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
    asked.extend(api.received());
    Hosts { in_process, endpoint, sdk, asked }
}

fn of_answer(result: Result<&Value, &Value>) -> Result<Value, String> {
    result.cloned().map_err(|error| error["message"].as_str().unwrap().to_owned())
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

#[tokio::test]
async fn what_had_completed_is_undone_in_reverse_order_on_every_host() {
    let Hosts { in_process, endpoint, sdk, .. } =
        on_all_hosts("tr4.serial", Rollback::Continue).await;
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
    let Hosts { in_process, endpoint, sdk, .. } =
        on_all_hosts("tr3.loop", Rollback::Continue).await;
    let did = texts(["unpack 2 (2)", "unpack 1 (1)", "unpack 1 (1)", "unpack 0 (0)"]);
    let run = "01M82KHGGM2MDJTWGVX9PNYEFG";
    let message = format!(
        "1 of 3 undos of run `{run}` failed for good: `item` (1): stuck | undone: `item` (2), `item`"
    );
    assert_eq!(endpoint, (Err(message), did.clone()));
    assert_eq!(sdk, endpoint);
    let runs = vec![("tr3-loop-rollback/item".to_owned(), Err("stuck".to_owned()), 4)];
    assert_eq!(in_process, (runs.clone(), did.clone()));

    let Hosts { in_process, endpoint, sdk, .. } =
        on_all_hosts("tr3.loop", Rollback::StopAtFirst).await;
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

#[tokio::test]
async fn an_api_in_trouble_is_asked_again_and_all_comes_to_the_same() {
    let name = "tr4.serial";
    let expected = on_all_hosts(name, Rollback::Continue).await;
    let running = trace_of(name).replace("\"FAILED\"", "\"RUNNING\"");
    let late = Answers { delay: Duration::from_millis(300), ..Answers::before(name, []) };
    for (what, answers) in [
        ("late", late),
        ("the fallback key", Answers::before(name, [(401, "{}")])),
        ("busy", Answers::before(name, [(500, "busy"), (429, "")])),
        ("not over", Answers::before(name, [(200, &running)])),
        ("at the other place", Answers::before(name, [(404, "404 page not found")])),
        // What no call gets in time is asked for in the next attempt.
        ("down", Answers::before(name, [(503, ""), (503, ""), (503, ""), (503, "")])),
        ("garbage", Answers::before(name, [(200, "<html>")])),
    ] {
        let came = on_all_hosts_with(name, Rollback::Continue, &answers).await;
        assert_eq!(came.in_process, expected.in_process, "{what}");
        assert_eq!(came.endpoint, expected.endpoint, "{what}");
        assert_eq!(came.sdk, expected.sdk, "{what}");
    }
}

#[tokio::test]
async fn an_api_that_has_no_traces_fails_the_rollback_everywhere_with_the_reason() {
    let unknown = r#"{"errors":[{"code":"not_found"}]}"#;
    let page = "404 page not found";
    for (answers, reason, times) in [
        (Answers::only([(404, unknown); 8]), "Inngest does not know the run", 8),
        (Answers::only([(404, page); 2]), "has no traces, neither at `/v2` nor at `/api/v2`", 2),
    ] {
        let Hosts { in_process, endpoint, sdk, asked } =
            on_all_hosts_with("tr4.serial", Rollback::Continue, &answers).await;
        assert_eq!(asked.len(), 3 * times);
        for (_, result, attempts) in &in_process.0 {
            assert!(result.as_ref().unwrap_err().contains(reason), "{result:?}");
            assert_eq!(*attempts, 0);
        }
        assert_eq!(in_process.0.len(), 4);
        for (result, did) in [endpoint, sdk] {
            assert!(result.as_ref().unwrap_err().contains(reason), "{result:?}");
            assert!(did.is_empty());
        }
        assert!(in_process.1.is_empty());
    }
}

/// Fails outside of its step, for good at once.
#[on_failure(function = "parallel", app = "tr4", step = "then", retries = 0)]
async fn look_first(_then: StepOutput<()>, State(seen): State<Seen>, step: Step) -> Outcome {
    seen.note("look");
    if seen.len() == 1 {
        return Err("nothing to be seen".into());
    }
    step.run("undo", async || {
        seen.note("too late");
        Ok::<_, HandlerError>(())
    })
    .await?;
    Ok(())
}

/// Its step takes too long, which it recovers from.
#[on_failure(function = "parallel", app = "tr4", step = "b", retries = 0, timeout = "40ms")]
async fn takes_long(
    _b: StepOutput<Value>,
    State(seen): State<Seen>,
    step: Step,
) -> Outcome<String> {
    let slow = step.run("slow", async || {
        seen.note("slow");
        std::future::pending::<Outcome>().await
    });
    let error = slow.await.unwrap_err();
    step.run("ask", async || {
        seen.note("ask");
        Ok::<_, HandlerError>(())
    })
    .await?;
    Ok(error.name)
}

/// Fails twice, which is no matter of the others.
#[on_failure(function = "parallel", app = "tr4", step = "c", retries = 2)]
async fn twice(
    c: StepOutput<Vec<u8>>,
    run: RunContext,
    State(seen): State<Seen>,
) -> Outcome<usize> {
    seen.note(format!("c {}", run.attempt));
    match run.attempt {
        2 => Ok(c.len()),
        _ => Err("not yet".into()),
    }
}

#[on_failure(function = "parallel", app = "tr4", step = "a", retries = 1)]
async fn last(
    a: StepOutput<String>,
    run: RunContext,
    State(seen): State<Seen>,
    step: Step,
) -> Outcome {
    let note = format!("a {} {}", run.attempt, run.max_attempts);
    step.run("a", async || {
        seen.note(format!("{note} {}", *a));
        Ok::<_, HandlerError>(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn an_undo_that_is_over_is_over_on_every_host() {
    let name = "tr4.parallel";
    let Hosts { in_process, endpoint, sdk, .. } = on_all_hosts(name, Rollback::Continue).await;
    let did = texts(["look", "slow", "ask", "c 0", "c 1", "c 2", "a 0 2 A"]);
    let message = format!(
        "1 of 4 undos of run `{}` failed for good: `then`: nothing to be seen | undone: `b`, `c`, `a`",
        event(name).run_id()
    );
    assert_eq!(endpoint, (Err(message), did.clone()));
    assert_eq!(sdk, endpoint);
    let undo = |step: &str| format!("tr4-parallel-rollback/{step}");
    let runs = [
        (undo("a"), Ok(json!(null)), 2),
        // Called once more to see that its step's time was over.
        (undo("b"), Ok(json!("TimedOut")), 2),
        (undo("c"), Ok(json!(3)), 3),
        (undo("then"), Err("nothing to be seen".to_owned()), 1),
    ];
    assert_eq!(in_process.1, did);
    assert_eq!(in_process.0[1..], runs[1..]);
}
