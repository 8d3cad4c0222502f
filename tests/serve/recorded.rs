//! The calls that a real server made of other SDKs' failure handlers, made of ours.

use http::Request;
use inngest_failure::{Failure, FailureEvent, HandlerError, RunContext, handlers, on_failure};
use serde_json::{Value, json};
use tests::{
    fixture,
    http::{Server, call, json},
    recordings,
};

use crate::{builder, dev};

#[on_failure(function = "*", id = "all")]
async fn all(
    failure: Failure,
    event: FailureEvent,
    run: RunContext,
) -> Result<Value, HandlerError> {
    let event: Value = serde_json::to_value(event)?;
    Ok(json!([failure.function_id, failure.run_id, run.attempt, run.max_attempts, event]))
}

#[tokio::test]
async fn each_recorded_call_of_a_failure_handler_runs_ours_with_its_event() {
    let dispatcher = builder().register(handlers![all]).build().unwrap();
    let server = Server::start(dev(dispatcher).build().unwrap()).await;
    let (mut ran, mut refused) = (0, 0);
    for file in recordings(&["calls"]) {
        let recorded: Value = serde_json::from_slice(&fixture(&file)).unwrap();
        let body = match &recorded["request"]["body"] {
            Value::String(body) => body.clone(),
            body => body["raw"].as_str().map_or_else(|| body.to_string(), str::to_owned),
        };
        let sent: Value = serde_json::from_str(&body).unwrap();
        let request: Request<bytes::Bytes> = call("shop-failures-all", body);
        let response = server.send(request).await;
        let answer = json(&response);
        if sent["event"]["name"] == "inngest/function.failed" {
            ran += 1;
            let data = &sent["event"]["data"];
            let ctx = &sent["ctx"];
            assert_eq!(response.status(), 200, "{file}: {answer}");
            assert_eq!(
                answer,
                json!([
                    data["function_id"],
                    data["run_id"],
                    ctx["attempt"],
                    ctx["max_attempts"],
                    sent["event"]
                ]),
                "{file}"
            );
        } else {
            refused += 1;
            assert_eq!(response.status(), 400, "{file}: {answer}");
            assert!(
                answer["message"].as_str().unwrap().starts_with("not a failure event: `name` is")
            );
        }
    }
    assert_eq!((ran, refused), (5, 5));
}
