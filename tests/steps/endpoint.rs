//! One call at a time: what an endpoint answers, for what the server remembers and asks for.

use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream::FuturesUnordered};
use inngest_failure::{
    Event, HandlerError, Invoke, ResultExt, RunContext, State, Step, Wait, handlers, on_failure,
};
use serde_json::{Value, json};

use crate::{Call, Seen, builder, endpoint, hash, memos, op, ops};

type Outcome<T = ()> = Result<T, HandlerError>;

async fn ok(seen: &Seen, step: &str) -> Outcome<String> {
    seen.note(step);
    Ok(format!("{step}!"))
}

#[on_failure(function = "sequence")]
async fn sequence(step: Step, State(seen): State<Seen>) -> Outcome<String> {
    let a = step.run("a", || ok(&seen, "a")).await?;
    seen.note("between");
    let b = step.run("b", || ok(&seen, "b")).await?;
    Ok(a + &b)
}

#[tokio::test]
async fn one_new_step_runs_at_once_and_the_handler_goes_no_further() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![sequence]));
    let (status, no_retry, body) = Call::default().of(&endpoint, "shop-sequence-failure").await;
    assert_eq!((status, no_retry.as_str()), (206, ""));
    assert_eq!(
        body,
        json!([{ "id": hash("a"), "op": "StepRun", "name": "a", "displayName": "a", "data": "a!" }])
    );
    assert_eq!(seen.take(), ["a"]);

    let a = ("a", json!({ "data": "a!" }));
    let (_, _, body) = memos(std::slice::from_ref(&a)).of(&endpoint, "shop-sequence-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "b")]);
    assert_eq!(seen.take(), ["between", "b"]);

    let both = memos(&[a, ("b", json!({ "data": "other" }))]);
    let (status, _, body) = both.of(&endpoint, "shop-sequence-failure").await;
    assert_eq!((status, body), (200, json!("a!other")));
    assert_eq!(seen.take(), ["between"]);
}

#[tokio::test]
async fn without_immediate_execution_one_step_is_planned_and_runs_when_it_is_asked_for() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![sequence]));
    let (status, _, body) = Call::default().planned().of(&endpoint, "shop-sequence-failure").await;
    assert_eq!((status, ops(&body)), (206, vec![op("StepPlanned", "a")]));
    assert_eq!(seen.take(), [""; 0]);

    let asked = Call::default().planned().step("a");
    let (_, _, body) = asked.of(&endpoint, "shop-sequence-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "a")]);
    assert_eq!(seen.take(), ["a"]);
}

#[tokio::test]
async fn a_step_that_is_remembered_is_not_run_again_if_it_is_asked_for_again() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![sequence]));
    let again = memos(&[("a", json!({ "data": "a!" }))]).step("a");
    let (_, _, body) = again.of(&endpoint, "shop-sequence-failure").await;
    assert_eq!(ops(&body), [op("StepPlanned", "b")]);
    assert_eq!(seen.take(), ["between"]);
}

#[on_failure(function = "repeated")]
async fn repeated(step: Step) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for id in ["a", "a:1", "a", "a", "a:1"] {
        all.push(step.run(id, async || Ok::<_, HandlerError>(id.to_owned())).await?);
    }
    Ok(all)
}

#[tokio::test]
async fn a_repeated_id_gets_a_number_that_nobody_has_used() {
    let endpoint = endpoint(builder().register(handlers![repeated]));
    let mut known: Vec<(&str, Value)> = Vec::new();
    for key in ["a", "a:1", "a:2", "a:3", "a:1:1"] {
        let (_, _, body) = memos(&known).of(&endpoint, "shop-repeated-failure").await;
        assert_eq!(body[0]["id"], hash(key), "{key}: {body}");
        known.push((key, json!({ "data": key })));
    }
    let (_, _, body) = memos(&known).of(&endpoint, "shop-repeated-failure").await;
    assert_eq!(body, json!(["a", "a:1", "a:2", "a:3", "a:1:1"]));
}

#[on_failure(function = "parallel")]
async fn parallel(step: Step, State(seen): State<Seen>) -> Outcome<String> {
    let chain = async {
        let b = step.run("b", || ok(&seen, "b")).await?;
        step.run("b2", || ok(&seen, "b2")).await.map(|b2| b + &b2)
    };
    let (a, b, (), c) = tokio::join!(
        step.run("a", || ok(&seen, "a")),
        chain,
        async { step.sleep("nap", Duration::from_secs(90)).await.unwrap() },
        step.run("c", || ok(&seen, "c")),
    );
    Ok(a? + &b? + &c?)
}

#[tokio::test]
async fn several_new_steps_are_reported_and_each_runs_only_when_it_is_asked_for() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![parallel]));
    let (status, _, body) = Call::default().of(&endpoint, "shop-parallel-failure").await;
    assert_eq!(status, 206);
    let expected = [
        op("StepPlanned", "a"),
        op("StepPlanned", "b"),
        op("Sleep", "nap"),
        op("StepPlanned", "c"),
    ];
    assert_eq!(ops(&body), expected);
    assert_eq!(body[2]["opts"], json!({ "duration": "1m30s" }));
    assert_eq!(seen.take(), [""; 0]);

    for id in ["a", "b", "c"] {
        let (_, _, body) =
            Call::default().planned().step(id).of(&endpoint, "shop-parallel-failure").await;
        assert_eq!(ops(&body), [op("StepRun", id)]);
        assert_eq!(seen.take(), [id]);
    }
    // A sleep that is asked for is reported once more, alone.
    let (_, _, body) =
        Call::default().planned().step("nap").of(&endpoint, "shop-parallel-failure").await;
    assert_eq!(ops(&body), [op("Sleep", "nap")]);

    // What follows in one branch is found beside what is still new in the others.
    let some = memos(&[("b", json!({ "data": "b!" })), ("nap", Value::Null)]).planned();
    let (_, _, body) = some.of(&endpoint, "shop-parallel-failure").await;
    let expected = [op("StepPlanned", "a"), op("StepPlanned", "c"), op("StepPlanned", "b2")];
    assert_eq!(ops(&body), expected);
    assert_eq!(seen.take(), [""; 0]);
}

#[on_failure(function = "order")]
async fn order(step: Step) -> Outcome<Vec<String>> {
    let mut steps = FuturesUnordered::new();
    for id in ["a", "b", "c"] {
        let step = &step;
        steps
            .push(async move { step.run(id, async || Ok::<_, HandlerError>(id.to_owned())).await });
    }
    let mut all = Vec::new();
    while let Some(next) = steps.next().await {
        all.push(next?);
    }
    Ok(all)
}

#[tokio::test]
async fn remembered_steps_complete_in_the_order_in_which_they_did() {
    let endpoint = endpoint(builder().register(handlers![order]));
    let data = |id: &str| json!({ "data": id });
    for order in [["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]] {
        let known = order.map(|id| (id, data(id)));
        let (_, _, body) = memos(&known).of(&endpoint, "shop-order-failure").await;
        assert_eq!(body, json!(order));
    }
    // What the server does not list follows, in the order of the handler.
    let mut call = memos(&["c", "b", "a"].map(|id| (id, data(id))));
    call.stack.truncate(1);
    let (_, _, body) = call.of(&endpoint, "shop-order-failure").await;
    assert_eq!(body, json!(["c", "a", "b"]));
    // What is not met stands in nobody's way.
    let mut call = memos(&["c", "b", "a"].map(|id| (id, data(id))));
    call.stack.insert(0, hash("gone"));
    let (_, _, body) = call.of(&endpoint, "shop-order-failure").await;
    assert_eq!(body, json!(["c", "b", "a"]));
}

#[on_failure(function = "fails", retries = 3)]
async fn fails(step: Step, run: RunContext) -> Outcome<String> {
    let attempt = run.attempt;
    let refund: Result<(), _> = step
        .run("refund", async || match attempt {
            0 => Err(HandlerError::from("busy")),
            1 => Err(HandlerError::retry_after("slow down", Duration::from_millis(1500))),
            2 => panic!("no such card"),
            _ => Err("declined".non_retriable_error()),
        })
        .await;
    match refund {
        Ok(()) => Ok("refunded".to_owned()),
        Err(error) if error.message == "unrecoverable" => Err(error.into()),
        Err(error) => {
            let told =
                step.run("tell", async || Ok::<_, HandlerError>(error.message.clone())).await?;
            Ok(format!("{} {} {told}", error.step_id, error.name))
        }
    }
}

trait NonRetriableText {
    fn non_retriable_error(self) -> HandlerError;
}

impl NonRetriableText for &str {
    fn non_retriable_error(self) -> HandlerError {
        Err::<(), _>(self).non_retriable().unwrap_err().into()
    }
}

#[tokio::test]
async fn a_step_that_fails_is_reported_with_its_verdict() {
    let endpoint = endpoint(builder().register(handlers![fails]));
    let call = |attempt| Call::default().attempt(attempt).request("shop-fails-failure");

    let response = crate::exchange(&endpoint, call(0)).await;
    let body = tests::http::json(&response);
    assert_eq!(ops(&body), [op("StepError", "refund")]);
    assert_eq!(body[0]["error"], json!({ "name": "Error", "message": "busy" }));
    assert_eq!(tests::http::header(&response, "x-inngest-no-retry"), "false");
    assert_eq!(tests::http::header(&response, "retry-after"), "");

    let response = crate::exchange(&endpoint, call(1)).await;
    assert_eq!(ops(&tests::http::json(&response)), [op("StepError", "refund")]);
    assert_eq!(tests::http::header(&response, "retry-after"), "2");

    let response = crate::exchange(&endpoint, call(2)).await;
    let body = tests::http::json(&response);
    assert_eq!(ops(&body), [op("StepError", "refund")]);
    assert_eq!(body[0]["error"]["name"], "Panic");
    assert_eq!(body[0]["error"]["message"], "no such card");
    let stack = body[0]["error"]["stack"].as_str().unwrap();
    assert!(stack.starts_with("panicked at tests/steps/endpoint.rs:"), "{stack}");

    let response = crate::exchange(&endpoint, call(3)).await;
    assert_eq!(ops(&tests::http::json(&response)), [op("StepFailed", "refund")]);
    assert_eq!(tests::http::header(&response, "x-inngest-no-retry"), "true");
}

#[tokio::test]
async fn the_handler_may_recover_from_a_remembered_error_and_has_failed_for_good_if_it_does_not() {
    let endpoint = endpoint(builder().register(handlers![fails]));
    let known = |message: &str| {
        memos(&[(
            "refund",
            json!({ "error": { "name": "CardError", "message": message, "stack": "at pay" } }),
        )])
    };
    let (_, _, body) = known("declined").of(&endpoint, "shop-fails-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "tell")]);
    let mut both = known("declined");
    both.steps[hash("tell")] = json!({ "data": "told" });
    let (status, _, body) = both.of(&endpoint, "shop-fails-failure").await;
    assert_eq!((status, body), (200, json!("refund CardError told")));

    let (status, no_retry, body) = known("unrecoverable").of(&endpoint, "shop-fails-failure").await;
    assert_eq!((status, no_retry.as_str()), (400, "true"));
    assert_eq!(body, json!({ "name": "CardError", "message": "unrecoverable", "stack": "at pay" }));
}

#[on_failure(function = "wrapped")]
async fn wrapped(step: Step) -> Result<(), anyhow::Error> {
    use anyhow::Context;
    step.run("refund", async || Err::<(), _>("declined")).await.context("the order stands")?;
    Ok(())
}

#[tokio::test]
async fn a_steps_error_under_another_one_is_still_final_and_keeps_its_name_and_stack() {
    let endpoint = endpoint(builder().register(handlers![wrapped]));
    let error = json!({
        "name": "CardError", "message": "declined", "stack": "at pay", "cause": { "message": "stolen" }
    });
    let call = memos(&[("refund", json!({ "error": error }))]);
    let (status, no_retry, body) = call.of(&endpoint, "shop-wrapped-failure").await;
    assert_eq!((status, no_retry.as_str()), (400, "true"));
    let cause = json!({
        "name": "CardError", "message": "declined", "stack": "at pay",
        "cause": { "name": "Error", "message": "stolen" },
    });
    assert_eq!(body, json!({ "name": "Error", "message": "the order stands", "cause": cause }));
}

#[on_failure(function = "others")]
async fn others(step: Step) -> Outcome<Value> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_378_322);
    step.sleep_until("until", time).await?;
    let wait = Wait::new("shop/approved", Duration::from_secs(3600))
        .matching("async.data.order_id == event.data.event.data.order_id");
    let event = step.wait_for_event::<Value>("approval", wait).await?;
    let invoke =
        Invoke::new("payments-refund").data(json!({ "n": 1 })).timeout(Duration::from_millis(2500));
    let refund: Value = step.invoke("refund", invoke).await?;
    Ok(json!({ "by": event.map(|event| event.data), "refund": refund }))
}

#[tokio::test]
async fn what_the_server_does_is_reported_with_its_options() {
    let endpoint = endpoint(builder().register(handlers![others]));
    let mut known = Vec::new();
    let (_, _, body) = memos(&known).of(&endpoint, "shop-others-failure").await;
    assert_eq!(ops(&body), [op("Sleep", "until")]);
    assert_eq!(body[0]["opts"], json!({ "duration": "2026-11-22T20:12:02.000Z" }));

    known.push(("until", Value::Null));
    let (_, _, body) = memos(&known).of(&endpoint, "shop-others-failure").await;
    assert_eq!(ops(&body), [op("WaitForEvent", "approval")]);
    assert_eq!(
        body[0]["opts"],
        json!({
            "event": "shop/approved", "timeout": "1h",
            "if": "async.data.order_id == event.data.event.data.order_id",
        })
    );

    known.push(("approval", json!({ "name": "shop/approved", "data": "ann", "id": "e", "ts": 5 })));
    let (_, _, body) = memos(&known).of(&endpoint, "shop-others-failure").await;
    assert_eq!(ops(&body), [op("InvokeFunction", "refund")]);
    assert_eq!(
        body[0]["opts"],
        json!({ "function_id": "payments-refund", "payload": { "data": { "n": 1 } }, "timeout": "2s500ms" })
    );

    known.push(("refund", json!({ "data": { "cents": 5 } })));
    let (status, _, body) = memos(&known).of(&endpoint, "shop-others-failure").await;
    assert_eq!((status, body), (200, json!({ "by": "ann", "refund": { "cents": 5 } })));
    known[1].1 = Value::Null;
    let (_, _, body) = memos(&known).of(&endpoint, "shop-others-failure").await;
    assert_eq!(body["by"], Value::Null);
}

#[on_failure(function = "tells")]
async fn tells(step: Step) -> Outcome<Vec<String>> {
    let event = |n: u32| Event::new("shop/undone", json!({ "n": n }));
    let one = step.send_event("one", event(1)).await?;
    let mut ids = step.send_events("more", vec![event(2), event(3)]).await?;
    ids.extend(step.send_events("none", Vec::new()).await?);
    ids.insert(0, one);
    Ok(ids)
}

#[tokio::test]
async fn events_are_posted_to_the_event_api() {
    let api = tests::http::Api::start(&[(200, r#"{"ids":["id1"],"status":200}"#)]).await;
    let dispatcher = builder().register(handlers![tells]).build().unwrap();
    let endpoint = inngest_failure::serve::Endpoint::builder(dispatcher, "shop-failures")
        .dev_server(api.origin())
        .event_key("key1")
        .env("branch")
        .build()
        .unwrap();
    let (_, _, body) = Call::default().of(&endpoint, "shop-tells-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "one")]);
    assert_eq!(body[0]["opts"], json!({ "type": "step.sendEvent" }));
    assert_eq!(body[0]["data"], json!({ "ids": ["id1"] }));
    let [sent] = &api.received()[..] else { panic!("one request") };
    assert_eq!((sent.method().as_str(), sent.uri().path()), ("POST", "/e/key1"));
    assert_eq!(sent.headers()["x-inngest-env"], "branch");
    let events: Value = serde_json::from_slice(sent.body()).unwrap();
    assert_eq!(events, json!([{ "name": "shop/undone", "data": { "n": 1 } }]));

    // No more answers: 500, which is worth another attempt.
    let one = ("one", json!({ "data": { "ids": ["id1"] } }));
    let (_, no_retry, body) =
        memos(std::slice::from_ref(&one)).of(&endpoint, "shop-tells-failure").await;
    assert_eq!((ops(&body), no_retry.as_str()), (vec![op("StepError", "more")], "false"));
    let message = body[0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("has not taken the event: 500"), "{message}");
    assert!(!body.to_string().contains("key1"), "{body}");

    let more = ("more", json!({ "data": { "ids": ["id2", "id3"] } }));
    let (_, _, body) =
        memos(&[one.clone(), more.clone()]).of(&endpoint, "shop-tells-failure").await;
    assert_eq!(body[0]["data"], json!({ "ids": [] }), "nothing is sent for no events");
    let none = ("none", json!({ "data": { "ids": [] } }));
    let (_, _, body) = memos(&[one, more, none]).of(&endpoint, "shop-tells-failure").await;
    assert_eq!(body, json!(["id1", "id2", "id3"]));
}

#[tokio::test]
async fn in_cloud_mode_no_event_is_sent_without_an_event_key() {
    let dispatcher = builder().register(handlers![tells]).build().unwrap();
    let endpoint = inngest_failure::serve::Endpoint::builder(dispatcher, "shop-failures")
        .dev(false)
        .signing_key(tests::http::KEY)
        .build()
        .unwrap();
    let request =
        tests::http::signed(Call::default().request("shop-tells-failure"), tests::http::KEY);
    let response = crate::exchange(&endpoint, request).await;
    let body = tests::http::json(&response);
    assert_eq!(ops(&body), [op("StepFailed", "one")]);
    assert_eq!(
        body[0]["error"]["message"],
        "no event was sent: there is no event key to send events with; set `INNGEST_EVENT_KEY` to the key that the \
         dashboard shows"
    );
}

#[on_failure(function = "outside")]
async fn outside(step: Step, State(seen): State<Seen>) -> Outcome {
    tokio::time::sleep(Duration::from_millis(5)).await;
    step.run("a", || ok(&seen, "a")).await?;
    let (b, c) = tokio::join!(
        step.run("b", || async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            ok(&seen, "b").await
        }),
        async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            step.run("c", || ok(&seen, "c")).await
        },
    );
    b?;
    c?;
    Ok(())
}

#[tokio::test]
async fn a_handler_may_await_other_things_between_and_beside_steps() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![outside]));
    let (_, _, body) = Call::default().of(&endpoint, "shop-outside-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "a")]);
    // `b` is found alone and runs; `c`, which turns up meanwhile, waits for its own call.
    let a = ("a", json!({ "data": "a!" }));
    let (_, _, body) = memos(std::slice::from_ref(&a)).of(&endpoint, "shop-outside-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "b")]);
    let b = ("b", json!({ "data": "b!" }));
    let (_, _, body) = memos(&[a.clone(), b.clone()]).of(&endpoint, "shop-outside-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "c")]);
    let c = ("c", json!({ "data": "c!" }));
    let (status, _, _) = memos(&[a, b, c]).of(&endpoint, "shop-outside-failure").await;
    assert_eq!(status, 200);
    assert_eq!(seen.take(), ["a", "b", "c"]);
}

#[on_failure(function = "returns")]
async fn returns(step: Step, State(seen): State<Seen>) -> Outcome {
    step.run("a", || ok(&seen, "a")).await?;
    Ok(())
}

#[on_failure(function = "stuck")]
async fn stuck(step: Step, State(seen): State<Seen>) -> Outcome {
    for n in 0..3 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        seen.note(n.to_string());
        let id = format!("s{n}");
        let started = std::pin::pin!(step.run(&id, || ok(&seen, "ran")));
        let _ = tokio::time::timeout(Duration::from_millis(1), started).await;
    }
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_asked_for_and_not_there_is_not_found() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![returns, stuck]));
    let gone = json!([{ "id": hash("gone"), "op": "StepNotFound" }]);

    // The handler returned.
    let known = memos(&[("a", json!({ "data": "a!" }))]).step("gone");
    let (status, _, body) = known.of(&endpoint, "shop-returns-failure").await;
    assert_eq!((status, &body), (206, &gone));
    // It waits for a step that is not to run now.
    let started = tokio::time::Instant::now();
    let (_, _, body) = Call::default().step("gone").of(&endpoint, "shop-returns-failure").await;
    assert_eq!(body, gone);
    assert_eq!(started.elapsed().as_secs(), 10);
    assert_eq!(seen.take(), [""; 0]);
    // It takes its time: ten seconds count from the last step that it came to.
    let started = tokio::time::Instant::now();
    let (_, _, body) = Call::default().step("gone").of(&endpoint, "shop-stuck-failure").await;
    assert_eq!(body, gone);
    assert_eq!(started.elapsed().as_secs(), 3 * 6 + 10);
    assert_eq!(seen.take(), ["0", "1", "2"]);
}

#[on_failure(function = "stepless")]
async fn stepless(State(seen): State<Seen>) {
    seen.note("ran");
}

#[tokio::test]
async fn a_handler_that_takes_no_steps_is_not_run_for_one() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![stepless]));
    let (status, _, body) = Call::default().step("a").of(&endpoint, "shop-stepless-failure").await;
    assert_eq!((status, body), (206, json!([{ "id": hash("a"), "op": "StepNotFound" }])));
    assert_eq!(seen.take(), [""; 0]);
    let (status, _, _) = Call::default().of(&endpoint, "shop-stepless-failure").await;
    assert_eq!(status, 200);
}

#[on_failure(function = "slow", timeout = "50ms")]
async fn slow(step: Step) -> Outcome {
    step.run("slow", async || {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok::<_, HandlerError>(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_time_out_of_a_call_is_the_failure_of_the_step_that_runs() {
    let endpoint = endpoint(builder().register(handlers![slow]));
    let (_, no_retry, body) = Call::default().of(&endpoint, "shop-slow-failure").await;
    assert_eq!((ops(&body), no_retry.as_str()), (vec![op("StepError", "slow")], "false"));
    assert_eq!(body[0]["error"]["name"], "TimedOut");
    let (_, _, body) = Call::default().attempt(3).of(&endpoint, "shop-slow-failure").await;
    assert_eq!(ops(&body), [op("StepFailed", "slow")]);
    // Outside of steps it is the handler's.
    let known = memos(&[("slow", json!({ "data": null }))]);
    let (status, _, body) = known.of(&endpoint, "shop-slow-failure").await;
    assert_eq!((status, &body["name"]), (500, &json!("TimedOut")));
}

#[tokio::test]
async fn what_a_step_has_returned_must_fit_its_type() {
    let endpoint = endpoint(builder().register(handlers![sequence]).state(Seen::default()));
    let known = memos(&[("a", json!({ "data": 17 }))]);
    let (status, no_retry, body) = known.of(&endpoint, "shop-sequence-failure").await;
    assert_eq!((status, no_retry.as_str()), (400, "true"));
    assert_eq!(
        body["message"],
        "what step `a` has returned does not fit `alloc::string::String`: invalid type: integer, expected a string; \
         let the type take what it writes, and what it wrote before it was changed"
    );
}

#[tokio::test]
async fn a_call_whose_steps_are_none_is_refused_and_nothing_runs() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![sequence]));
    for steps in [json!([]), json!("a"), json!(3)] {
        let call = Call { steps, ..Call::default() };
        let (status, no_retry, body) = call.of(&endpoint, "shop-sequence-failure").await;
        assert_eq!((status, no_retry.as_str()), (400, "true"), "{body}");
        assert!(
            body["message"].as_str().unwrap().starts_with("not a call of Inngest: at `steps`:"),
            "{body}"
        );
    }
    // None at all are none.
    let call = Call { steps: Value::Null, ..Call::default() };
    let (_, _, body) = call.of(&endpoint, "shop-sequence-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "a")]);
    assert_eq!(seen.take(), ["a"]);
}

#[on_failure(function = "large")]
async fn large(step: Step) -> Outcome<String> {
    Ok(step.run("n", async || Ok::<_, HandlerError>(u128::MAX)).await?.to_string())
}

#[tokio::test]
async fn a_number_that_has_lost_digits_on_its_way_is_not_taken_for_another() {
    let endpoint = endpoint(builder().register(handlers![large]));
    let mut call = memos(&[]);
    call.steps[hash("n")] = json!({ "data": 3.402_823_669_209_385e38 });
    let (status, no_retry, body) = call.of(&endpoint, "shop-large-failure").await;
    assert_eq!((status, no_retry.as_str()), (400, "true"), "{body}");
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .starts_with("what step `n` has returned does not fit `u128`"),
        "{body}"
    );
}

/// An error that panics when it is dropped.
#[derive(Debug)]
struct Bomb;

impl std::fmt::Display for Bomb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a bomb")
    }
}

impl std::error::Error for Bomb {}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("an error's end");
    }
}

/// Fails in the very poll in which its step completes.
#[on_failure(function = "bomb")]
async fn bomb(step: Step) -> Result<(), HandlerError> {
    let (done, is_done) = tokio::sync::oneshot::channel();
    let work = step.run("work", async move || {
        done.send(()).ok();
        Ok::<_, HandlerError>(())
    });
    tokio::select! {
        biased;
        work = work => Ok(work?),
        _ = is_done => Err(HandlerError::from(Bomb)),
    }
}

#[tokio::test]
async fn an_error_that_panics_does_not_lose_what_a_step_did() {
    let endpoint = endpoint(builder().register(handlers![bomb]));
    let (_, _, body) = Call::default().of(&endpoint, "shop-bomb-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "work")]);
}

#[tokio::test]
async fn what_a_call_may_leave_out_or_leave_open_counts_as_not_said() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![sequence]));
    let mut request = Call::default().request("shop-sequence-failure");
    let mut body: Value = serde_json::from_slice(request.body()).unwrap();
    body["ctx"]["disable_immediate_execution"] = Value::Null;
    body["ctx"]["stack"] = json!({ "current": 0, "stack": null });
    body.as_object_mut().unwrap().remove("steps");
    *request.body_mut() = body.to_string().into();
    let response = crate::exchange(&endpoint, request).await;
    assert_eq!(ops(&tests::http::json(&response)), [op("StepRun", "a")]);
    // An error that says little is an error all the same.
    let little = memos(&[("a", json!({ "error": { "name": "CardError" } }))]);
    let (_, _, body) = little.of(&endpoint, "shop-sequence-failure").await;
    assert_eq!(body, json!({ "name": "CardError", "message": "{\"name\":\"CardError\"}" }));
}

#[on_failure(function = "awaits")]
async fn awaits(step: Step) -> Outcome<u32> {
    let wait = Wait::new("shop/approved", Duration::from_secs(60));
    Ok(step.wait_for_event::<u32>("approval", wait).await?.map_or(0, |event| event.data))
}

#[tokio::test]
async fn an_awaited_event_must_fit_its_type() {
    let endpoint = endpoint(builder().register(handlers![awaits]));
    let call = memos(&[("approval", json!({ "name": "shop/approved", "data": "ann" }))]);
    let (status, _, body) = call.of(&endpoint, "shop-awaits-failure").await;
    assert_eq!(status, 400);
    let message = body["message"].as_str().unwrap();
    assert!(message.starts_with("the event that step `approval` has waited for: "), "{message}");
    assert!(message.contains("at `event.data`: invalid type: string, expected u32"), "{message}");
}
