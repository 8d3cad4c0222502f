//! Under Inngest: at an endpoint and in a server of the SDK, over real HTTP.

use std::{sync::Arc, time::Duration};

use ::http::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use inngest::{client::Inngest, handler::Handler, result::Error};
use inngest_failure::{
    Api, BoxError, BoxFuture, DeadLetter, DeadLetters, Dispatcher, DispatcherBuilder, Failure,
    FailureEvent, HandlerError, JsonLines, NonRetriable, State, Step, StepOutput, handlers,
    on_failure, sdk,
    serve::Endpoint,
    testing::{TestRun, failure},
};
use serde_json::{Value, json};
use tests::{Log, http};
use tower::ServiceExt;

use crate::{
    Broken, Kept, Outcome, Seen, TestFile, builder, event, logged,
    sdk_server::{self, Call, Server},
};

#[on_failure(function = "checkout")]
async fn fails() -> Outcome {
    Err(std::io::Error::other("the bank is closed").into())
}

#[on_failure(function = "checkout", id = "final")]
async fn fails_at_once() -> Result<(), NonRetriable> {
    Err(NonRetriable::new("no such card"))
}

#[on_failure(function = "checkout", id = "panics")]
async fn panics() {
    panic!("{}", crate::PANIC);
}

#[on_failure(function = "checkout", id = "slow", timeout = "5ms")]
async fn slow() {
    std::future::pending::<()>().await;
}

#[on_failure(function = "checkout", id = "typed")]
async fn typed(_: Failure<u8>) {}

#[on_failure(function = "checkout", id = "succeeds")]
async fn succeeds() {}

#[on_failure(function = "checkout", id = "recovers")]
async fn recovers(step: Step) -> Outcome<String> {
    step.run("first", async || Ok::<_, HandlerError>(1)).await?;
    let failed = step.run("second", async || Outcome::<()>::Err("it is closed".into())).await;
    Ok(failed.unwrap_err().message)
}

#[on_failure(function = "checkout", id = "gives-up")]
async fn gives_up(step: Step) -> Outcome {
    for i in 0..2 {
        step.run("item", async || Ok::<_, HandlerError>(i)).await?;
    }
    step.run("second", async || Outcome::<()>::Err("it is closed".into())).await?;
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Host {
    Endpoint,
    Sdk,
}

use Host::{Endpoint as AtEndpoint, Sdk};

fn all() -> DispatcherBuilder {
    builder().register(handlers![
        fails,
        fails_at_once,
        panics,
        slow,
        typed,
        succeeds,
        recovers,
        gives_up
    ])
}

fn endpoint(dispatcher: Dispatcher) -> Endpoint {
    Endpoint::builder(dispatcher, "letters").dev_server("http://127.0.0.1:9").build().unwrap()
}

pub(crate) async fn sdk(dispatcher: &Dispatcher) -> Server {
    let client = Inngest::new("shop");
    let mut handler = Handler::<Value, Error>::new(&client);
    handler.register_fns(sdk::servable_fns(dispatcher, &client));
    let layer = sdk::Layer::new(Api::builder().dev(true).build().unwrap()).unwrap();
    Server::start(handler, Some(layer)).await
}

/// The whole answer to a call, but for its date.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl From<Response<Bytes>> for Answer {
    fn from(response: Response<Bytes>) -> Self {
        let header = |(name, value): (&::http::HeaderName, &::http::HeaderValue)| {
            (name != "date").then(|| (name.to_string(), value.to_str().unwrap().to_owned()))
        };
        Self {
            status: response.status().as_u16(),
            headers: response.headers().iter().filter_map(header).collect(),
            body: response.into_body(),
        }
    }
}

fn synced_id(host: Host, handler_id: &str) -> String {
    match host {
        AtEndpoint => format!("letters-{handler_id}"),
        Sdk => format!("shop-{}", handler_id.strip_prefix("shop-").unwrap_or(handler_id)),
    }
}

/// A host that serves handlers.
enum Served {
    AtEndpoint(http::Server),
    Sdk(Server),
}

impl Served {
    async fn start(host: Host, builder: DispatcherBuilder) -> Self {
        let dispatcher = builder.build().unwrap();
        match host {
            AtEndpoint => Self::AtEndpoint(http::Server::start(endpoint(dispatcher)).await),
            Sdk => Self::Sdk(sdk(&dispatcher).await),
        }
    }

    async fn answer(&self, handler_id: &str, attempt: u32) -> Answer {
        let call = Call { attempt, ..Call::default() };
        let body = sdk_server::body(&event("shop-checkout"), &call);
        let response = match self {
            Self::AtEndpoint(server) => {
                server.send(http::call(&synced_id(AtEndpoint, handler_id), body)).await
            }
            Self::Sdk(server) => {
                server.send(sdk_server::request(&synced_id(Sdk, handler_id), body)).await
            }
        };
        response.into()
    }
}

/// Calls a handler at this host.
async fn answer(host: Host, builder: DispatcherBuilder, handler_id: &str) -> Answer {
    Served::start(host, builder).await.answer(handler_id, 0).await
}

#[tokio::test]
async fn only_the_call_that_ends_the_run_leaves_a_letter_and_no_answer_is_another() {
    for host in [AtEndpoint, Sdk] {
        let kept = Kept::default();
        let bare = Served::start(host, all()).await;
        let served = Served::start(host, all().dead_letters(kept.clone())).await;
        for (id, status, message) in [
            ("shop-checkout-failure", 500, "the bank is closed"),
            ("panics", 500, crate::PANIC),
            ("slow", 500, "the handler took longer than its `timeout`"),
            ("final", 400, "no such card"),
            ("typed", 400, "does not fit `u8`"),
            ("succeeds", 200, ""),
            // A step is no handler.
            ("recovers", 206, ""),
            ("gives-up", 206, ""),
        ] {
            for attempt in 0..4 {
                let what = format!("{host:?} {id} {attempt}");
                let with = served.answer(id, attempt).await;
                assert_eq!(with, bare.answer(id, attempt).await, "{what}");
                assert_eq!(with.status, status, "{what}");
                if status == 400 || (status == 500 && attempt == 3) {
                    let letter = kept.one();
                    assert_eq!(letter.handler_id, id, "{what}");
                    assert!(letter.error.message.contains(message), "{what}: {}", letter.error);
                    assert_eq!(letter.attempts, Some(attempt + 1), "{what}");
                    assert_eq!(letter.event_id(), event("shop-checkout").id());
                    assert!(letter.steps.is_empty());
                } else {
                    kept.none();
                }
            }
        }
    }
}

/// Runs a handler to its end at this host.
async fn run(
    host: Host,
    builder: DispatcherBuilder,
    id: &str,
    event: FailureEvent,
) -> Result<Value, Value> {
    let dispatcher = builder.build().unwrap();
    match host {
        AtEndpoint => {
            let server = http::Server::start(endpoint(dispatcher.clone())).await;
            let run = TestRun::new(&dispatcher, id, event).app_id("letters").path(http::PATH);
            let transcript = run.run_through(async |request| server.send(request).await).await;
            transcript.result().cloned().map_err(Clone::clone)
        }
        Sdk => {
            let server = sdk(&dispatcher).await;
            server.run(&synced_id(host, id), &event, 4).await.result
        }
    }
}

#[tokio::test]
async fn a_step_that_fails_for_good_leaves_a_letter_only_if_the_handler_does_not_recover() {
    for host in [AtEndpoint, Sdk] {
        let kept = Kept::default();
        let builder = || all().dead_letters(kept.clone());
        let result = run(host, builder(), "recovers", event("shop-checkout")).await;
        assert_eq!(result.unwrap(), "it is closed", "{host:?}");
        kept.none();

        let error = run(host, builder(), "gives-up", event("shop-checkout")).await.unwrap_err();
        assert!(error.to_string().contains("it is closed"), "{host:?}: {error}");
        let letter = kept.one();
        assert_eq!(letter.handler_id, "gives-up");
        assert!(letter.error.to_string().contains("it is closed"), "{host:?}: {}", letter.error);
        let steps: Vec<_> = letter
            .steps
            .iter()
            .map(|step| (step.name.as_deref().unwrap(), step.output.get()))
            .collect();
        assert_eq!(steps, [("item", "0"), ("item:1", "1")], "{host:?}");
        for step in &letter.steps {
            let hash = sha1_smol::Sha1::from(step.name.as_deref().unwrap()).digest().to_string();
            assert_eq!(step.step_id, hash, "{host:?}");
        }
        // What was completed there need not run here.
        let seen = Seen::default();
        let dispatcher = self::builder().state(seen.clone()).register(handlers![opened]);
        let report = dispatcher.build().unwrap().retry(&letter).await.unwrap();
        assert!(report.is_ok(), "{host:?} {report:?}");
        assert_eq!(seen.take(), ["second"], "{host:?}");
    }
}

/// The same handler in a later version of the program.
#[on_failure(function = "checkout", id = "gives-up")]
async fn opened(step: Step, State(seen): State<Seen>) -> Outcome {
    for what in ["item", "item", "second"] {
        step.run(what, async || {
            seen.note(what);
            Ok::<_, HandlerError>(0)
        })
        .await?;
    }
    Ok(())
}

#[on_failure(function = "sell", step = "reserve-stock")]
async fn release(_: StepOutput<String>) -> Result<(), NonRetriable> {
    Err(NonRetriable::new("no shelf"))
}

#[on_failure(function = "sell", step = "charge-card")]
async fn refund(_: StepOutput<u32>, step: Step) -> Outcome {
    step.run("ask", async || Ok::<_, HandlerError>("asked".to_owned())).await?;
    Err(NonRetriable::new("no such card").into())
}

#[on_failure(function = "sell", step = "pack")]
async fn unpack(_: StepOutput<()>) {}

/// The trace of what had completed, for both hosts.
struct Known;

impl inngest_failure::TraceSource for Known {
    fn trace<'a>(
        &'a self,
        run_id: &'a str,
    ) -> BoxFuture<'a, Result<inngest_failure::RunTrace, inngest_failure::TraceError>> {
        let span = |(i, (id, output)): (usize, (&str, Value))| {
            let hash = sha1_smol::Sha1::from(id).digest().to_string();
            let time = format!("2026-11-22T21:00:0{i}.000Z");
            json!({ "name": id, "stepId": hash, "status": "COMPLETED", "output": { "data": output },
                "startedAt": time, "endedAt": time })
        };
        let steps =
            [("reserve-stock", json!("r-1")), ("charge-card", json!(1)), ("pack", json!(null))];
        let children: Vec<Value> = steps.into_iter().enumerate().map(span).collect();
        let root = json!({ "name": "Run", "status": "FAILED", "children": children });
        let answer = json!({ "data": { "runId": run_id, "rootSpan": root } }).to_string();
        Box::pin(async move { answer.parse().map_err(inngest_failure::TraceError::other) })
    }
}

#[tokio::test]
async fn each_undo_that_has_failed_leaves_its_own_letter() {
    for host in [AtEndpoint, Sdk] {
        let kept = Kept::default();
        let undos = || builder().register(handlers![release, refund, unpack]).trace_source(Known);
        let event = || failure("shop-sell").error("no").build();
        let id = "shop-sell-rollback";
        let without = run(host, undos(), id, event()).await.unwrap_err();
        let with = run(host, undos().dead_letters(kept.clone()), id, event()).await.unwrap_err();
        assert_eq!(with, without, "{host:?}");
        let letters = kept.take();
        let made: Vec<_> = letters
            .iter()
            .map(|letter| {
                (letter.handler_id.as_str(), letter.error.message.as_str(), letter.attempts)
            })
            .collect();
        let expected = [
            ("shop-sell-rollback/charge-card", "no such card", None),
            ("shop-sell-rollback/reserve-stock", "no shelf", None),
        ];
        assert_eq!(made, expected, "{host:?}");
        let steps = |letter: &DeadLetter| -> Vec<String> {
            letter.steps.iter().map(|step| step.output.to_string()).collect()
        };
        assert_eq!(steps(&letters[0])[1..], [r#""asked""#], "{host:?}");
        // The server does not say whose a step is that was not come to again.
        assert_eq!(steps(&letters[1]).len(), if matches!(host, Sdk) { 1 } else { 2 });

        // What the undo had completed there is not done again here.
        let seen = Seen::default();
        let undos = builder().register(handlers![refund_better]).state(seen.clone());
        let dispatcher = undos.trace_source(Known).build().unwrap();
        let report = dispatcher.retry(&letters[0]).await.unwrap();
        assert_eq!(report.runs[0].result.as_ref().unwrap(), "asked", "{host:?}");
        assert_eq!(seen.take(), ["refund"], "{host:?}");
    }
}

/// The same undo in a later version of the program.
#[on_failure(function = "sell", step = "charge-card")]
async fn refund_better(
    _: StepOutput<u32>,
    step: Step,
    State(seen): State<Seen>,
) -> Outcome<String> {
    let asked = step.run("ask", async || {
        seen.note("ask");
        Ok::<_, HandlerError>("asked again".to_owned())
    });
    let asked = asked.await?;
    step.run("refund", async || {
        seen.note("refund");
        Ok::<_, HandlerError>(())
    })
    .await?;
    Ok(asked)
}

#[tokio::test]
async fn a_call_that_is_made_twice_leaves_one_letter() {
    for host in [AtEndpoint, Sdk] {
        let file = TestFile::new();
        let letters = JsonLines::open(&file.0).unwrap();
        for _ in 0..2 {
            answer(host, all().dead_letters(letters.clone()), "final").await;
        }
        assert_eq!(std::fs::read_to_string(&file.0).unwrap().lines().count(), 2);
        let read: Vec<DeadLetter> = letters.letters().unwrap().map(Result::unwrap).collect();
        assert_eq!(read.len(), 1, "{host:?}");
        assert_eq!(read[0].key(), ("final", event("shop-checkout").id()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_changes_no_answer() {
    for host in [AtEndpoint, Sdk] {
        let without = answer(host, all(), "final").await;
        for sink in Broken::ALL {
            let (log, _guard) = Log::start(tracing::Level::ERROR);
            let with = answer(host, all().dead_letters(sink), "final").await;
            assert_eq!(with, without, "{host:?} {sink:?}");
            let letters = logged(&log.text());
            let [(reason, letter)] = letters.as_slice() else { panic!("{sink:?}: {}", log.text()) };
            assert!(reason.starts_with(sink.reason()), "{host:?} {sink:?}: {reason}");
            assert_eq!(letter.error.message, "no such card");
            assert_eq!(letter.event.parse::<Value>().unwrap().event.data, json!({ "id": "o1" }));
        }
        for undos in [true, false] {
            let (log, _guard) = Log::start(tracing::Level::ERROR);
            let (builder, id, event) = match undos {
                true => (
                    builder().register(handlers![release, refund, unpack]).trace_source(Known),
                    "shop-sell-rollback",
                    failure("shop-sell").error("no").build(),
                ),
                false => (all(), "gives-up", event("shop-checkout")),
            };
            let error = run(host, builder.dead_letters(Broken::Hangs), id, event).await;
            assert!(error.is_err(), "{host:?}");
            let letters = logged(&log.text());
            assert_eq!(letters.len(), if undos { 2 } else { 1 }, "{host:?}: {}", log.text());
        }
    }
}

/// A sink that asks whether the answer is there already.
struct Waits(Arc<tokio::sync::Semaphore>);

impl DeadLetters for Waits {
    fn put<'a>(&'a self, _: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(async {
            self.0.acquire().await?.forget();
            Ok(())
        })
    }
}

#[tokio::test]
async fn the_letter_is_there_before_the_call_is_answered() {
    for host in [AtEndpoint, Sdk] {
        let let_in = Arc::new(tokio::sync::Semaphore::new(0));
        let sink = Waits(Arc::clone(&let_in));
        let mut answer = Box::pin(answer(host, all().dead_letters(sink), "final"));
        let early = tokio::time::timeout(Duration::from_millis(100), &mut answer).await;
        assert!(early.is_err(), "{host:?}");
        let_in.add_permits(1);
        assert_eq!(answer.await.status, 400);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_letter_in_the_log() {
    let (log, _guard) = Log::start(tracing::Level::ERROR);
    let dispatcher = all().dead_letters(Broken::Hangs).build().unwrap();
    let body = sdk_server::body(&event("shop-checkout"), &Call::default());
    let request = http::call(&synced_id(AtEndpoint, "final"), body).map(Full::new);
    let answer = endpoint(dispatcher).oneshot(request);
    assert!(tokio::time::timeout(Duration::from_millis(50), answer).await.is_err());
    let letters = logged(&log.text());
    assert_eq!(letters[0].0, "it was dropped with its dispatch while it was put");
    assert_eq!(letters[0].1.handler_id, "final");
}

#[tokio::test]
async fn what_is_no_call_of_a_handler_leaves_no_letter() {
    let kept = Kept::default();
    let dispatcher = all().dead_letters(kept.clone()).dead_letter_unhandled().build().unwrap();
    let endpoint = endpoint(dispatcher);
    let body = sdk_server::body(&event("shop-checkout"), &Call::default());
    for (function, body, status) in [
        ("letters-final", body.replace("inngest/function.failed", "shop/order.placed"), 400),
        ("letters-final", "{".to_owned(), 400),
        ("letters-unknown", body, 500),
    ] {
        let request = http::call(function, body).map(Full::new);
        let response = endpoint.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        kept.none();
    }
}

/// More attempts than there can be.
#[tokio::test]
async fn no_number_of_attempts_is_too_large() {
    let kept = Kept::default();
    let dispatcher = all().dead_letters(kept.clone()).build().unwrap();
    let call = Call { attempt: u32::MAX, ..Call::default() };
    let body = sdk_server::body(&event("shop-checkout"), &call);
    let request = http::call(&synced_id(AtEndpoint, "final"), body).map(Full::new);
    let response = endpoint(dispatcher).oneshot(request).await.unwrap();
    assert_eq!(response.status().as_u16(), 400);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("no such card"));
    assert_eq!(kept.one().attempts, Some(u32::MAX));
}
