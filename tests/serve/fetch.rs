//! Calls whose events are too large to be sent along: they are fetched.

use inngest_failure::{Failure, HandlerError, handlers, on_failure};
use serde_json::{Value, json};
use tests::http::{Api, KEY, OTHER_KEY, Server, call, header, json, nowhere, signed};

use crate::{body_with, builder, cloud, event};

#[on_failure(function = "checkout")]
async fn checkout(failure: Failure) -> Result<Value, HandlerError> {
    Ok(failure.event.data)
}

/// The body of a call that says that there is more to fetch.
fn body(ctx: Value) -> Value {
    let mut body = body_with(&Value::Null, ctx);
    body["events"] = json!([]);
    body["use_api"] = json!(true);
    body
}

async fn answer(origin: &str, body: &Value) -> (u16, String, Value) {
    let dispatcher = builder().register(handlers![checkout]).build().unwrap();
    let endpoint = cloud(dispatcher).signing_key_fallback(OTHER_KEY).api_origin(origin);
    let server = Server::start(endpoint.build().unwrap()).await;
    let request = signed(call("shop-failures-shop-checkout-failure", body.to_string()), KEY);
    let response = server.send(request).await;
    let no_retry = header(&response, "x-inngest-no-retry").to_owned();
    (response.status().as_u16(), no_retry, json(&response))
}

/// The events of the run, as the API gives them.
fn batch() -> String {
    json!([event("shop-checkout", json!({ "order_id": "o1" }))]).to_string()
}

#[tokio::test]
async fn the_event_is_fetched_where_any_of_the_two_places_says_so() {
    let mut without_event = body(json!({}));
    without_event.as_object_mut().unwrap().remove("event");
    let mut with_event =
        body_with(&event("shop-checkout", json!("stale")), json!({ "use_api": true }));
    with_event["use_api"] = json!(true);
    for body in [body(json!({})), body(json!({ "use_api": true })), without_event, with_event] {
        let api = Api::start(&[(200, &batch())]).await;
        let (status, _, answer) = answer(&api.origin(), &body).await;
        assert_eq!((status, answer), (200, json!({ "order_id": "o1" })));
        let received = api.received();
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].method(), "GET");
        assert_eq!(received[0].uri(), "/v0/runs/01M82EYT4HM8CFGAGFFEN707R8/batch");
        let authorization = received[0].headers()["authorization"].to_str().unwrap();
        assert!(authorization.starts_with("Bearer signkey-test-"), "{authorization}");
        assert!(!authorization.contains(&KEY["signkey-test-".len()..]));
    }
}

#[tokio::test]
async fn the_fallback_key_is_tried_next() {
    let api = Api::start(&[(401, "{}"), (200, &batch())]).await;
    let (status, _, answer) = answer(&api.origin(), &body(json!({}))).await;
    assert_eq!((status, answer), (200, json!({ "order_id": "o1" })));
    assert_eq!(api.received().len(), 2);
}

#[tokio::test]
async fn what_could_not_be_fetched_is_tried_again_and_says_why() {
    let run = "the events of run `01M82EYT4HM8CFGAGFFEN707R8`";
    for (answers, expected) in [
        (vec![(500, "oops")], format!("does not give {run}: 500 Internal Server Error")),
        (vec![(404, "{}")], format!("does not give {run}: 404 Not Found")),
        (vec![(403, ""), (401, "")], format!("does not give {run}: 401 Unauthorized")),
        (vec![(200, "<html>")], format!("gives for {run} is no list of events")),
        (vec![(200, "{}")], format!("gives for {run} is no list of events")),
        (vec![(200, "[]")], format!("says that {run} are none")),
        (
            vec![(200, "[null]")],
            "the event of the run is none of a failure: not a failure event".to_owned(),
        ),
    ] {
        let api = Api::start(&answers).await;
        let (status, no_retry, answer) = answer(&api.origin(), &body(json!({}))).await;
        assert_eq!((status, no_retry.as_str()), (500, "false"), "{answer}");
        assert_eq!(answer["name"], "ApiError");
        let message = answer["message"].as_str().unwrap();
        assert!(message.contains(&expected), "{message}");
    }
    let (status, no_retry, answer) = answer(&nowhere(), &body(json!({}))).await;
    assert_eq!((status, no_retry.as_str()), (500, "false"));
    assert!(answer["message"].as_str().unwrap().starts_with("can't reach Inngest at "), "{answer}");
}

#[tokio::test]
async fn what_the_api_answers_is_not_repeated() {
    let echo = format!("\"Bearer {KEY}{}\"", "x".repeat(100_000));
    let api = Api::start(&[(200, &echo)]).await;
    let (status, _, answer) = answer(&api.origin(), &body(json!({}))).await;
    assert_eq!(status, 500);
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("is no list of events: at line 1 column 100"), "{message}");
    assert!(!message.contains(KEY) && message.len() < 300, "{message}");
}

#[tokio::test]
async fn a_runs_id_that_is_none_does_not_become_a_part_of_the_path() {
    let api = Api::start(&[]).await;
    for id in ["", "../../fn/register", "a?b", "a b", "%2e"] {
        let (status, _, answer) = answer(&api.origin(), &body(json!({ "run_id": id }))).await;
        assert_eq!(status, 500);
        assert!(answer["message"].as_str().unwrap().contains("that is no run's id"), "{answer}");
    }
    assert!(api.received().is_empty());
}
