//! Recorded exchanges: a handler written as the recorded function was answers each recorded request in the same way.

use bytes::Bytes;
use inngest_failure::{FailureEvent, HandlerError, RunContext, Step, handlers, on_failure};
use serde_json::{Value, json};
use tests::{fixture, recordings};

use crate::{builder, endpoint, event, exchange};

/// `cap3-onfailure-steps-failure`: a step whose result is what it returns.
#[on_failure(function = "onfailure-steps")]
async fn steps(failure: FailureEvent, step: Step) -> Result<Value, HandlerError> {
    let notified = json!({ "notified": failure.run_id() });
    Ok(step.run("notify", async || Ok::<_, HandlerError>(notified)).await?)
}

/// `cap3-onfailure-throws-failure`.
#[on_failure(function = "onfailure-throws", retries = 1)]
async fn throws(run: RunContext, _step: Step) -> Result<(), HandlerError> {
    Err(format!("handler boom attempt {}", run.attempt).into())
}

/// `cap3-step-parallel`: two steps at once, both of which fail.
#[on_failure(function = "step-parallel", retries = 0)]
async fn parallel(step: Step) -> Result<(), HandlerError> {
    let boom = |message: &'static str| async move { Err::<(), &str>(message) };
    tokio::try_join!(step.run("p1", || boom("p1 boom")), step.run("p2", || boom("p2 boom")),)?;
    Ok(())
}

/// `cappy-plain-error-failure`.
#[on_failure(function = "plain-error")]
async fn plain(failure: FailureEvent, _step: Step) -> Result<Value, HandlerError> {
    let failure = failure.parse::<Value>()?;
    Ok(json!({ "handled": failure.event.data["case"] }))
}

/// What an operation or an error says, without what only one SDK says: stack traces, timing, JavaScript's own fields.
fn essence(body: &Value) -> Value {
    match body.as_array() {
        None => json!([body["name"], body["message"], body["notified"], body["handled"]]),
        Some(operations) => operations
            .iter()
            .map(|op| {
                let data = if op["op"] == "StepRun" { op["data"].clone() } else { Value::Null };
                let error = &op["error"];
                json!([
                    op["id"],
                    op["op"],
                    op["displayName"],
                    data,
                    error["name"],
                    error["message"]
                ])
            })
            .collect(),
    }
}

#[tokio::test]
async fn each_recorded_request_is_answered_in_the_same_way() {
    let endpoint = endpoint(builder().register(handlers![steps, throws, parallel, plain]));
    let failed: Value = serde_json::from_str(event().raw().get()).unwrap();
    let mut exchanges = 0;
    for file in recordings(&["calls"]) {
        let recorded: Value = serde_json::from_slice(&fixture(&file)).unwrap();
        let (request, response) = (&recorded["request"], &recorded["response"]);
        let part = |body: &Value| body.get("json").unwrap_or(body).clone();
        let mut body = part(&request["body"]);
        // One recorded function is no failure handler: its event is replaced by one that a handler can get.
        if body["event"]["name"] != "inngest/function.failed" {
            body["event"] = failed.clone();
            body["events"] = json!([failed]);
        }
        let url = request["url"].as_str().unwrap();
        let (_, query) = url.split_once('?').unwrap();
        let (function, rest) = query.strip_prefix("fnId=").unwrap().split_once('&').unwrap();
        let function = function.split_once('-').unwrap().1;
        let function = format!("shop-{}-failure", function.trim_end_matches("-failure"));
        let uri = format!("{}?fnId=shop-failures-{function}&{rest}", tests::http::PATH);
        let call = http::Request::post(uri).body(Bytes::from(body.to_string())).unwrap();

        let answer = exchange(&endpoint, call).await;
        let expected = part(&response["body"]);
        assert_eq!(u64::from(answer.status().as_u16()), response["status"], "{file}");
        let ours = tests::http::json(&answer);
        assert_eq!(essence(&ours), essence(&expected), "{file}: {ours}");
        // What a step failed with keeps its stack, whoever wrote it down.
        if answer.status() == 400 {
            assert_eq!(ours["stack"], expected["stack"], "{file}: {ours}");
        }
        let header = |name: &str| {
            let headers = response.get("headers").or(response.get("rawHeaders")).unwrap();
            let headers = headers.as_array().unwrap().iter();
            let found = headers.filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
            found.map(|pair| pair[1].as_str().unwrap().to_owned()).next()
        };
        if let Some(no_retry) = header("x-inngest-no-retry") {
            assert_eq!(tests::http::header(&answer, "x-inngest-no-retry"), no_retry, "{file}");
        }
        exchanges += 1;
    }
    assert_eq!(exchanges, 10);
}
