//! Steps, carried by the SDK's step tool.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use inngest::{function::ServableFn, handler::Handler, result::Error};
use inngest_failure::{
    Dispatcher, Event, FailureEvent, HandlerError, Invoke, RunContext, State, Step, StepError,
    Wait, handlers, on_failure, sdk, testing::failure,
};
use serde_json::{Value, json};
use tests::{Log, http::Api};

use crate::{
    Outcome, Seen, builder, client, event, open, serve,
    server::{Answer, Call, Run, Server, hash},
};

const FUNCTION: &str = "shop-checkout-failure";

/// A call with these memoised steps, by their ids' first uses.
fn memos<const N: usize>(steps: [(&str, Value); N]) -> Call {
    let steps: HashMap<String, Value> =
        steps.into_iter().map(|(id, memo)| (hash(id, 1), memo)).collect();
    Call { steps, ..Call::default() }
}

fn data(value: impl serde::Serialize) -> Value {
    json!({ "data": value })
}

/// A step that ran, as the SDK reports it.
fn ran(id: &str, number: u32, value: impl serde::Serialize) -> Value {
    let id_hash = hash(id, number);
    json!({ "op": "StepRun", "id": id_hash, "name": id, "displayName": id, "data": value, "opts": {} })
}

fn found(op: &str, id: &str, opts: Value) -> Value {
    let id_hash = hash(id, 1);
    json!({ "op": op, "id": id_hash, "name": id, "displayName": id, "data": null, "opts": opts })
}

#[track_caller]
fn assert_answer(answer: &Answer, status: u16, body: Value) {
    assert_eq!((answer.status, &answer.body), (status, &body), "{answer:?}");
}

#[on_failure(function = "checkout", retries = 2)]
async fn undo(step: Step, State(seen): State<Seen>) -> Outcome<String> {
    let refund = step
        .run("refund", async || {
            seen.note("refund");
            Ok::<_, HandlerError>("re_1".to_owned())
        })
        .await?;
    let mut units = 0;
    for shelf in [3, 4] {
        units += step
            .run("restock", async || {
                seen.note(format!("restock {shelf}"));
                Ok::<u32, HandlerError>(shelf)
            })
            .await?;
    }
    Ok(format!("{refund}, {units}"))
}

#[tokio::test]
async fn a_step_runs_once_and_is_memoised_over_the_calls() {
    let seen = Seen::default();
    let server = serve(builder().state(seen.clone()).register(handlers![undo])).await;
    let mut call = Call::default();
    for (operation, ran_now) in [
        (ran("refund", 1, "re_1"), "refund"),
        (ran("restock", 1, 3), "restock 3"),
        (ran("restock", 2, 4), "restock 4"),
    ] {
        let answer = server.call(FUNCTION, &event(), &call).await;
        assert_answer(&answer, 206, json!([operation]));
        assert_eq!(seen.take(), [ran_now]);
        let id = operation["id"].as_str().unwrap().to_owned();
        call.steps.insert(id, data(&operation["data"]));
    }
    let answer = server.call(FUNCTION, &event(), &call).await;
    assert_answer(&answer, 200, json!("re_1, 7"));
    assert!(seen.take().is_empty());
}

#[on_failure(function = "checkout", id = "fails", retries = 2)]
async fn fails(step: Step, failure: inngest_failure::Failure, run: RunContext) -> Outcome<Value> {
    let how = failure.event.data["how"].as_str().unwrap_or_default().to_owned();
    let refund = async || -> Outcome<u32> {
        let error = std::io::Error::other("hung up");
        match how.as_str() {
            "plain" => Err(error)?,
            "twice" if run.attempt < 2 => Err(error)?,
            "later" => Err(HandlerError::retry_after(error, Duration::from_secs(90))),
            "final" => Err(HandlerError::non_retriable(error)),
            "panic" => panic!("no such shelf"),
            _ => Ok(run.attempt),
        }
    };
    match step.run("refund", refund).await {
        Err(error) if failure.event.data["recover"] == true => {
            let StepError { step_id, name, message, .. } = &error;
            let told = step.run("tell", async || Ok::<_, HandlerError>(message.clone())).await?;
            Ok(json!([step_id, name, told]))
        }
        result => Ok(json!(result?)),
    }
}

fn how(how: &str, recover: bool) -> FailureEvent {
    failure("shop-checkout").data(json!({ "how": how, "recover": recover })).build()
}

async fn run(how_it_fails: &str, recover: bool, layer: bool) -> Run {
    let dispatcher = builder().register(handlers![fails]).build().unwrap();
    let server = Server::start(crate::handler(&dispatcher), layer.then(open)).await;
    server.run("shop-fails", &how(how_it_fails, recover), 3).await
}

fn statuses(run: &Run) -> Vec<u16> {
    run.answers.iter().map(|answer| answer.status).collect()
}

#[tokio::test]
async fn a_failing_step_is_tried_again() {
    let run = run("twice", false, true).await;
    assert_eq!(run.result, Ok(json!(2)));
    assert_eq!(statuses(&run), [500, 500, 206, 200]);
    let Answer { no_retry, body, .. } = &run.answers[0];
    assert_eq!(
        (no_retry.as_str(), body),
        ("false", &json!({ "name": "Error", "message": "hung up" }))
    );
}

#[tokio::test]
async fn a_step_that_has_failed_for_good_comes_back_to_the_handler() {
    for (kind, name, message, calls) in [
        ("plain", "Error", "hung up", 3),
        ("final", "Error", "hung up", 1),
        ("panic", "Panic", "no such shelf", 3),
        ("later", "Error", "hung up", 3),
    ] {
        let run = run(kind, true, true).await;
        assert_eq!(run.result, Ok(json!(["refund", name, message])), "{kind}");
        assert_eq!(run.operations, ["refund", "tell"], "{kind}");
        assert_eq!(run.answers.len(), calls + 2, "{kind}: {:?}", run.answers);
        let envelope = &run.answers[calls - 1].body[0];
        assert_eq!(envelope["op"], "StepRun");
        let error = &envelope["data"]["inngest-failure"]["error"];
        assert_eq!((&error["name"], &error["message"]), (&json!(name), &json!(message)), "{kind}");
        let wait = if kind == "later" { "90" } else { "" };
        for answer in &run.answers[..calls - 1] {
            assert_eq!((answer.status, answer.retry_after.as_str()), (500, wait), "{kind}");
        }
    }
}

#[tokio::test]
async fn a_step_s_failure_that_is_not_recovered_from_is_final() {
    for layer in [true, false] {
        let run = run("final", false, layer).await;
        match layer {
            true => {
                assert_eq!(statuses(&run), [206, 400]);
                let error = run.result.unwrap_err();
                assert_eq!(error, json!({ "name": "Error", "message": "hung up" }));
                assert_eq!(run.answers[1].no_retry, "true");
            }
            // What the SDK can say, so that it is tried again, without running the step again.
            false => {
                assert_eq!(statuses(&run), [206, 500, 500, 500]);
                assert_eq!(run.result, Err(json!("no retry error")));
            }
        }
    }
}

#[tokio::test]
async fn without_the_layer_a_failing_step_is_the_tool_s() {
    let run = run("plain", true, false).await;
    assert_eq!(statuses(&run), [500, 500, 206, 206, 200]);
    assert_eq!(
        run.answers[0].body,
        json!({ "name": "Step failed", "message": "hung up", "stack": null })
    );
    let run = self::run("later", true, false).await;
    assert_eq!(run.answers[0].retry_after, "90");
    assert_eq!(run.answers[0].body["message"], "hung up");
}

#[on_failure(function = "checkout")]
async fn joins(step: Step, State(seen): State<Seen>) -> Outcome<(u32, u32, u32)> {
    let note = |id: &'static str, value: u32| {
        let seen = seen.clone();
        async move || {
            seen.note(format!("{id} begins"));
            tokio::task::yield_now().await;
            seen.note(format!("{id} ends"));
            Ok::<_, HandlerError>(value)
        }
    };
    let later = async {
        step.sleep("night", Duration::from_secs(3600)).await?;
        step.run("b", note("b", 2)).await
    };
    let (a, b, c) = tokio::join!(step.run("a", note("a", 1)), later, step.run("c", note("c", 3)));
    Ok((a?, b?, c?))
}

#[tokio::test]
async fn of_several_new_steps_one_starts_in_a_call() {
    let seen = Seen::default();
    let server = serve(builder().state(seen.clone()).register(handlers![joins])).await;
    let run = server.run(FUNCTION, &event(), 4).await;
    assert_eq!(run.result, Ok(json!([1, 2, 3])));
    assert_eq!(run.operations, ["a", "night", "c", "b"]);
    let expected = ["a begins", "a ends", "c begins", "c ends", "b begins", "b ends"];
    assert_eq!(seen.take(), expected);
    for answer in &run.answers[..4] {
        assert_eq!(answer.body.as_array().unwrap().len(), 1);
    }
}

#[on_failure(function = "checkout")]
async fn drops(step: Step, State(seen): State<Seen>) -> Outcome<Vec<u32>> {
    let slow = step.run("x", async || {
        seen.note("slow");
        std::future::pending::<Outcome<u32>>().await
    });
    let other = step.run("x", async || Ok::<u32, HandlerError>(0));
    let third = step.run("x", async || {
        seen.note("third");
        Ok::<u32, HandlerError>(3)
    });
    // The first one runs, the second one waits for it, and both are given up.
    let soon = tokio::time::timeout(Duration::from_millis(20), async { tokio::join!(slow, other) });
    assert!(soon.await.is_err());
    Ok(vec![third.await?])
}

#[tokio::test]
async fn a_dropped_step_keeps_its_number() {
    let seen = Seen::default();
    let server = serve(builder().state(seen.clone()).register(handlers![drops])).await;
    let answer = server.call(FUNCTION, &event(), &Call::default()).await;
    assert_answer(&answer, 206, json!([ran("x", 3, 3)]));
    assert_eq!(seen.take(), ["slow", "third"]);
    let mut call = Call::default();
    call.steps.insert(hash("x", 3), data(3));
    let answer = server.call(FUNCTION, &event(), &call).await;
    assert_answer(&answer, 200, json!([3]));
    assert_eq!(seen.take(), ["slow"]);
}

#[on_failure(function = "checkout", timeout = "2s")]
async fn leaves_one(step: Step) -> Outcome<u32> {
    let mut sum = 0;
    let mut shelves: FuturesUnordered<_> = [1, 2, 3]
        .into_iter()
        .map(|shelf| {
            let step = &step;
            async move {
                step.run(&format!("shelf {shelf}"), async || {
                    tokio::task::yield_now().await;
                    Ok::<u32, HandlerError>(shelf)
                })
                .await
            }
        })
        .collect();
    while let Some(units) = shelves.next().await {
        sum += units?;
        // While this one is awaited, nobody polls the others.
        sum += step.run("note", async || Ok::<u32, HandlerError>(10)).await?;
    }
    Ok(sum)
}

#[tokio::test]
async fn a_step_that_nobody_awaits_holds_nothing_up() {
    let server = serve(builder().register(handlers![leaves_one])).await;
    let run = server.run(FUNCTION, &event(), 4).await;
    assert_eq!(run.result, Ok(json!(36)));
}

#[on_failure(function = "checkout")]
async fn waits(step: Step) -> Outcome<Value> {
    let an_hour = Duration::from_secs(3600);
    step.sleep("short", Duration::from_millis(1500)).await?;
    step.sleep("none", Duration::ZERO).await?;
    step.sleep_until("over", SystemTime::UNIX_EPOCH).await?;
    let wait = Wait::new("shop/approved", an_hour).matching("async.data.ok");
    let came = step.wait_for_event::<Value>("came", wait).await?;
    let not = step.wait_for_event::<Value>("not", Wait::new("shop/approved", an_hour)).await?;
    let refund = Invoke::new("pay-refund").data(json!({ "cents": 1 })).timeout(an_hour);
    let cents = step.invoke::<u32>("cents", refund).await?;
    let none = step.invoke::<Option<u32>>("none of it", Invoke::new("pay-none")).await?;
    let gone = step.invoke::<u32>("gone", Invoke::new("pay-gone")).await.unwrap_err();
    let came = came.map(|event| json!([event.id, event.name, event.data]));
    Ok(json!([came, not.is_none(), cents, none, gone.name, gone.message]))
}

#[tokio::test]
async fn what_the_server_does_is_reported_and_comes_back() {
    let server = serve(builder().register(handlers![waits])).await;
    let approved =
        json!({ "id": "e9", "name": "shop/approved", "data": { "ok": true }, "ts": 5, "user": {} });
    let mut call = Call::default();
    for (operation, memo) in [
        (found("Sleep", "short", json!({ "duration": "1s500ms" })), json!(null)),
        (found("Sleep", "none", json!({ "duration": "1ms" })), json!(null)),
        (found("Sleep", "over", json!({ "duration": "1ms" })), json!(null)),
        (
            found(
                "WaitForEvent",
                "came",
                json!({ "event": "shop/approved", "timeout": "1h", "if": "async.data.ok" }),
            ),
            approved,
        ),
        (
            found("WaitForEvent", "not", json!({ "event": "shop/approved", "timeout": "1h" })),
            json!(null),
        ),
        (
            found(
                "InvokeFunction",
                "cents",
                json!({ "function_id": "pay-refund", "payload": { "data": { "cents": 1 } }, "timeout": "1h" }),
            ),
            data(1250),
        ),
        (
            found(
                "InvokeFunction",
                "none of it",
                json!({ "function_id": "pay-none", "payload": { "data": {} } }),
            ),
            json!(null),
        ),
        (
            found(
                "InvokeFunction",
                "gone",
                json!({ "function_id": "pay-gone", "payload": { "data": {} } }),
            ),
            json!({ "error": { "name": "Gone", "message": "no such function" } }),
        ),
    ] {
        let answer = server.call(FUNCTION, &event(), &call).await;
        assert_answer(&answer, 206, json!([operation]));
        call.steps.insert(operation["id"].as_str().unwrap().to_owned(), memo);
    }
    let answer = server.call(FUNCTION, &event(), &call).await;
    let expected = json!([["e9", "shop/approved", { "ok": true }], true, 1250, null, "Gone", "no such function"]);
    assert_answer(&answer, 200, expected);
}

#[on_failure(function = "checkout")]
async fn sends(step: Step) -> Outcome<String> {
    let event = Event::new("shop/undone", json!({ "n": 1 }));
    match step.send_event("tell", event).await {
        Err(error) if error.name == "Error" => Ok(error.message),
        sent => Ok(sent?),
    }
}

#[tokio::test]
async fn events_are_sent_with_the_dispatcher_s_api() {
    let api = Api::start(&[(200, r#"{"ids":["e7"],"status":200}"#)]).await;
    let settings = inngest_failure::Api::builder().dev_server(api.origin()).build().unwrap();
    let server = serve(builder().api(settings).register(handlers![sends])).await;
    let run = server.run(FUNCTION, &event(), 4).await;
    assert_eq!(run.result, Ok(json!("e7")));
    assert_eq!(api.received().len(), 1);

    let server = serve(builder().register(handlers![sends])).await;
    let run = server.run(FUNCTION, &event(), 4).await;
    let expected =
        "step `tell` has no API to send events to; give the dispatcher's builder an `.api(..)`";
    assert_eq!(run.result, Ok(json!(expected)));
}

#[on_failure(function = "checkout", timeout = "30ms", retries = 1)]
async fn late(step: Step, failure: inngest_failure::Failure) -> Outcome<String> {
    if failure.event.data["how"] == "outside" {
        step.run("first", async || Ok::<_, HandlerError>(1)).await?;
        std::future::pending::<()>().await;
    }
    let slow = step.run("slow", async || std::future::pending::<Outcome>().await).await;
    Ok(slow.unwrap_err().to_string())
}

#[tokio::test]
async fn a_time_out_is_the_step_s_or_the_handler_s() {
    let server = serve(builder().register(handlers![late])).await;
    let run = server.run(FUNCTION, &how("inside", false), 2).await;
    let message = "the handler took longer than its `timeout` while the step ran";
    assert_eq!(run.result, Ok(json!(format!("step `slow` failed: {message}"))));
    assert_eq!(statuses(&run), [500, 206, 200]);
    assert_eq!(run.answers[0].body["name"], "TimedOut");

    let run = server.run(FUNCTION, &how("outside", false), 2).await;
    assert_eq!(statuses(&run), [206, 500, 500]);
    assert_eq!(run.result.unwrap_err()["name"], "TimedOut");
}

#[on_failure(function = "checkout", retries = 0)]
async fn panics(step: Step, State(seen): State<Seen>) -> Outcome {
    /// A handler that is dropped may do anything.
    struct OnDrop;

    impl Drop for OnDrop {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "dropped badly");
        }
    }

    let _bad = OnDrop;
    tokio::join!(step.sleep("night", Duration::from_secs(1)), async {
        step.run("a", async || Ok::<_, HandlerError>(1)).await.unwrap();
        seen.note("a is back");
        panic!("no such shelf");
    })
    .0?;
    Ok(())
}

#[tokio::test]
async fn an_interrupt_of_the_sdk_is_never_dropped() {
    let seen = Seen::default();
    let server = serve(builder().state(seen.clone()).register(handlers![panics])).await;
    // The handler is let go of, and panics in that.
    let answer = server.call(FUNCTION, &event(), &Call::default()).await;
    assert_answer(&answer, 206, json!([found("Sleep", "night", json!({ "duration": "1s" }))]));
    let answer = server.call(FUNCTION, &event(), &memos([("night", json!(null))])).await;
    assert_answer(&answer, 206, json!([ran("a", 1, 1)]));
    // It panics by itself.
    let both = memos([("night", json!(null)), ("a", data(1))]);
    let answer = server.call(FUNCTION, &event(), &both).await;
    assert_eq!((answer.status, &answer.body["name"]), (500, &json!("Panic")), "{answer:?}");
    assert_eq!(seen.take(), ["a is back"]);
    assert_eq!(server.call(FUNCTION, &event(), &Call::default()).await.status, 206);
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_nothing_behind() {
    #[on_failure(function = "checkout", id = "hangs")]
    async fn hangs(step: Step) -> Outcome {
        let forever = async || std::future::pending::<Outcome>().await;
        tokio::join!(step.run("a", forever), step.sleep("b", Duration::from_secs(1))).0?;
        Ok(())
    }

    let (log, _guard) = Log::start(tracing::Level::WARN);
    let server = serve(builder().register(handlers![hangs])).await;
    let (event, call) = (event(), Call::default());
    let calling = server.call("shop-hangs", &event, &call);
    assert!(tokio::time::timeout(Duration::from_millis(50), calling).await.is_err());
    tests::http::until("the handler is dropped", || {
        log.text().contains("dropped with its dispatch")
    })
    .await;
    assert!(!log.text().contains("acknowledged"));
}

#[on_failure(function = "checkout")]
async fn envelopes(step: Step) -> Outcome<Value> {
    let value = json!({ "inngest-failure": { "error": { "message": "not one" } } });
    Ok(step.run("value", async || Ok::<_, HandlerError>(value.clone())).await?)
}

#[tokio::test]
async fn a_value_that_looks_like_a_failure_is_none() {
    let server = serve(builder().register(handlers![envelopes])).await;
    let run = server.run(FUNCTION, &event(), 4).await;
    assert_eq!(run.result, Ok(json!({ "inngest-failure": { "error": { "message": "not one" } } })));
}

#[tokio::test]
async fn what_is_remembered_and_makes_no_sense_is_an_error() {
    let server = serve(builder().state(Seen::default()).register(handlers![undo])).await;
    for (memo, message) in [
        (json!({ "error": { "name": "Lost", "message": "lost it" } }), "lost it"),
        (json!("text"), "unknown variant `text`, expected `data` or `error`"),
        (data(7), "what step `refund` has returned does not fit `alloc::string::String`"),
    ] {
        let answer = server.call(FUNCTION, &event(), &memos([("refund", memo)])).await;
        assert_eq!((answer.status, answer.no_retry.as_str()), (400, "true"), "{answer:?}");
        let told = answer.body["message"].as_str().unwrap();
        assert!(told.contains(message), "{told}");
    }
}

/// The error type of an app that has one of its own.
#[derive(Debug)]
struct AppError(Error);

impl From<Error> for AppError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<AppError> for Error {
    fn from(error: AppError) -> Self {
        error.0
    }
}

#[tokio::test]
async fn the_server_may_have_an_error_type_of_its_own() {
    let dispatcher: Dispatcher =
        builder().state(Seen::default()).register(handlers![undo]).build().unwrap();
    let client = client();
    let functions: Vec<ServableFn<Value, AppError>> = sdk::servable_fns(&dispatcher, &client);
    let mut handler = Handler::new(&client);
    handler.register_fns(functions);
    let server = Server::start(handler, Some(open())).await;
    assert_eq!(server.run(FUNCTION, &event(), 3).await.result, Ok(json!("re_1, 7")));
}

#[on_failure(function = "checkout", concurrency = 1)]
async fn one_at_a_time(State(seen): State<Seen>) {
    seen.note("in");
    tokio::time::sleep(Duration::from_millis(30)).await;
    seen.note("out");
}

#[on_failure(function = "checkout", id = "rarely", rate_limit = "1/1h")]
async fn rarely(State(seen): State<Seen>) -> Outcome {
    seen.note("ran");
    Err("and failed")?
}

#[tokio::test]
async fn limits_are_kept_in_process() {
    let seen = Seen::default();
    let registered = builder().state(seen.clone()).register(handlers![one_at_a_time, rarely]);
    let server = serve(registered).await;
    let (event, call) = (event(), Call::default());
    let call_it = || server.call(FUNCTION, &event, &call);
    tokio::join!(call_it(), call_it(), call_it());
    assert_eq!(seen.take(), ["in", "out", "in", "out", "in", "out"]);

    assert_eq!(server.call("shop-rarely", &event, &call).await.status, 500);
    // A retry is no run of its own.
    let again = Call { attempt: 1, ..Call::default() };
    assert_eq!(server.call("shop-rarely", &event, &again).await.status, 500);
    let answer = server.call("shop-rarely", &event, &call).await;
    assert_answer(&answer, 200, json!("did not run: its `rate_limit` is used up"));
    assert_eq!(seen.take(), ["ran", "ran"]);
}

#[on_failure(function = "checkout", retries = 0)]
async fn busy(
    step: Step,
    failure: inngest_failure::Failure,
    State(seen): State<Seen>,
) -> Outcome<u64> {
    let count = failure.event.data["count"].as_u64().unwrap_or_default();
    let drain = async || {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        (0..count).for_each(|i| sender.send(i).unwrap());
        for _ in 0..count {
            receiver.recv().await;
        }
        seen.note("drained");
        Ok::<_, HandlerError>(count)
    };
    Ok(step.run("drain", drain).await?)
}

/// Tokio lets a task do 128 things before it is to give way to others.
#[tokio::test]
async fn a_step_that_uses_up_its_task_s_budget_is_remembered() {
    let seen = Seen::default();
    let server = serve(builder().state(seen.clone()).register(handlers![busy])).await;
    for count in 120..140_u64 {
        let event = failure("shop-checkout").data(json!({ "count": count })).build();
        let run = server.run(FUNCTION, &event, 1).await;
        assert_eq!((run.result, seen.take().len()), (Ok(json!(count)), 1), "{count}");
    }
}

#[on_failure(function = "checkout", id = "deep")]
async fn deep(step: Step) -> Outcome<String> {
    let nested = async || Ok::<_, HandlerError>((0..200).fold(json!(1), |inner, _| json!([inner])));
    Ok(step.run("nested", nested).await.unwrap_err().to_string())
}

#[tokio::test]
async fn a_value_that_can_t_be_handed_over_is_an_error() {
    let server = serve(builder().register(handlers![deep])).await;
    let run = server.run("shop-deep", &event(), 4).await;
    let message = run.result.unwrap();
    let expected =
        "what step `nested` returned can't be handed to the SDK as JSON: recursion limit exceeded";
    assert!(message.as_str().unwrap().starts_with(expected), "{message}");
}

#[on_failure(function = "checkout")]
async fn holds(step: Step, State(seen): State<Seen>) -> Outcome<(u32, u32, u32)> {
    let until = tokio::time::Instant::now() + Duration::from_millis(60);
    let note = |id: &'static str, value: u32| {
        let seen = seen.clone();
        async move || {
            seen.note(format!("{id} begins"));
            tokio::time::sleep_until(until).await;
            seen.note(format!("{id} ends"));
            Ok::<_, HandlerError>(value)
        }
    };
    let mut a = Box::pin(step.run("a", note("a", 1)));
    // It is left for another one, and awaited again beside that.
    let first = tokio::time::timeout(Duration::from_millis(10), &mut a).await;
    let (a, b) = tokio::join!(
        async {
            match first {
                Ok(value) => value,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    a.await
                }
            }
        },
        step.run("b", note("b", 2)),
    );
    let c = step.run("c", note("c", 3)).await;
    Ok((a?, b?, c?))
}

#[tokio::test]
async fn a_call_reports_one_step_whatever_was_held() {
    let seen = Seen::default();
    let server = serve(builder().state(seen.clone()).register(handlers![holds])).await;
    let run = server.run(FUNCTION, &event(), 4).await;
    assert_eq!(run.result, Ok(json!([1, 2, 3])));
    for answer in &run.answers[..run.answers.len() - 1] {
        assert_eq!(answer.body.as_array().unwrap().len(), 1, "{:?}", run.answers);
    }
    let seen = seen.take();
    let ends = seen.iter().filter(|what| what.ends_with("ends")).count();
    assert_eq!(ends, 3, "{seen:?}");
}

#[on_failure(function = "checkout", id = "exact")]
async fn exact(step: Step) -> Outcome<Vec<String>> {
    let mut messages = Vec::new();
    for (id, text) in EXACT {
        let fails = async || Err::<(), _>(HandlerError::non_retriable(text));
        messages.push(step.run(id, fails).await.unwrap_err().message);
    }
    Ok(messages)
}

const EXACT: [(&str, &str); 3] =
    [("a", ""), ("b", "\"quoted\""), ("c", r#"{"name":"Inner","message":"inner"}"#)];

#[tokio::test]
async fn a_step_s_error_comes_back_as_it_was() {
    let expected = json!(EXACT.map(|(_, text)| text));
    let server = serve(builder().register(handlers![exact])).await;
    assert_eq!(server.run("shop-exact", &event(), 4).await.result, Ok(expected.clone()));
    let dispatcher = builder().register(handlers![exact]).build().unwrap();
    let endpoint = inngest_failure::testing::TestRun::new(&dispatcher, "exact", event());
    assert_eq!(endpoint.run().await.assert_succeeded(), &expected);
}

#[on_failure(function = "checkout", id = "soon")]
async fn soon(step: Step) -> Outcome {
    let half = Duration::from_millis(500);
    let fails = async || Err::<(), _>(HandlerError::retry_after("busy", half));
    Ok(step.run("x", fails).await?)
}

#[tokio::test]
async fn a_step_is_not_tried_again_too_early() {
    let dispatcher = builder().register(handlers![soon]).build().unwrap();
    for layer in [true, false] {
        let server = Server::start(crate::handler(&dispatcher), layer.then(open)).await;
        let answer = server.call("shop-soon", &event(), &Call::default()).await;
        assert_eq!((answer.status, answer.retry_after.as_str()), (500, "1"));
    }
}
