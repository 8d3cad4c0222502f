//! Traces from the API, which a real HTTP server plays.

use std::time::Duration;

use inngest_failure::{
    Api, Backoff, BoxFuture, Dispatcher, FailureEvent, RunTrace, State, StepOutput, TraceError,
    TraceSource, handlers, on_failure,
    serve::Endpoint,
    testing::{TestRun, failure},
};
use serde_json::{Value, json};
use tests::http::{self, KEY, OTHER_KEY};

use crate::{Outcome, Seen, builder, traces::recorded};

const RUN: &str = "01M82KHGGM4VS44SRQQMJGT0D1";

fn trace() -> String {
    let file: Value = serde_json::from_slice(&tests::fixture("traces/tr4.serial.json")).unwrap();
    file["trace"].to_string()
}

fn dev(api: &http::Api) -> Api {
    Api::builder().dev_server(api.origin()).build().unwrap()
}

fn paths(api: &http::Api) -> Vec<String> {
    api.received().iter().map(|request| request.uri().path().to_owned()).collect()
}

#[tokio::test]
async fn the_fallback_key_is_tried_when_the_first_is_refused() {
    let trace = trace();
    let api = http::Api::start(&[(401, "{}"), (200, &trace)]).await;
    let settings = Api::builder().dev(false).signing_key(KEY).signing_key_fallback(OTHER_KEY);
    let settings = settings.api_origin(api.origin()).build().unwrap();
    assert_eq!(settings.trace(RUN).await.unwrap().steps().len(), 4);
    let keys: Vec<_> =
        api.received().iter().map(|request| request.headers()["authorization"].clone()).collect();
    assert!(keys.len() == 2 && keys[0] != keys[1]);
    assert_eq!(paths(&api)[0], format!("/v2/runs/{RUN}/trace"));
}

#[tokio::test]
async fn both_places_are_looked_at() {
    let trace = trace();
    let page = "404 page not found\n";
    let api = http::Api::start(&[(404, page), (200, &trace)]).await;
    assert!(dev(&api).trace(RUN).await.is_ok());
    let of = |base: &str| format!("{base}/runs/{RUN}/trace");
    assert_eq!(paths(&api), [of("/api/v2"), of("/v2")]);

    let api = http::Api::start(&[(404, page), (404, page)]).await;
    let error = dev(&api).trace(RUN).await.unwrap_err();
    assert!(matches!(error, TraceError::Unsupported { .. }));
    let expected = format!(
        "Inngest at `{}` has no traces, neither at `/v2` nor at `/api/v2`; update a server of your own, and see that \
         `INNGEST_API_BASE_URL` is the API's if it is set",
        api.origin()
    );
    assert_eq!(error.to_string(), expected);

    let unknown = r#"{"errors":[{"code":"not_found","message":"run not found"}]}"#;
    let api = http::Api::start(&[(404, unknown), (404, page)]).await;
    let error = dev(&api).trace(RUN).await.unwrap_err();
    assert!(matches!(error, TraceError::UnknownRun { .. }));
    assert!(
        error.to_string().starts_with(&format!(
            "there is no trace of run `{RUN}`: Inngest does not know the run"
        ))
    );

    let api = http::Api::start(&[]).await;
    let error = dev(&api).trace("../secrets").await.unwrap_err();
    assert!(matches!(error, TraceError::UnknownRun { .. }));
    assert!(api.received().is_empty());
}

#[tokio::test]
async fn a_busy_server_and_a_run_that_is_not_over_are_asked_again() {
    let trace = trace();
    let running = trace.replacen("\"status\":\"FAILED\"", "\"status\":\"RUNNING\"", usize::MAX);
    let api =
        http::Api::start(&[(500, "busy"), (429, "slower"), (200, &running), (200, &trace)]).await;
    let found = dev(&api).trace(RUN).await.unwrap();
    assert_eq!(found.failed_step().unwrap().name, "ship");
    assert_eq!(api.received().len(), 4);

    let api = http::Api::start(&[(502, ""), (502, ""), (502, ""), (502, "")]).await;
    let error = dev(&api).trace(RUN).await.unwrap_err().to_string();
    assert!(error.contains("does not give the trace of run") && error.contains("502"), "{error}");
    assert_eq!(api.received().len(), 4);
}

#[tokio::test]
async fn garbage_is_an_error_that_shows_none_of_it() {
    let api = http::Api::start(&[(200, "<html>secret</html>")]).await;
    let error = dev(&api).trace(RUN).await.unwrap_err().to_string();
    let expected = format!(
        "the trace of the run could not be had: what Inngest at `{}` gives for the trace of run `{RUN}` is none: not JSON: \
         expected value at line 1 column 1",
        api.origin()
    );
    assert_eq!(error, expected);
    let error = Api::builder().dev_server(http::nowhere()).build().unwrap().trace(RUN).await;
    assert!(error.unwrap_err().to_string().contains("can't reach Inngest at"));
}

#[on_failure(function = "serial", app = "tr4", step = "reserve-stock", retries = 1)]
async fn release(reserved: StepOutput<Value>, State(seen): State<Seen>) {
    seen.note(format!("release {}", reserved["reservation"]));
}

#[on_failure(function = "serial", app = "tr4", step = "charge-card", retries = 1)]
async fn refund(charge: StepOutput<Value>, State(seen): State<Seen>) {
    seen.note(format!("refund {}", charge["charge_id"]));
}

#[on_failure(function = "serial", app = "tr4", id = "reads")]
async fn reads(trace: RunTrace, State(seen): State<Seen>) -> Outcome<String> {
    seen.note("read");
    Ok(trace.failed_step().unwrap().name.clone())
}

#[on_failure(function = "*", id = "counts")]
async fn counts() {}

fn dispatcher(seen: &Seen, api: &http::Api) -> Dispatcher {
    let backoff = Backoff::new().first(Duration::from_millis(1)).max(Duration::from_millis(1));
    let handlers = handlers![release, refund, reads, counts];
    let registered = builder().register(handlers).backoff(backoff).state(seen.clone());
    registered.api(dev(api)).build().unwrap()
}

fn serial() -> FailureEvent {
    FailureEvent::try_from(recorded("tr4.serial").0).unwrap()
}

#[tokio::test]
async fn a_trace_is_fetched_once_for_all_who_want_it() {
    let trace = trace();
    let api = http::Api::start(&[(200, &trace)]).await;
    let seen = Seen::default();
    let dispatcher = dispatcher(&seen, &api);
    let (first, second) =
        tokio::join!(dispatcher.dispatch(serial()), dispatcher.dispatch(serial()));
    assert!(first.is_ok() && second.is_ok(), "{first:?}");
    assert_eq!(first.runs.len(), 4);
    assert_eq!(api.received().len(), 1);
    assert_eq!(seen.take().len(), 6);
}

#[tokio::test]
async fn without_a_handler_that_wants_it_nothing_is_fetched() {
    let api = http::Api::start(&[]).await;
    let dispatcher = dispatcher(&Seen::default(), &api);
    let report = dispatcher.dispatch(failure("shop-checkout").build()).await;
    assert!(report.is_ok());
    assert_eq!(report.runs.len(), 1);
    assert!(api.received().is_empty());
}

#[tokio::test]
async fn a_trace_that_is_not_to_be_had_fails_every_undo_and_names_the_reason() {
    let api = http::Api::start(&[]).await;
    let seen = Seen::default();
    let dispatcher = dispatcher(&seen, &api);
    let report = dispatcher.dispatch(serial()).await;
    assert!(!report.is_ok() && !report.is_unhandled());
    let mut failed = 0;
    for run in &report.runs {
        let Err(error) = &run.result else { continue };
        failed += 1;
        let error = error.to_string();
        assert!(
            error.contains("does not give the trace of run") && error.contains("500"),
            "{error}"
        );
    }
    assert_eq!(failed, 3);
    assert!(seen.take().is_empty());
}

/// What the reserving step had returned, too large to travel with the plan.
fn large() -> (String, usize) {
    let bytes = 10 * 1024 * 1024;
    let mut trace: Value = serde_json::from_str(&trace()).unwrap();
    for span in trace["data"]["rootSpan"]["children"].as_array_mut().unwrap() {
        if span["name"] == "reserve-stock" {
            span["output"]["note"] = "x".repeat(bytes).into();
        }
    }
    (trace.to_string(), bytes)
}

#[on_failure(function = "serial", app = "tr4", step = "reserve-stock")]
async fn weigh(reserved: StepOutput<Value>, State(seen): State<Seen>) {
    seen.note(format!("{} bytes", reserved["note"].as_str().unwrap().len()));
}

#[tokio::test]
async fn an_output_that_is_too_large_for_the_plan_is_read_again() {
    let (trace, bytes) = large();
    let api = http::Api::start(&[(200, &trace)]).await;
    let seen = Seen::default();
    let builder = builder().register(handlers![weigh, refund]).state(seen.clone()).api(dev(&api));
    let dispatcher = builder.build().unwrap();
    let endpoint = Endpoint::builder(dispatcher.clone(), "undos").build().unwrap();
    let server = http::Server::start(endpoint).await;
    let run = TestRun::new(&dispatcher, "tr4-serial-rollback", serial());
    let run = run.app_id("undos").path(http::PATH);
    let transcript = run.run_through(async |request| server.send(request).await).await;
    transcript.assert_undone(["charge-card", "reserve-stock"]);
    assert_eq!(seen.take(), ["refund \"ch_42\"".to_owned(), format!("{bytes} bytes")]);
    // The cache still has it.
    assert_eq!(api.received().len(), 1);
    let plan = &transcript.calls()[0].operations[0];
    assert!(plan.starts_with("StepRun plan") && plan.len() < 2000, "{}", plan.len());
}

/// Answers late, and counts.
struct Late(Seen);

impl TraceSource for Late {
    fn trace<'a>(&'a self, run_id: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
        Box::pin(async move {
            self.0.note(run_id);
            tokio::time::sleep(Duration::from_millis(50)).await;
            trace().parse().map_err(TraceError::other)
        })
    }
}

#[tokio::test]
async fn a_source_of_one_s_own_takes_the_api_s_place() {
    let (seen, asked) = (Seen::default(), Seen::default());
    let builder = builder().register(handlers![release, refund]).state(seen.clone());
    let dispatcher = builder.trace_source(Late(asked.clone())).build().unwrap();
    let report = dispatcher.dispatch(serial()).await;
    assert!(report.is_ok(), "{report:?}");
    assert_eq!(asked.take(), [RUN]);
    assert_eq!(seen.take(), ["refund \"ch_42\"", "release \"r-1\""]);
    let null = json!(null);
    assert!(report.runs.iter().all(|run| run.result.as_ref().unwrap() == &null));
}
