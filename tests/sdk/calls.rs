//! Calls of handlers without steps: answers, retries, errors of each kind.

use std::{cell::Cell, rc::Rc, time::Duration};

use inngest::{
    client::Inngest,
    event::Event,
    function::{FunctionOpts, Input, ServableFn, Trigger},
    handler::Handler,
    result::{DevError, Error, NonRetryableError},
};
use inngest_failure::{
    Failure, FailureEvent, HandlerError, ResultExt, RunContext, handlers, on_failure, sdk,
    testing::failure,
};
use serde_json::{Value, json};
use tests::{fixture, recordings};

use crate::{
    Outcome, builder, client, event, handler, open, serve,
    server::{Call, Server, request},
};

#[on_failure(function = "*", id = "all")]
async fn all(failure: Failure, event: FailureEvent, run: RunContext) -> Outcome<Value> {
    let event: Value = serde_json::to_value(event)?;
    Ok(json!([failure.function_id, failure.run_id, run.attempt, run.max_attempts, event["data"]]))
}

#[tokio::test]
async fn each_recorded_call_of_a_failure_handler_runs_ours_with_its_event() {
    let server = serve(builder().register(handlers![all])).await;
    let mut ran = 0;
    for file in recordings(&["calls"]) {
        let recorded: Value = serde_json::from_slice(&fixture(&file)).unwrap();
        let body = match &recorded["request"]["body"] {
            Value::String(body) => body.clone(),
            body => body["raw"].as_str().map_or_else(|| body.to_string(), str::to_owned),
        };
        let sent: Value = serde_json::from_str(&body).unwrap();
        let response = server.send(request("shop-all", body)).await;
        let answer = tests::http::json(&response);
        if sent["event"]["name"] != "inngest/function.failed" {
            assert_eq!(response.status(), 400, "{file}: {answer}");
            let message = answer["message"].as_str().unwrap();
            assert!(message.contains("not a failure event: `name` is"), "{message}");
            continue;
        }
        ran += 1;
        let data = &sent["event"]["data"];
        assert_eq!(response.status(), 200, "{file}: {answer}");
        // The SDK does not pass `max_attempts` on: it is what the handler was synced with.
        let expected =
            json!([data["function_id"], data["run_id"], sent["ctx"]["attempt"], 4, data]);
        assert_eq!(answer, expected, "{file}");
    }
    assert_eq!(ran, 5);
}

#[on_failure(function = "checkout", id = "fails", retries = 2)]
async fn fails(failure: Failure, run: RunContext) -> Outcome<u32> {
    let inner = std::io::Error::other("hung up");
    match failure.event.data["how"].as_str() {
        Some("plain") => Err(inner)?,
        Some("later") => Err(HandlerError::retry_after(inner, Duration::from_millis(61_500))),
        Some("final") => Ok(Err(inner).non_retriable()?),
        Some("panic") => panic!("no such shelf"),
        _ => Ok(run.attempt),
    }
}

/// Where it panics.
fn place() -> String {
    let source = include_str!("calls.rs");
    let line = source.lines().position(|line| line.contains("=> panic!(")).unwrap() + 1;
    let column = source.lines().nth(line - 1).unwrap().find("panic!").unwrap() + 1;
    format!("panicked at {}:{line}:{column}", file!())
}

#[on_failure(function = "checkout", id = "slow", timeout = "10ms")]
async fn slow() {
    std::future::pending::<()>().await;
}

#[on_failure(function = "checkout", id = "typed")]
async fn typed(failure: Failure<u32>) {
    drop(failure);
}

fn how(how: &str) -> FailureEvent {
    failure("shop-checkout").data(json!({ "how": how })).build()
}

#[tokio::test]
async fn a_call_and_a_retry_run_with_their_attempt() {
    let server = serve(builder().register(handlers![fails])).await;
    for attempt in [0, 1, 2] {
        let call = Call { attempt, ..Call::default() };
        let answer = server.call("shop-fails", &how("not"), &call).await;
        assert_eq!((answer.status, answer.body), (200, json!(attempt)));
    }
}

/// Status, `x-inngest-no-retry`, `retry-after`, body.
type Expected = (u16, &'static str, &'static str, Value);

async fn check(layer: Option<sdk::Layer>, expected: [(&str, FailureEvent, Expected); 6]) {
    let dispatcher = builder().register(handlers![fails, slow, typed]).build().unwrap();
    let server = Server::start(handler(&dispatcher), layer).await;
    for (function, event, (status, no_retry, retry_after, body)) in expected {
        let answer = server.call(function, &event, &Call::default()).await;
        let shown = format!("{function}: {answer:?}");
        assert_eq!(answer.status, status, "{shown}");
        assert_eq!(answer.no_retry, no_retry, "{shown}");
        assert_eq!(answer.retry_after, retry_after, "{shown}");
        match body.as_object() {
            Some(fields) => {
                for (key, value) in fields {
                    assert_eq!(&answer.body[key], value, "{shown}");
                }
            }
            None => assert_eq!(answer.body, body, "{shown}"),
        }
    }
}

const MISFIT: &str = "the original event's data does not fit `u32`: at `data.event.data`: invalid type: map, expected \
                      u32; let the type take what the event holds";

#[tokio::test]
async fn an_error_of_each_kind_reaches_inngest_whole_through_the_layer() {
    let io = json!({ "name": "Error", "message": "hung up" });
    let panic = json!({ "name": "Panic", "message": "no such shelf", "stack": place() });
    check(
        Some(open()),
        [
            ("shop-fails", how("plain"), (500, "false", "", io.clone())),
            ("shop-fails", how("later"), (500, "false", "62", io.clone())),
            ("shop-fails", how("final"), (400, "true", "", io)),
            ("shop-fails", how("panic"), (500, "false", "", panic)),
            ("shop-slow", event(), (500, "false", "", json!({ "name": "TimedOut" }))),
            ("shop-typed", event(), (400, "true", "", json!({ "message": MISFIT }))),
        ],
    )
    .await;
}

#[tokio::test]
async fn without_the_layer_the_sdk_says_what_it_can() {
    let panic = json!(format!("{}: no such shelf", place()));
    let later = json!({ "name": "RetryAfterError", "message": "hung up", "stack": null });
    let run_error = json!("timed out");
    check(
        None,
        [
            ("shop-fails", how("plain"), (500, "", "", json!("hung up"))),
            ("shop-fails", how("later"), (500, "", "62", later)),
            ("shop-fails", how("final"), (500, "", "", json!("no retry error"))),
            ("shop-fails", how("panic"), (500, "", "", panic)),
            ("shop-slow", event(), (500, "", "", run_error)),
            ("shop-typed", event(), (500, "", "", json!("no retry error"))),
        ],
    )
    .await;
}

#[on_failure(function = "checkout")]
async fn not_sync() -> Outcome<u32> {
    let count = Cell::new(1);
    tokio::task::yield_now().await;
    count.set(count.get() + 1);
    Ok(count.into_inner())
}

#[on_failure(function = "checkout", id = "plain")]
fn plain() -> Outcome<u32> {
    Ok(*Rc::new(7))
}

#[tokio::test]
async fn futures_that_are_not_sync_and_plain_functions_run() {
    let server = serve(builder().register(handlers![not_sync, plain])).await;
    let answer = server.call("shop-checkout-failure", &event(), &Call::default()).await;
    assert_eq!((answer.status, answer.body), (200, json!(2)));
    let answer = server.call("shop-plain", &event(), &Call::default()).await;
    assert_eq!((answer.status, answer.body), (200, json!(7)));
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Order {
    order_id: String,
}

/// A function of the SDK's own.
fn checkout(client: &Inngest) -> ServableFn<Order, Error> {
    client.create_function(
        FunctionOpts::new("checkout"),
        Trigger::event("shop/order.placed"),
        |input: Input<Order>, step| async move {
            let order = input.event.data;
            let id: String =
                step.run("note", || async { Ok::<_, Never>(order.order_id.clone()) }).await?;
            let no_retry = NonRetryableError { message: format!("{id} declined"), cause: None };
            Err(DevError::NoRetry(no_retry).into())
        },
    )
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Never {}

impl std::fmt::Display for Never {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}

impl From<Never> for Error {
    fn from(never: Never) -> Self {
        match never {}
    }
}

fn order_placed(data: Value, steps: Value) -> String {
    let event = json!({ "id": "e1", "name": "shop/order.placed", "data": data, "ts": 1 });
    json!({
        "ctx": { "attempt": 0, "env": "", "run_id": "r1", "fn_id": "", "step_id": "step", "use_api": false,
                 "disable_immediate_execution": false, "stack": { "current": 0, "stack": [] } },
        "event": event, "events": [event], "steps": steps, "use_api": false,
    })
    .to_string()
}

#[tokio::test]
async fn a_server_whose_functions_take_one_struct_takes_failures_beside_them() {
    let dispatcher = builder().register(handlers![all]).build().unwrap();
    let client = client();
    let mut handler: Handler<sdk::EventData<Order>, Error> = Handler::new(&client);
    handler.register_fn(sdk::adapt(&client, checkout(&client)));
    handler.register_fns(sdk::servable_fns(&dispatcher, &client));
    let server = Server::start(handler, Some(open())).await;

    let answer = server.call("shop-all", &event(), &Call::default()).await;
    let sent: Value = serde_json::from_str(event().raw().get()).unwrap();
    assert_eq!((answer.status, &answer.body[4]), (200, &sent["data"]));

    let body = order_placed(json!({ "order_id": "o1" }), json!({}));
    let response = server.send(request("shop-checkout", body)).await;
    assert_eq!(response.status(), 206);
    assert_eq!(tests::http::json(&response)[0]["data"], "o1");

    // The SDK's own error that is not to be retried is not.
    let steps = json!({ crate::server::hash("note", 1): { "data": "o1" } });
    let body = order_placed(json!({ "order_id": "o1" }), steps);
    let response = server.send(request("shop-checkout", body)).await;
    assert_eq!(tests::http::header(&response, "x-inngest-no-retry"), "true");
    assert_eq!(tests::http::json(&response), "no retry error");

    let response = server.send(request("shop-checkout", order_placed(json!({}), json!({})))).await;
    assert_eq!(response.status(), 400);
    let expected = format!(
        "the event's data does not fit `{}`: at `data`: missing field `order_id`; let the type take what the event \
         holds",
        std::any::type_name::<Order>()
    );
    assert_eq!(tests::http::json(&response)["message"], expected);
}

/// The data type of an app as its author may have it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Data {
    Order(Order),
    Other(Value),
}

#[tokio::test]
async fn an_untagged_enum_may_be_the_data_type() {
    let dispatcher = builder().register(handlers![all]).build().unwrap();
    let client = client();
    let mut handler: Handler<Data, Error> = Handler::new(&client);
    handler.register_fns(sdk::servable_fns(&dispatcher, &client));
    let server = Server::start(handler, Some(open())).await;
    let answer = server.call("shop-all", &event(), &Call::default()).await;
    let sent: Value = serde_json::from_str(event().raw().get()).unwrap();
    assert_eq!((answer.status, &answer.body[4]), (200, &sent["data"]));
}

/// Takes what a server sends, but not what some server may send.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Narrow {
    function_id: String,
    run_id: String,
    error: Value,
    event: Value,
    events: Vec<Value>,
    result: Value,
    _inngest: Value,
    #[serde(default, skip_serializing)]
    _correlation_id: Option<String>,
}

#[tokio::test]
async fn data_that_the_type_does_not_take_after_all_is_an_error() {
    let dispatcher = builder().register(handlers![all]).build().unwrap();
    let client = client();
    let mut handler: Handler<Narrow, Error> = Handler::new(&client);
    handler.register_fns(sdk::servable_fns(&dispatcher, &client));
    let server = Server::start(handler, Some(open())).await;
    let mut sent: Value = serde_json::from_str(event().raw().get()).unwrap();
    let parse = |event: &Value| FailureEvent::try_from(event.clone()).unwrap();
    sent["data"]["events"] = json!([]);
    sent["data"]["result"] = json!(null);
    let answer = server.call("shop-all", &parse(&sent), &Call::default()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // The SDK's own answer: it does not get as far as the handler.
    sent["data"].as_object_mut().unwrap().remove("error");
    let answer = server.call("shop-all", &parse(&sent), &Call::default()).await;
    assert_eq!((answer.status, answer.no_retry.as_str()), (500, ""));
    assert_eq!(answer.body, "error parsing run request: missing field `error`");
}

#[tokio::test]
async fn errors_of_the_sdk_keep_their_meaning_as_handler_errors() {
    let message = "declined".to_owned();
    let error = sdk::handler_error(DevError::Basic(message.clone()));
    assert!(error.is_retriable() && error.retry_delay().is_none());
    let error = sdk::handler_error(DevError::NoRetry(NonRetryableError {
        message: message.clone(),
        cause: Some("no money".to_owned()),
    }));
    assert!(!error.is_retriable());
    assert_eq!(error.to_string(), "declined: no money");
    let after = Duration::from_secs(5);
    let error = sdk::handler_error(DevError::RetryAt(inngest::result::RetryAfterError {
        message,
        after,
        cause: None,
    }));
    assert_eq!(error.retry_delay(), Some(after));
    let event: Event<u8> = Event::new("x", 1);
    drop(event);
}
