//! Runs whose steps are too large to be sent along: they are fetched.

use inngest_failure::{HandlerError, Step, handlers, on_failure, serve::Endpoint};
use serde_json::{Value, json};
use tests::http::{Api, nowhere};

use crate::{Call, builder, event, exchange, hash, op, ops};

/// Large values make large runs.
#[on_failure(function = "large")]
async fn large(step: Step) -> Result<usize, HandlerError> {
    let one: String =
        step.run("one", async || Ok::<_, HandlerError>("1".repeat(9_000_000))).await?;
    let two: String = step.run("two", async || Ok::<_, HandlerError>("2".to_owned())).await?;
    Ok(one.len() + two.len())
}

async fn answer(origin: &str) -> (u16, String, Value) {
    let dispatcher = builder().register(handlers![large]).build().unwrap();
    let builder = Endpoint::builder(dispatcher, "shop-failures").dev(true).api_origin(origin);
    let endpoint = builder.build().unwrap();
    let mut request = Call::default().request("shop-large-failure");
    let mut body: Value = serde_json::from_slice(request.body()).unwrap();
    (body["use_api"], body["ctx"]["use_api"]) = (json!(true), json!(true));
    (body["event"], body["events"]) = (json!({}), json!([]));
    *request.body_mut() = body.to_string().into();
    let response = exchange(&endpoint, request).await;
    let no_retry = tests::http::header(&response, "x-inngest-no-retry").to_owned();
    (response.status().as_u16(), no_retry, tests::http::json(&response))
}

fn batch() -> String {
    format!("[{}]", event().raw())
}

#[tokio::test]
async fn the_steps_are_fetched_however_large_they_are() {
    let one = "1".repeat(9_000_000);
    let steps = json!({ hash("one"): { "data": one } }).to_string();
    let api = Api::start(&[(200, &batch()), (200, &steps)]).await;
    let (status, _, body) = answer(&api.origin()).await;
    assert_eq!((status, ops(&body)), (206, vec![op("StepRun", "two")]));
    let paths: Vec<String> = api.received().iter().map(|it| it.uri().path().to_owned()).collect();
    let run = "/v0/runs/01M82EYT4HM8CFGAGFFEN707R8";
    assert_eq!(paths, [format!("{run}/batch"), format!("{run}/actions")]);

    let steps = json!({ hash("one"): { "data": one }, hash("two"): { "data": "2" } }).to_string();
    let api = Api::start(&[(200, &batch()), (200, &steps)]).await;
    let (status, _, body) = answer(&api.origin()).await;
    assert_eq!((status, body), (200, json!(9_000_001)));
}

#[tokio::test]
async fn a_step_does_not_run_again_because_it_could_not_be_fetched() {
    for (answers, expected) in [
        (vec![(200, batch()), (500, "oops".to_owned())], "does not give the steps of run"),
        (vec![(200, batch()), (404, "{}".to_owned())], "does not give the steps of run"),
        (vec![(200, batch()), (200, "[]".to_owned())], "gives for the steps of the run are none"),
        (
            vec![(200, batch()), (200, "<html>".to_owned())],
            "gives for the steps of the run are none",
        ),
        (
            vec![(200, batch()), (200, " ".repeat(65 * 1024 * 1024))],
            "it is larger than 67108864 bytes",
        ),
        (vec![(500, "oops".to_owned())], "does not give the events of run"),
    ] {
        let answers: Vec<(u16, &str)> =
            answers.iter().map(|(status, body)| (*status, body.as_str())).collect();
        let api = Api::start(&answers).await;
        let (status, no_retry, body) = answer(&api.origin()).await;
        assert_eq!((status, no_retry.as_str()), (500, "false"), "{body}");
        assert_eq!(body["name"], "ApiError");
        assert!(body["message"].as_str().unwrap().contains(expected), "{body}");
    }
    let (status, _, _) = answer(&nowhere()).await;
    assert_eq!(status, 500);
}
