//! Why the run failed: the message that a person needs, in every shape.

use inngest_failure::{FailureError, FailureEvent, FailureKind};
use serde_json::{Value, json};
use tests::{fixture, recorded_event, recordings};

/// File, name, message, code, causes (name, message, code).
type Expected = (&'static str, &'static str, &'static str, Option<&'static str>, &'static [Cause]);
type Cause = (&'static str, &'static str, Option<&'static str>);

const EXPECTED: &[Expected] = &[
    ("function_cancelled/cancel-api.js-v4.json", "Cancelled", "the run was cancelled", None, &[]),
    (
        "function_cancelled/cancel-on-event.js-v4.json",
        "Cancelled",
        "the run was cancelled",
        None,
        &[],
    ),
    (
        "function_cancelled/timeout-finish.js-v3.json",
        "Cancelled",
        "the run was cancelled",
        None,
        &[],
    ),
    ("function_failed/aggregate-error.js-v4.json", "AggregateError", "aggregate boom", None, &[]),
    ("function_failed/batch.js-v4.json", "Error", "batch boom n=3", None, &[]),
    ("function_failed/conn-reset.json", "Error", "Unable to reach SDK URL", None, &[]),
    ("function_failed/cron.js-v4.json", "Error", "cron boom", None, &[]),
    (
        "function_failed/custom-error-cause.js-v4.json",
        "CustomError",
        "custom boom",
        Some("E_CUSTOM"),
        &[("TypeError", "root cause", None)],
    ),
    (
        "function_failed/custom-error-nested-cause.js-v3.json",
        "Error",
        "outer",
        Some("E_CUSTOM"),
        &[("Error", "middle", Some("E_CUSTOM")), ("RangeError", "inner", None)],
    ),
    ("function_failed/error-empty-message.js-v3.json", "Error", "{}", None, &[]),
    ("function_failed/error-no-stack.js-v3.json", "Error", "no stack here", None, &[]),
    (
        "function_failed/error-unicode-multiline.js-v4.json",
        "Error",
        "zażółć 🚀\nsecond line\t\"quoted\" <b>html</b> & \0 nul",
        None,
        &[],
    ),
    ("function_failed/event-no-data.js-v4.json", "Error", "no data boom", None, &[]),
    ("function_failed/event-numbers.js-v3.json", "Error", "numbers boom", None, &[]),
    ("function_failed/event-rich.js-v4.json", "Error", "rich boom", None, &[]),
    (
        "function_failed/http-500-html.json",
        "Server returned a fatal error",
        "Your server returned HTTP 500 before the SDK responded.",
        None,
        &[],
    ),
    (
        "function_failed/http-500-text.json",
        "Server returned a fatal error",
        "Your server returned HTTP 500 before the SDK responded.",
        None,
        &[],
    ),
    ("function_failed/http-502-sdkhdr-text.json", "Error", "Bad Gateway", None, &[]),
    (
        "function_failed/invoke-parent.js-v4.json",
        "Error",
        "child boom inngest/function.invoked",
        None,
        &[],
    ),
    (
        "function_failed/invoked-child.js-v4.json",
        "Error",
        "child boom inngest/function.invoked",
        None,
        &[],
    ),
    ("function_failed/non-retriable.js-v3.json", "Error", "do not retry me", None, &[]),
    ("function_failed/onfailure-steps.req2.js-v3.json", "Error", "first boom", None, &[]),
    ("function_failed/plain-error.js-v4.json", "Error", "plain boom", None, &[]),
    ("function_failed/plain-error.py.json", "Exception", "plain boom", Some("unknown"), &[]),
    ("function_failed/retries-2.js-v4.json", "Error", "attempt 2 boom", None, &[]),
    ("function_failed/step-parallel.js-v4.json", "Error", "p1 boom", None, &[]),
    ("function_failed/step-run-error.js-v4.json", "Error", "step boom", None, &[]),
    ("function_failed/step-run-error.py.json", "Exception", "step boom", Some("step_errored"), &[]),
    ("function_failed/string-answer.rust-0.1.1.json", "Error", "kaboom", None, &[]),
    ("function_failed/thrown-null.js-v3.json", "Error", "null", None, &[]),
    (
        "function_failed/thrown-object-nomsg.js-v4.json",
        "Error",
        "{\"foo\":\"bar\",\"n\":1}",
        None,
        &[],
    ),
    ("function_failed/thrown-string.js-v3.json", "Error", "just a string", None, &[]),
];

#[test]
fn every_recording_has_its_message_code_and_causes() {
    let files: Vec<&str> = EXPECTED.iter().map(|expected| expected.0).collect();
    assert_eq!(files, recordings(&["function_cancelled", "function_failed"]));

    for &(file, name, message, code, causes) in EXPECTED {
        let event = FailureEvent::try_from(recorded_event(file)).unwrap();
        let error = event.error();
        assert_eq!((&*error.name, &*error.message, error.code()), (name, message, code), "{file}");
        let mut chain = Vec::new();
        let mut next = error.cause.as_deref();
        while let Some(cause) = next {
            chain.push((&*cause.name, &*cause.message, cause.code()));
            next = cause.cause.as_deref();
        }
        assert_eq!(chain, causes, "{file}");
    }
}

#[test]
fn the_benchmarks_read_the_same_example() {
    let measured = include_bytes!("../../inngest-failure/benches/documentation-example.event.json");
    assert_eq!(fixture("documentation-example.event.json"), measured);
}

#[test]
fn the_documentation_example_is_read() {
    let event = FailureEvent::from_slice(&fixture("documentation-example.event.json")).unwrap();
    assert_eq!(event.kind(), FailureKind::Failed);
    assert_eq!(event.function_id(), "my-gcp-cloud-functions-app-hello-inngest");
    assert_eq!(event.run_id(), "01H0TPSJ576QY54R6JJ8MEX6JH");
    assert_eq!(event.id(), "01H0TPW7KB4KCR739TG2J3FTHT");
    let error = event.error();
    assert_eq!(
        error.message,
        "taylor@ok.com is already a list member. Use PUT to insert or update list members."
    );
    assert_eq!(error.stack.as_deref().unwrap().lines().count(), 8);
}

#[test]
fn a_stack_is_there_if_it_says_something() {
    let stack = |file: &str| {
        let event = FailureEvent::try_from(recorded_event(file)).unwrap();
        event.error().stack.clone()
    };
    let python = stack("function_failed/plain-error.py.json").unwrap();
    assert!(python.starts_with("Traceback (most recent call last):"), "{python}");
    let proxy = stack("function_failed/http-500-text.json").unwrap();
    assert!(proxy.ends_with("Internal Server Error: something broke"), "{proxy}");
    assert_eq!(stack("function_failed/thrown-null.js-v3.json"), None);
    assert_eq!(stack("function_failed/error-no-stack.js-v3.json"), None);
}

fn error_of(data: Value) -> FailureError {
    let mut data = data;
    data["function_id"] = json!("shop-checkout");
    data["run_id"] = json!("r1");
    let event = json!({ "name": "inngest/function.failed", "data": data });
    FailureEvent::try_from(event).unwrap().error().clone()
}

#[test]
fn the_form_of_2023_is_seen_through() {
    let body = json!({
        "name": "TypeError", "message": "boom", "stack": "TypeError: boom\n  at x",
        "code": "E_OLD", "cause": { "name": "Error", "message": "root" },
    });
    let error = error_of(json!({ "error": { "body": body.to_string(), "status": 500 } }));
    assert_eq!((&*error.name, &*error.message), ("TypeError", "boom"));
    assert_eq!(error.stack.as_deref(), Some("TypeError: boom\n  at x"));
    assert_eq!(error.code(), Some("E_OLD"));
    assert_eq!(error.cause.as_ref().unwrap().message, "root");

    let error = error_of(json!({ "error": { "body": "\"kaboom\"", "status": 500 } }));
    assert_eq!((&*error.name, &*error.message), ("Error", "kaboom"));
    let error = error_of(json!({ "error": { "body": "<html>Bad Gateway</html>", "status": 502 } }));
    assert_eq!(error.message, "<html>Bad Gateway</html>");
}

#[test]
fn json_inside_the_message_is_seen_through() {
    let deep = json!({ "error": json!({ "name": "E", "message": "\"boom\"" }).to_string() });
    for (message, seen) in [
        (
            json!({ "error": { "error": "x", "name": "Error", "message": "boom" } }).to_string(),
            "boom",
        ),
        (json!({ "message": "boom" }).to_string(), "boom"),
        (json!({ "error": "boom" }).to_string(), "boom"),
        (json!("boom").to_string(), "boom"),
        (deep.to_string(), "boom"),
        ("\"not\" json \"".to_owned(), "\"not\" json \""),
        ("{not json}".to_owned(), "{not json}"),
        (json!({ "order": 7 }).to_string(), "{\"order\":7}"),
        (json!(["a"]).to_string(), "[\"a\"]"),
    ] {
        let error = error_of(json!({ "error": { "error": "summary", "message": message } }));
        assert_eq!(error.message, seen);
    }
}

#[test]
fn what_only_the_answer_carries_is_reached() {
    #[derive(serde::Deserialize, Debug, PartialEq)]
    struct Decline {
        decline_code: String,
        retry_in: u32,
    }

    let error = error_of(json!({
        "error": { "error": "invalid status code: 500", "name": "Error", "message": "declined" },
        "result": {
            "name": "CardError", "message": "declined", "code": 402, "stack": "at pay",
            "decline_code": "stolen", "retry_in": 7, "cause": "no such card",
        },
    }));
    assert_eq!(error.code(), Some("402"));
    assert_eq!(error.stack.as_deref(), Some("at pay"));
    assert_eq!(error.cause.as_ref().unwrap().message, "no such card");
    let details: Decline = error.details().unwrap();
    assert_eq!(details, Decline { decline_code: "stolen".to_owned(), retry_in: 7 });

    let missing = error_of(json!({ "error": { "message": "x" }, "result": "kaboom" }));
    let fault = missing.details::<Decline>().unwrap_err();
    assert!(fault.to_string().contains("do not fit `conformance::errors::"), "{fault}");
}

#[test]
fn a_cause_may_be_any_json() {
    for (cause, message) in [
        (json!("text"), "text"),
        (json!(42), "42"),
        (json!(["a", 1]), "[\"a\",1]"),
        (json!({ "reason": 1 }), "{\"reason\":1}"),
        (json!({ "message": { "deep": true } }), "{\"deep\":true}"),
    ] {
        let error = error_of(json!({ "error": { "message": "x", "cause": cause } }));
        assert_eq!(error.cause.unwrap().message, message);
    }
    assert!(error_of(json!({ "error": { "message": "x", "cause": null } })).cause.is_none());
}

#[test]
fn causes_are_bounded() {
    let mut cause = json!({ "message": "the innermost" });
    for depth in 0..100 {
        cause = json!({ "message": format!("cause {depth}"), "cause": cause });
    }
    let error = error_of(json!({ "error": { "message": "x", "cause": cause } }));
    let mut next = error.cause.as_deref();
    let mut count = 0;
    while let Some(cause) = next {
        count += 1;
        next = cause.cause.as_deref();
    }
    assert_eq!(count, 16);
}

#[test]
fn an_error_of_another_shape_is_still_a_message() {
    assert_eq!(error_of(json!({ "error": "plain text" })).message, "plain text");
    assert_eq!(error_of(json!({ "error": 42 })).message, "42");
    assert_eq!(error_of(json!({ "error": ["a"] })).message, "[\"a\"]");
    assert_eq!(error_of(json!({ "error": { "message": { "a": 1 } } })).message, "{\"a\":1}");
    assert_eq!(error_of(json!({ "error": { "message": "", "name": "E" } })).name, "E");
    assert_eq!(
        error_of(json!({ "result": { "message": "from the answer" } })).message,
        "from the answer"
    );
    assert_eq!(error_of(json!({})).message, "the failure event says nothing of the error");
    assert_eq!(
        error_of(json!({ "error": { "error": "summary", "message": "summary" }, "result": null }))
            .message,
        "summary"
    );
}

#[test]
fn the_error_is_a_standard_error() {
    let error = error_of(json!({
        "error": { "message": "outer", "cause": { "message": "inner", "name": "TypeError" } },
    }));
    let error: &dyn std::error::Error = &error;
    assert_eq!(error.to_string(), "outer");
    assert_eq!(error.source().unwrap().to_string(), "inner");
}
