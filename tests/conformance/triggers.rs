//! The original event, in every shape, as a type of the handler's choice.

use std::time::{Duration, SystemTime};

use inngest_failure::{Failure, FailureEvent, FailureKind};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::{fixture, recorded_event};

fn failure<T: serde::de::DeserializeOwned>(file: &str) -> Failure<T> {
    FailureEvent::try_from(recorded_event(file)).unwrap().parse().unwrap()
}

fn with_trigger(event: Value) -> FailureEvent {
    let data = json!({ "function_id": "shop-checkout", "run_id": "r1", "event": event });
    json!({ "name": "inngest/function.failed", "data": data }).try_into().unwrap()
}

#[test]
fn every_field_of_a_rich_event_is_read() {
    let failure = failure::<Value>("function_failed/event-rich.js-v4.json");
    assert_eq!(failure.kind, FailureKind::Failed);
    assert_eq!(
        failure.failed_at,
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_378_385_454)
    );
    let event = &failure.event;
    assert_eq!(event.id, "my-idempotency-key-1");
    assert_eq!(event.name, "cap/event-rich");
    assert_eq!(event.ts, 1_700_000_000_123);
    assert_eq!(event.user, json!({ "email": "a@example.com", "id": "u_1" }));
    assert_eq!(event.v.as_deref(), Some("2026-01-01.1"));
    assert_eq!(event.data["deep"]["s"], "żółć 🚀");
}

#[test]
fn a_batch_has_all_its_events_and_the_first_is_the_event() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Data {
        n: u32,
    }
    let failure = failure::<Data>("function_failed/batch.js-v4.json");
    assert_eq!(failure.events.len(), 3);
    assert!(!failure.events.is_empty());
    let numbers: Vec<u32> = (0..3).map(|i| failure.events.parse(i).unwrap().data.n).collect();
    assert_eq!(numbers, [2, 1, 3]);
    let first = failure.events.parse(0).unwrap();
    assert_eq!((first.id, first.data), (failure.event.id, failure.event.data));
    assert!(failure.events.raw().get().starts_with("[{"));
    let error = failure.events.parse(3).unwrap_err();
    assert_eq!(error.to_string(), "there is no event 3: the run was started by 3");
}

#[test]
fn one_event_stands_for_the_list_where_there_is_none() {
    let event = FailureEvent::from_slice(&fixture("documentation-example.event.json")).unwrap();
    let failure = event.parse::<Value>().unwrap();
    assert_eq!(failure.events.len(), 1);
    assert_eq!(failure.events.parse(0).unwrap(), failure.event);
    assert_eq!(failure.event.data["billingPlan"], "pro");
}

#[test]
fn cron_and_invoked_runs_are_read() {
    let cron = failure::<Value>("function_failed/cron.js-v4.json");
    assert_eq!(cron.event.name, "inngest/scheduled.timer");
    assert_eq!(cron.event.id, "2026-11-22T20:13:00Z");
    assert_eq!(cron.event.data["cron"], "* * * * *");

    let invoked = failure::<Value>("function_failed/invoked-child.js-v4.json");
    assert_eq!(invoked.event.name, "inngest/function.invoked");
    assert_eq!(invoked.event.data["n"], 1);
    assert_eq!(
        invoked.correlation_id.as_deref(),
        Some("01M82E83JENEMV8FGB0G04D0W3.93f72581df96e9a8f01f1481b3570b4e9370a0a6")
    );
}

#[test]
fn numbers_are_those_of_the_wire() {
    #[derive(Deserialize)]
    struct Numbers {
        big: u64,
        huge: f64,
        one: f64,
        r#unsafe: u64,
    }
    let numbers = failure::<Numbers>("function_failed/event-numbers.js-v3.json").event.data;
    assert_eq!(numbers.big, 12_345_678_901_234_567_000);
    assert_eq!((numbers.huge, numbers.one), (1e300, 1.0));
    assert_eq!(numbers.r#unsafe, 9_007_199_254_740_992);
}

#[test]
fn a_trigger_without_data_fits_every_type_that_takes_none() {
    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Defaults {
        n: Option<u32>,
    }
    #[derive(Debug, Deserialize, PartialEq)]
    struct Order {
        order_id: String,
    }

    let recorded =
        FailureEvent::try_from(recorded_event("function_failed/event-no-data.js-v4.json"));
    let recorded = recorded.unwrap();
    assert_eq!(
        recorded.parse::<Defaults>().unwrap().events.parse(0).unwrap().data,
        Defaults { n: None }
    );
    for event in [
        recorded,
        with_trigger(json!({ "data": {} })),
        with_trigger(json!({ "data": null })),
        with_trigger(json!({})),
        with_trigger(Value::Null),
    ] {
        assert_eq!(event.parse::<()>().map(|failure| failure.event.data).unwrap(), ());
        assert_eq!(event.parse::<Defaults>().unwrap().event.data, Defaults { n: None });
        assert_eq!(event.parse::<Option<Order>>().unwrap().event.data, None);
        event.parse::<Value>().unwrap();
        let error = event.parse::<Order>().unwrap_err();
        assert_eq!(error.path(), "data.event.data");
    }
}

#[test]
fn of_two_fields_of_one_name_the_last_counts() {
    let twice = r#"{"name":"inngest/function.failed","data":{"function_id":"f-1","run_id":"r",
        "event":{"data":{"n":1},"ts":1,"ts":2,"data":{"n":2}},
        "error":{"name":"A","name":"B","message":"x"}}}"#;
    let failure = twice.parse::<FailureEvent>().unwrap().parse::<Value>().unwrap();
    assert_eq!((failure.event.data, failure.event.ts), (json!({ "n": 2 }), 2));
    assert_eq!(failure.error.name, "B");
}

#[test]
fn what_is_no_event_is_data_that_fits_nobody_who_expects_some() {
    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Lenient {
        n: u32,
    }
    for event in [json!("not an event"), json!(7), json!([[{ "data": { "n": 1 } }]])] {
        let error = with_trigger(event.clone()).parse::<Lenient>();
        assert_eq!(error.unwrap_err().path().get(..15), Some("data.event.data"), "{event}");
    }
}

#[test]
fn fields_beside_the_data_do_not_refuse_a_failure() {
    let event = json!({
        "name": "inngest/function.failed", "id": 5, "ts": "soon",
        "data": { "function_id": "f-1", "run_id": "r", "correlation_id": 7, "events": "none" },
    });
    let failure = FailureEvent::try_from(event).unwrap().parse::<Value>().unwrap();
    assert_eq!(failure.failed_at, SystemTime::UNIX_EPOCH);
    assert_eq!(failure.correlation_id.as_deref(), Some("7"));
    assert_eq!(failure.events.raw().get(), "[]");
}

#[test]
fn a_misfit_does_not_tell_the_value() {
    #[derive(Debug, Deserialize)]
    enum Kind {
        Small,
    }
    #[derive(Debug, Deserialize)]
    struct Card {
        #[expect(dead_code, reason = "only asked for")]
        number: u64,
        #[expect(dead_code, reason = "only asked for")]
        kind: Option<Kind>,
    }
    for data in [
        json!({ "number": "4242 \", expected u64" }),
        json!({ "number": -4242 }),
        json!({ "number": 42.42 }),
        json!({ "number": 1, "kind": "4242`, expected `4242" }),
    ] {
        let error = with_trigger(json!({ "data": data })).parse::<Card>().unwrap_err();
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(!text.contains("42"), "{text}");
            assert!(text.contains("expected") && text.contains("data.event.data."), "{text}");
        }
    }
}

#[test]
fn only_the_data_decides_whether_a_payload_fits() {
    let event = with_trigger(json!({
        "id": 7, "name": ["x"], "ts": "soon", "user": "u", "v": { "a": 1 }, "data": { "n": 1 },
    }));
    let failure = event.parse::<Value>().unwrap();
    assert_eq!(failure.event.data, json!({ "n": 1 }));
    assert_eq!((failure.event.id.as_str(), failure.event.ts), ("7", 0));
    assert_eq!(failure.event.user, "u");
}

#[test]
fn a_misfit_names_the_path_the_type_and_the_remedy() {
    #[derive(Debug, Deserialize)]
    struct Order {
        #[expect(dead_code, reason = "only asked for")]
        lines: Vec<Line>,
    }
    #[derive(Debug, Deserialize)]
    struct Line {
        #[expect(dead_code, reason = "only asked for")]
        cents: u64,
    }
    let event = with_trigger(json!({ "data": { "lines": [{ "cents": 1 }, { "cents": "2" }] } }));
    let error = event.parse::<Order>().unwrap_err();
    assert_eq!(error.path(), "data.event.data.lines[1].cents");
    assert_eq!(
        error.to_string().replace(error.expected(), "Order"),
        "the original event's data does not fit `Order`: at `data.event.data.lines[1].cents`: invalid \
         type: string, expected u64; let the type take what the event holds"
    );
    assert!(error.expected().ends_with("::Order"), "{}", error.expected());
}

#[test]
fn unknown_fields_stay_reachable() {
    let file = "function_failed/plain-error.js-v4.json";
    let event = FailureEvent::from_slice(&fixture(file)).unwrap();
    let raw: Value = serde_json::from_str(event.raw().get()).unwrap();
    assert_eq!(raw, recorded_event(file));
    assert_eq!(raw["data"]["_inngest"]["status"], "Failed");
    assert_eq!(serde_json::to_value(&event).unwrap(), raw);
}

#[test]
fn what_is_no_failure_event_says_why() {
    let message = |json: &str| json.parse::<FailureEvent>().unwrap_err().to_string();
    assert_eq!(
        message(r#"{"name":"user.signup","data":{"function_id":"f","run_id":"r"}}"#),
        "not a failure event: `name` is \"user.signup\"; send only `inngest/function.failed` and \
         `inngest/function.cancelled` here"
    );
    assert_eq!(
        message(r#"{"name":"inngest/function.failed","data":{"run_id":"r"}}"#),
        "not a failure event: at `data`: missing field `function_id`"
    );
    assert_eq!(
        message(r#"{"name":"inngest/function.failed","data":{"function_id":7,"run_id":"r"}}"#),
        "not a failure event: at `data.function_id`: invalid type: integer, expected a string"
    );
    assert_eq!(
        message(r#"{"name":"inngest/function.failed","data":{"function_id":"f"}}"#),
        "not a failure event: neither `data.run_id` nor `id` is there"
    );
    assert_eq!(message(""), "not JSON: EOF while parsing a value at line 1 column 0");
    assert_eq!(message("{"), "not JSON: EOF while parsing an object at line 1 column 1");
    assert_eq!(
        message("42"),
        "not a failure event: invalid type: integer, expected an object with `name` and `data`"
    );
    let array = "not a failure event but an array; dispatch its events one by one";
    assert_eq!(message("[]"), array);
    assert_eq!(message(r#" ["inngest/function.failed","id",1,["f","r"]]"#), array);
    assert_eq!(
        message(r#"{"name":"shop/order.placed","data":{}}"#),
        "not a failure event: `name` is \"shop/order.placed\"; send only `inngest/function.failed` and \
         `inngest/function.cancelled` here"
    );
    assert_eq!(
        message(r#"{"name":"inngest/function.failed","data":{"function_id":"","run_id":"r"}}"#),
        "not a failure event: `data.function_id` is empty"
    );
    assert_eq!(
        message(
            r#"{"name":"inngest/function.failed","id":"","data":{"function_id":"f","run_id":""}}"#
        ),
        "not a failure event: neither `data.run_id` nor `id` is there"
    );
    // Each level of calls in calls would cost a pass over the whole.
    let calls = r#"{"ctx":{},"event":"#.repeat(100_000) + "{}" + &"}".repeat(100_000);
    assert_eq!(message(&calls), "not a failure event: missing field `name`");
    let large = format!("\"{}\"", "x".repeat(FailureEvent::MAX_BYTES));
    assert_eq!(
        message(&large),
        "the event is 4194306 bytes large, more than the 4194304 that Inngest allows a whole call"
    );
    let error = FailureEvent::from_slice(b"\xff\xfe").unwrap_err();
    assert_eq!(error.to_string(), "not JSON: invalid utf-8 sequence of 1 bytes from index 0");
}
