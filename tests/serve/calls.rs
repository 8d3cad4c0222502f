//! Calls: each row of the table of answers, what a handler sees, and what the log says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use inngest_failure::{
    Dispatcher, Failure, FailureEvent, HandlerError, ResultExt, RunContext, State, handlers,
    on_failure,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::{
    Log,
    http::{Server, call, header, json, until},
};
use tokio::sync::Notify;

use crate::{APP, body, body_with, builder, dev, event};

fn closed(because: &'static str) -> anyhow::Error {
    anyhow::Error::msg(because).context("the bank is closed")
}

#[derive(Deserialize)]
struct Order {
    order_id: String,
}

#[on_failure(function = "returns")]
async fn returns(failure: Failure<Order>) -> Result<Value, HandlerError> {
    Ok(json!({ "undone": failure.event.data.order_id, "because": failure.error.message }))
}

#[on_failure(function = "returns-nothing")]
async fn returns_nothing() {}

#[on_failure(function = "plain")]
fn plain(failure: Failure<Order>) -> Result<String, HandlerError> {
    Ok(failure.event.data.order_id)
}

#[on_failure(function = "fails", retries = 7)]
async fn fails() -> Result<(), HandlerError> {
    Err(closed("it is Sunday"))?
}

#[on_failure(function = "fails-for-now")]
async fn fails_for_now() -> Result<(), HandlerError> {
    Err(HandlerError::retry_after("too many requests", Duration::from_millis(1_001)))
}

#[on_failure(function = "fails-for-good")]
async fn fails_for_good() -> Result<(), HandlerError> {
    Ok(Err(closed("the branch was sold")).non_retriable()?)
}

#[on_failure(function = "panics")]
async fn panics() {
    panic!("no such card");
}

#[on_failure(function = "hangs", timeout = "10ms")]
async fn hangs() {
    std::future::pending::<()>().await;
}

#[on_failure(function = "attempt", retries = 2)]
async fn attempt(run: RunContext) -> Result<Value, HandlerError> {
    Ok(json!([run.attempt, run.max_attempts, run.is_last_attempt(), run.handler_id]))
}

#[on_failure(function = "whole", id = "whole")]
async fn whole(event: FailureEvent) -> Result<Value, HandlerError> {
    Ok(serde_json::to_value(&event)?)
}

fn dispatcher() -> Dispatcher {
    builder()
        .register(handlers![
            returns,
            returns_nothing,
            plain,
            fails,
            fails_for_now,
            fails_for_good,
            panics,
            hangs,
            attempt,
            whole
        ])
        .build()
        .unwrap()
}

async fn server() -> Server {
    Server::start(dev(dispatcher()).build().unwrap()).await
}

/// What an answer says, beside the headers that every one has.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    no_retry: String,
    retry_after: String,
    body: Value,
}

async fn post(server: &Server, handler: &str, body: impl Into<bytes::Bytes>) -> Answer {
    let response = server.send(call(&format!("{APP}-{handler}"), body)).await;
    assert!(header(&response, "x-inngest-sdk").starts_with("inngest-failure:v"), "{response:?}");
    assert_eq!(header(&response, "x-inngest-req-version"), "2");
    assert_eq!(header(&response, "content-type"), "application/json");
    Answer {
        status: response.status().as_u16(),
        no_retry: header(&response, "x-inngest-no-retry").to_owned(),
        retry_after: header(&response, "retry-after").to_owned(),
        body: json(&response),
    }
}

fn order() -> Value {
    json!({ "order_id": "o1" })
}

async fn post_to(function: &str) -> Answer {
    let body = body(&format!("shop-{function}"), order());
    post(&server().await, &format!("shop-{function}-failure"), body).await
}

fn answer(status: u16, no_retry: &str, body: Value) -> Answer {
    Answer { status, no_retry: no_retry.to_owned(), retry_after: String::new(), body }
}

#[tokio::test]
async fn what_a_handler_returns_is_the_answer() {
    let undone = json!({ "undone": "o1", "because": "card declined" });
    assert_eq!(post_to("returns").await, answer(200, "", undone));
    assert_eq!(post_to("returns-nothing").await, answer(200, "", Value::Null));
    assert_eq!(post_to("plain").await, answer(200, "", json!("o1")));
}

#[tokio::test]
async fn an_error_is_tried_again_and_has_its_causes() {
    let error = json!({
        "name": "Error",
        "message": "the bank is closed",
        "cause": { "name": "Error", "message": "it is Sunday" },
    });
    assert_eq!(post_to("fails").await, answer(500, "false", error));
}

#[tokio::test]
async fn the_last_attempt_fails_like_any_other_and_inngest_counts() {
    let event = event("shop-fails", order());
    let body = body_with(&event, json!({ "attempt": 7, "max_attempts": 8 })).to_string();
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let answer = post(&server().await, "shop-fails-failure", body).await;
    assert_eq!((answer.status, answer.no_retry.as_str()), (500, "false"));
    let log = log.text();
    assert!(log.contains("ERROR") && log.contains("handler failed for good"), "{log}");
}

#[tokio::test]
async fn a_wait_is_told_in_whole_seconds_none_of_them_too_early() {
    let answer = post_to("fails-for-now").await;
    assert_eq!((answer.status, answer.no_retry.as_str()), (500, "false"));
    assert_eq!(answer.retry_after, "2");
    assert_eq!(answer.body, json!({ "name": "Error", "message": "too many requests" }));
}

#[on_failure(function = "fails-for-ages")]
async fn fails_for_ages() -> Result<(), HandlerError> {
    Err(HandlerError::retry_after("the bank has moved", Duration::MAX))
}

#[tokio::test]
async fn a_wait_is_no_longer_than_inngest_can_read() {
    let dispatcher = builder().register(handlers![fails_for_ages]).build().unwrap();
    let server = Server::start(dev(dispatcher).build().unwrap()).await;
    let body = body("shop-fails-for-ages", order());
    let answer = post(&server, "shop-fails-for-ages-failure", body).await;
    assert_eq!(answer.retry_after, "9999999");
}

/// An error that panics when it is dropped.
#[derive(Debug)]
struct Explosive;

impl std::fmt::Display for Explosive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("do not drop")
    }
}

impl std::error::Error for Explosive {}

impl Drop for Explosive {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[on_failure(function = "explodes")]
async fn explodes() -> Result<(), Explosive> {
    Err(Explosive)
}

#[on_failure(function = "explodes-late", timeout = "5ms")]
fn explodes_late() -> Result<(), Explosive> {
    std::thread::sleep(Duration::from_millis(20));
    Err(Explosive)
}

#[tokio::test]
async fn an_error_that_panics_when_it_is_dropped_takes_no_answer_with_it() {
    let dispatcher = builder().register(handlers![explodes, explodes_late]).build().unwrap();
    let server = Server::start(dev(dispatcher).build().unwrap()).await;
    let explosion = post(&server, "shop-explodes-failure", body("shop-explodes", order())).await;
    assert_eq!((explosion.status, &explosion.body["message"]), (500, &json!("do not drop")));
    let late =
        post(&server, "shop-explodes-late-failure", body("shop-explodes-late", order())).await;
    assert_eq!((late.status, &late.body["name"]), (500, &json!("TimedOut")));
}

#[tokio::test]
async fn an_error_that_no_retry_mends_is_final() {
    let error = json!({
        "name": "Error",
        "message": "the bank is closed",
        "cause": { "name": "Error", "message": "the branch was sold" },
    });
    assert_eq!(post_to("fails-for-good").await, answer(400, "true", error));
}

#[tokio::test]
async fn a_payload_that_does_not_fit_is_final_and_names_the_path() {
    let body = body("shop-returns", json!({ "order_id": 1 }));
    let answer = post(&server().await, "shop-returns-failure", body).await;
    assert_eq!((answer.status, answer.no_retry.as_str()), (400, "true"));
    assert_eq!(answer.body["name"], "ParseError");
    let message = answer.body["message"].as_str().unwrap();
    assert!(message.contains("at `data.event.data.order_id`"), "{message}");
    assert!(message.contains("expected a string"), "{message}");
}

#[tokio::test]
async fn a_panic_is_tried_again_and_says_where_it_was() {
    let answer = post_to("panics").await;
    assert_eq!((answer.status, answer.no_retry.as_str()), (500, "false"));
    assert_eq!(answer.body["name"], "Panic");
    assert_eq!(answer.body["message"], "no such card");
    let stack = answer.body["stack"].as_str().unwrap();
    assert!(stack.starts_with("panicked at ") && stack.contains("calls.rs:"), "{stack}");
}

#[tokio::test]
async fn a_time_out_is_tried_again() {
    let answer = post_to("hangs").await;
    assert_eq!((answer.status, answer.no_retry.as_str()), (500, "false"));
    assert_eq!(answer.body["name"], "TimedOut");
}

#[tokio::test]
async fn an_unknown_function_is_tried_again_and_only_the_log_lists_the_known() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let answer = post(&server().await, "shop-retruns-failure", body("shop-returns", order())).await;
    assert_eq!((answer.status, answer.no_retry.as_str()), (500, "false"));
    assert_eq!(answer.body["name"], "UnknownFunction");
    let message = answer.body["message"].as_str().unwrap();
    assert_eq!(
        message,
        "this app has no function `shop-failures-shop-retruns-failure`; sync the app"
    );
    let log = log.text();
    assert!(
        log.contains("\"shop-failures-shop-returns-nothing-failure\", \"shop-failures-whole\"]"),
        "{log}"
    );
}

#[tokio::test]
async fn a_handler_sees_the_attempt_that_inngest_counts() {
    let server = server().await;
    let attempt = async |ctx| {
        let body = body_with(&event("shop-attempt", order()), ctx).to_string();
        post(&server, "shop-attempt-failure", body).await.body
    };
    let id = "shop-attempt-failure";
    assert_eq!(attempt(json!({ "attempt": 0 })).await, json!([0, 4, false, id]));
    assert_eq!(attempt(json!({ "attempt": 3 })).await, json!([3, 4, true, id]));
    // Old servers don't say how many there are.
    assert_eq!(
        attempt(json!({ "attempt": 1, "max_attempts": null })).await,
        json!([1, 3, false, id])
    );
    let huge = json!({ "attempt": u32::MAX, "max_attempts": u32::MAX });
    assert_eq!(attempt(huge).await, json!([u32::MAX, u32::MAX, true, id]));
}

#[tokio::test]
async fn an_event_that_the_selector_does_not_take_runs_all_the_same_and_is_logged() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let server = server().await;
    let answer = post(&server, "shop-returns-nothing-failure", body("depot-pick", order())).await;
    assert_eq!(answer.status, 200);
    let log = log.text();
    assert!(log.contains("the handler's selector does not take this failure"), "{log}");
    assert!(log.contains("selector=\"shop-returns-nothing\" function_id=\"depot-pick\""), "{log}");
}

#[tokio::test]
async fn the_event_arrives_whole_also_where_what_follows_it_is_broken() {
    let server = server().await;
    let event = event("shop-whole", json!({ "deep": [1, { "ü": "\u{1f680}" }] }));
    let whole = body_with(&event, json!({})).to_string();
    assert_eq!(post(&server, "whole", whole.clone()).await, answer(200, "", event.clone()));
    let broken = &whole[..whole.find("\"events\"").unwrap()];
    assert_eq!(post(&server, "whole", broken.to_owned()).await.body, event);
}

#[tokio::test]
async fn the_keys_of_a_call_may_stand_in_any_order() {
    let server = server().await;
    let event = event("shop-attempt", order());
    let body = format!(
        r#" {{"version":1, "use_api": false, "steps":{{}}, "event":{event}, "ctx": {{"attempt":2}} }} "#
    );
    let answer = post(&server, "shop-attempt-failure", body).await;
    assert_eq!(answer.body, json!([2, 3, true, "shop-attempt-failure"]));
}

#[tokio::test]
async fn what_is_no_call_of_a_failure_is_final_and_says_why() {
    let server = server().await;
    let other = json!({ "name": "shop/order.placed", "data": {} });
    for (body, expected) in [
        ("{".to_owned(), "not JSON: EOF"),
        ("null".to_owned(), "not a call of Inngest: invalid type: null"),
        ("[]".to_owned(), "not a call of Inngest"),
        ("{}".to_owned(), "not a call of Inngest: missing field `ctx`"),
        (
            r#"{"ctx":{"attempt":"x"}}"#.to_owned(),
            "at `ctx.attempt`: invalid type: string, expected u32",
        ),
        (r#"{"ctx":{}}"#.to_owned(), "not a failure event"),
        (body_with(&other, json!({})).to_string(), "`name` is \"shop/order.placed\""),
        (body_with(&json!({}), json!({})).to_string(), "not a failure event"),
    ] {
        let answer = post(&server, "shop-returns-failure", body.clone()).await;
        assert_eq!((answer.status, answer.no_retry.as_str()), (400, "true"), "{body}");
        assert_eq!(answer.body["name"], "ParseError");
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(expected), "{body}: {message}");
    }
    let answer = post(&server, "shop-returns-failure", &b"{\"ctx\":\"\xff\"}"[..]).await;
    assert!(answer.body["message"].as_str().unwrap().contains("invalid utf-8"), "{answer:?}");
}

#[tokio::test]
async fn a_call_leaves_one_line_at_info_in_the_trace_that_inngest_has_begun() {
    let (log, _guard) = Log::start(tracing::Level::INFO);
    let server = server().await;
    let mut request = call("shop-failures-shop-returns-failure", body("shop-returns", order()));
    let traceparent = "00-684513db87f533855d47dca50191a18e-43bd3ee5bff04e44-01";
    request.headers_mut().insert("traceparent", traceparent.parse().unwrap());
    server.send(request).await;
    let log = log.text();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("INFO")).collect();
    let [line] = lines.as_slice() else { panic!("one line: {log}") };
    for part in [
        "call{handler_id=\"shop-returns-failure\"",
        "trace_id=\"684513db87f533855d47dca50191a18e\" parent_span_id=\"43bd3ee5bff04e44\"",
        "failed_run_id=\"01M82E82J0N0GBAMR1N91EZJJ6\"",
        "call answered handler_id=\"shop-returns-failure\" run_id=\"01M82EYT4HM8CFGAGFFEN707R8\" attempt=0 \
         outcome=\"succeeded\" status=200 duration=",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

/// What tells a test how far a handler has come.
#[derive(Clone, Default)]
struct Progress {
    running: Arc<AtomicU32>,
    dropped: Arc<AtomicU32>,
    go_on: Arc<Notify>,
}

struct OnDrop(Progress);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

#[on_failure(function = "waits", concurrency = 1, throttle = "1/1d", rate_limit = "1/1d")]
async fn waits(State(progress): State<Progress>) {
    let _dropped = OnDrop(progress.clone());
    progress.running.fetch_add(1, Ordering::SeqCst);
    progress.go_on.notified().await;
}

#[tokio::test]
async fn limits_are_the_servers_and_not_kept_twice() {
    let progress = Progress::default();
    let dispatcher = builder().register(handlers![waits]).state(progress.clone()).build().unwrap();
    let server = Arc::new(Server::start(dev(dispatcher).build().unwrap()).await);
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                post(&server, "shop-waits-failure", body("shop-waits", order())).await.status
            })
        })
        .collect();
    until("three at once", || progress.running.load(Ordering::SeqCst) == 3).await;
    progress.go_on.notify_waiters();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_handler_whose_connection_goes_away_is_dropped_and_the_log_says_so() {
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let progress = Progress::default();
    let dispatcher = builder().register(handlers![waits]).state(progress.clone()).build().unwrap();
    let server = Server::start(dev(dispatcher).build().unwrap()).await;
    let address = server.address;
    let call = tokio::spawn(tests::http::send(
        address,
        call("shop-failures-shop-waits-failure", body("shop-waits", order())),
    ));
    until("running", || progress.running.load(Ordering::SeqCst) == 1).await;
    call.abort();
    until("dropped", || progress.dropped.load(Ordering::SeqCst) == 1).await;
    let log = log.text();
    assert!(log.contains("handler was dropped with its dispatch before it ended"), "{log}");
}
