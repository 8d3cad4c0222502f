//! Letters as events, sent to a server that plays Inngest's.

use std::time::Duration;

use inngest_failure::{
    Api, DeadLetter, Dispatcher, FailureEvent, NonRetriable, SendEvent, handlers, on_failure,
    testing::failure,
};
use serde_json::{Value, json};
use tests::{Log, http};

use crate::{builder, logged};

#[on_failure(function = "*", id = "fails")]
async fn fails() -> Result<(), NonRetriable> {
    Err(NonRetriable::new("no such card"))
}

const KEY: &str = "event-key-that-nobody-is-to-see";

fn dispatcher(origin: String) -> Dispatcher {
    let api = Api::builder().dev(false).event_key(KEY).event_api_origin(origin).build().unwrap();
    builder().register(handlers![fails]).dead_letters(SendEvent::new(api)).build().unwrap()
}

fn event(trigger: &str) -> FailureEvent {
    failure("shop-checkout").run_id("r1").event_name(trigger).data(json!({ "id": "o1" })).build()
}

#[tokio::test]
async fn a_letter_is_sent_as_inngest_takes_events() {
    assert_eq!(SendEvent::EVENT, "inngest-failure/handler.failed");
    let api = http::Api::start(&[(200, r#"{"ids":["01"],"status":200}"#)]).await;
    let (log, _guard) = Log::start(tracing::Level::TRACE);
    let event = event("shop/order.placed");
    dispatcher(api.origin()).dispatch(event.clone()).await;
    let received = api.received();
    assert_eq!(received.len(), 1);
    assert_eq!(
        (received[0].method().as_str(), received[0].uri().path()),
        ("POST", format!("/e/{KEY}").as_str())
    );
    assert_eq!(received[0].headers()["content-type"], "application/json");
    let mut events: Vec<Value> = serde_json::from_slice(received[0].body()).unwrap();
    assert_eq!(events.len(), 1);
    let sent = events[0].as_object_mut().unwrap();
    assert_eq!(sent.remove("name").unwrap(), SendEvent::EVENT);
    assert_eq!(sent.remove("id").unwrap(), format!("fails/{}", event.id()));
    let data = sent.remove("data").unwrap();
    assert!(sent.is_empty(), "{sent:?}");
    assert_eq!(data["handler_id"], "fails");
    assert_eq!(data["event"], serde_json::from_str::<Value>(event.raw().get()).unwrap());
    assert_eq!(data["error"], json!({ "name": "Error", "message": "no such card" }));
    // It is a letter: another function may try again from it.
    let letter: DeadLetter = serde_json::from_value(data).unwrap();
    assert_eq!(letter.key(), ("fails", event.id()));
    let log = log.text();
    assert!(log.contains("dead letter kept") && !log.contains(KEY), "{log}");
    assert!(logged(&log).is_empty(), "{log}");
}

#[tokio::test]
async fn a_second_letter_of_one_key_has_the_same_id() {
    let answer = (200, r#"{"ids":["01"]}"#);
    let api = http::Api::start(&[answer, answer]).await;
    let dispatcher = dispatcher(api.origin());
    for _ in 0..2 {
        dispatcher.dispatch(event("shop/order.placed")).await;
    }
    let ids: Vec<Value> = api
        .received()
        .iter()
        .map(|request| serde_json::from_slice::<Value>(request.body()).unwrap()[0]["id"].clone())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_letter_that_is_not_taken_goes_to_the_log_without_the_key() {
    let servers = [
        (Some((500, "busy")), "500 Internal Server Error"),
        (Some((401, "no")), "401 Unauthorized; is `INNGEST_EVENT_KEY` right?"),
        (Some((413, "too large")), "413 Payload Too Large"),
        (Some((200, "<html>")), "has no ids"),
        (None, ""),
    ];
    for (answer, reason) in servers {
        let api = http::Api::start(answer.as_slice()).await;
        let origin = if answer.is_some() { api.origin() } else { http::nowhere() };
        let (log, _guard) = Log::start(tracing::Level::TRACE);
        let report = dispatcher(origin.clone()).dispatch(event("shop/order.placed")).await;
        let error = report.runs[0].result.as_ref().unwrap_err().to_string();
        assert_eq!(error, "no such card");
        let log = log.text();
        let letters = logged(&log);
        assert_eq!(letters.len(), 1, "{log}");
        assert!(
            letters[0].0.contains(reason) && letters[0].0.contains(&origin),
            "{}",
            letters[0].0
        );
        assert_eq!(letters[0].1.error.message, "no such card");
        assert!(!log.contains(KEY), "{log}");
        assert!(!log.contains("dead letter kept"), "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_not_waited_for_longer_than_30_seconds() {
    let answer = [(200, r#"{"ids":["01"]}"#)];
    let api = http::Api::start_late(&answer, Duration::from_secs(3600)).await;
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    let before = tokio::time::Instant::now();
    dispatcher(api.origin()).dispatch(event("shop/order.placed")).await;
    assert!(before.elapsed() <= Duration::from_secs(31), "{:?}", before.elapsed());
    assert_eq!(logged(&log.text()).len(), 1);
}

#[tokio::test]
async fn without_a_key_the_letter_goes_to_the_log() {
    let api = Api::builder().dev(false).event_api_origin(http::nowhere()).build().unwrap();
    let sink = SendEvent::new(api);
    let dispatcher = builder().register(handlers![fails]).dead_letters(sink).build().unwrap();
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    dispatcher.dispatch(event("shop/order.placed")).await;
    let letters = logged(&log.text());
    assert_eq!(letters.len(), 1);
    assert!(letters[0].0.contains("no event key"), "{}", letters[0].0);
}

#[tokio::test]
async fn a_failure_that_such_an_event_had_started_is_logged_and_not_sent() {
    let api = http::Api::start(&[(200, r#"{"ids":["01"]}"#)]).await;
    let dispatcher = dispatcher(api.origin());
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    dispatcher.dispatch(event(SendEvent::EVENT)).await;
    let letters = logged(&log.text());
    assert_eq!(letters.len(), 1);
    assert!(letters[0].0.contains("was itself started by an event"), "{}", letters[0].0);
    assert!(api.received().is_empty());
    // One with a similar name is another.
    dispatcher.dispatch(event("inngest-failure/handler.failed.again")).await;
    assert_eq!(api.received().len(), 1);
}
