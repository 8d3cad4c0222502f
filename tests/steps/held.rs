//! Steps that a handler has begun and does not await just now: nothing waits for them for ever.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use inngest_failure::{
    Backoff, Dispatcher, HandlerError, State, Step, handlers, on_failure,
    testing::{TestRun, Transcript},
};
use serde_json::{Value, json};

use crate::{Call, Seen, builder, endpoint, event, hash, memos, op, ops};

type Outcome<T = ()> = Result<T, HandlerError>;

async fn work(seen: &Seen, id: &str) -> Outcome<String> {
    tokio::time::sleep(Duration::from_millis(10)).await;
    seen.note(id);
    Ok(id.to_owned())
}

fn dispatcher(seen: &Seen) -> Dispatcher {
    let backoff = Backoff::new().first(Duration::from_secs(1)).max(Duration::from_secs(1));
    let builder = builder().backoff(backoff).state(seen.clone());
    builder
        .register(handlers![records, limited, left, moves_on, gone, naps, later, works])
        .build()
        .unwrap()
}

/// Fails the test if it takes longer than any wait in it.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(3600), future).await.expect("an end")
}

async fn run(handler: &str, seed: Option<u64>, fails: &[(&str, u32)]) -> (Transcript, Vec<String>) {
    let seen = Seen::default();
    let mut run = TestRun::new(&dispatcher(&seen), handler, event());
    for (step, times) in fails {
        run = run.fail_step(*step, *times);
    }
    if let Some(seed) = seed {
        run = run.seed(seed);
    }
    let transcript = soon(run.run()).await;
    (transcript, seen.take())
}

async fn in_process(handler: &str) -> (Result<Value, String>, Vec<String>) {
    let seen = Seen::default();
    let mut dispatch = soon(dispatcher(&seen).dispatch(event())).await;
    let run = dispatch.runs.iter_mut().find(|run| run.handler_id == handler).unwrap();
    let result = std::mem::replace(&mut run.result, Ok(Value::Null));
    (result.map_err(|error| error.to_string()), seen.take())
}

/// Steps side by side, each followed by another one while the rest is not polled.
#[on_failure(function = "checkout", id = "records", retries = 20)]
async fn records(step: Step, State(seen): State<Seen>) -> Outcome<usize> {
    let mut all: FuturesUnordered<_> =
        ["a", "b", "c"].into_iter().map(|id| step.run(id, || work(&seen, id))).collect();
    let mut count = 0;
    while let Some(done) = all.next().await {
        let id = format!("record-{}", done?);
        step.run(&id, async || {
            let first = !seen.0.lock().unwrap().contains(&id);
            seen.note(&id);
            if first { Err("busy") } else { Ok(()) }
        })
        .await?;
        count += 1;
    }
    Ok(count)
}

#[tokio::test(start_paused = true)]
async fn a_loop_over_steps_with_a_step_in_its_body() {
    for seed in [None, Some(1), Some(2), Some(3), Some(4)] {
        let (transcript, mut seen) = run("records", seed, &[]).await;
        assert_eq!(transcript.assert_succeeded(), 3);
        seen.sort();
        let expected =
            ["a", "b", "c", "record-a", "record-a", "record-b", "record-b", "record-c", "record-c"];
        assert_eq!(seen, expected, "{transcript}");
    }
    let (transcript, _) = run("records", Some(5), &[("b", 2), ("record-c", 2)]).await;
    assert_eq!(transcript.assert_succeeded(), 3);
    let (result, seen) = in_process("records").await;
    assert_eq!(result, Ok(json!(3)));
    for id in ["a", "b", "c"] {
        assert!(seen.iter().any(|line| line == id), "{seen:?}");
    }
}

/// A step that is let go of when its time is over.
#[on_failure(function = "checkout", id = "limited", retries = 3)]
async fn limited(step: Step, State(seen): State<Seen>) -> Outcome<String> {
    let slow = step.run("slow", || work(&seen, "slow"));
    let done = tokio::select! {
        biased;
        slow = slow => slow?,
        limit = step.sleep("limit", Duration::from_secs(60)) => {
            limit?;
            "too slow".to_owned()
        }
    };
    step.run("tell", || work(&seen, "tell")).await?;
    Ok(done)
}

#[tokio::test(start_paused = true)]
async fn a_select_that_is_followed_by_a_step() {
    let (transcript, _) = run("limited", None, &[]).await;
    assert_eq!(transcript.assert_succeeded(), "slow");
    // Its retry comes when the limit is over: it runs, and the limit wins all the same, for it was the first.
    let (transcript, seen) = run("limited", None, &[("slow", 3)]).await;
    assert_eq!(transcript.assert_succeeded(), "too slow");
    assert_eq!(seen.iter().filter(|line| *line == "tell").count(), 1, "{transcript}");
    // Asked for when the handler has gone on without it, it is not found there.
    let endpoint = endpoint(builder().state(Seen::default()).register(handlers![limited]));
    let call = memos(&[("limit", Value::Null)]).planned().step("slow");
    let (_, _, body) = soon(call.of(&endpoint, "limited")).await;
    assert_eq!(ops(&body), [op("StepRun", "slow")]);
}

/// A step that is left for another one, and awaited later.
#[on_failure(function = "checkout", id = "left", retries = 3)]
async fn left(step: Step, State(seen): State<Seen>) -> Outcome<String> {
    let mut a = pin!(step.run("a", || work(&seen, "a")));
    tokio::select! {
        biased;
        a = &mut a => return Ok(a?),
        b = step.run("b", || work(&seen, "b")) => drop(b?),
    }
    let c = step
        .run("c", async || {
            let first = !seen.0.lock().unwrap().contains(&"c".to_owned());
            seen.note("c");
            if first { Err("busy") } else { Ok("c".to_owned()) }
        })
        .await?;
    Ok(c + &a.await?)
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_left_for_another_and_awaited_later() {
    let endpoint = endpoint(builder().state(Seen::default()).register(handlers![left]));
    let b = ("b", json!({ "data": "b" }));
    let (_, _, body) = soon(memos(std::slice::from_ref(&b)).of(&endpoint, "left")).await;
    assert_eq!(ops(&body), [op("StepPlanned", "a"), op("StepPlanned", "c")]);
    for id in ["a", "c"] {
        let call = memos(std::slice::from_ref(&b)).planned().step(id);
        let (_, _, body) = soon(call.of(&endpoint, "left")).await;
        let expected = if id == "a" { "StepRun" } else { "StepError" };
        assert_eq!(ops(&body), [op(expected, id)]);
    }
    let (result, seen) = in_process("left").await;
    assert_eq!(result, Ok(json!("a")), "{seen:?}");
}

/// A step that is running when the handler turns to another one.
#[on_failure(function = "checkout", id = "moves-on", retries = 3)]
async fn moves_on(step: Step, State(seen): State<Seen>) -> Outcome<String> {
    let mut slow = pin!(step.run("slow", async || {
        tokio::time::sleep(Duration::from_secs(600)).await;
        work(&seen, "slow").await
    }));
    if let Ok(done) = tokio::time::timeout(Duration::from_secs(5), &mut slow).await {
        return Ok(done?);
    }
    let other = step
        .run("other", async || {
            let first = !seen.0.lock().unwrap().contains(&"other".to_owned());
            seen.note("other");
            if first { Err("busy") } else { Ok("other".to_owned()) }
        })
        .await?;
    Ok(other + &slow.await?)
}

#[tokio::test(start_paused = true)]
async fn a_running_step_that_the_handler_turns_away_from() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![moves_on]));
    let (_, _, body) = soon(Call::default().of(&endpoint, "moves-on")).await;
    assert_eq!(ops(&body), [op("StepError", "other")]);
    let (_, _, body) = soon(Call::default().of(&endpoint, "moves-on")).await;
    assert_eq!(ops(&body), [op("StepRun", "other")]);
    let known = [("other", json!({ "data": "other" }))];
    let (_, _, body) = soon(memos(&known).of(&endpoint, "moves-on")).await;
    assert_eq!(ops(&body), [op("StepRun", "slow")]);
    let (result, seen) = in_process("moves-on").await;
    assert_eq!(result, Ok(json!("otherslow")), "{seen:?}");
}

/// Never comes to the step that is asked for, in less time than the server is patient.
#[on_failure(function = "checkout", id = "gone", timeout = "3s")]
async fn gone(step: Step, State(seen): State<Seen>) -> Outcome {
    step.run("a", || work(&seen, "a")).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_time_is_over_before_the_step_turned_up_has_not_failed_itself() {
    let endpoint = endpoint(builder().state(Seen::default()).register(handlers![gone]));
    let (status, _, body) = soon(Call::default().step("gone").of(&endpoint, "gone")).await;
    assert_eq!((status, body), (206, json!([{ "id": hash("gone"), "op": "StepNotFound" }])));
}

/// A sleep that is held while the handler waits for something else.
#[on_failure(function = "checkout", id = "naps", retries = 0, timeout = "1s")]
async fn naps(step: Step) -> Outcome {
    let mut nap = pin!(step.sleep("nap", Duration::from_secs(5)));
    let _ = tokio::time::timeout(Duration::from_millis(1), &mut nap).await;
    tokio::time::sleep(Duration::from_secs(3000)).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_sleep_that_is_over_does_not_stop_the_clock() {
    let (result, _) = in_process("naps").await;
    assert_eq!(result, Err("timed out".to_owned()));
}

/// A step that is begun, and awaited after something else.
#[on_failure(function = "checkout", id = "later", retries = 0)]
async fn later(step: Step, State(seen): State<Seen>) -> Outcome<String> {
    let mut a = step.run("a", || work(&seen, "a"));
    assert!(poll_fn(|cx| Poll::Ready(a.as_mut().poll(cx).is_pending())).await);
    tokio::time::sleep(Duration::from_secs(60)).await;
    Ok(a.await?)
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_begun_and_awaited_later() {
    let (result, _) = in_process("later").await;
    assert_eq!(result, Ok(json!("a")));
    let endpoint = endpoint(builder().state(Seen::default()).register(handlers![later]));
    for call in [Call::default(), Call::default().planned().step("a")] {
        let (_, _, body) = soon(call.of(&endpoint, "later")).await;
        assert_eq!(ops(&body), [op("StepRun", "a")]);
    }
    let (transcript, seen) = run("later", None, &[]).await;
    assert_eq!(transcript.assert_succeeded(), "a");
    assert_eq!(seen, ["a"], "{transcript}");
}

/// Works before and after a sleep, for longer than it may if it works too long.
#[on_failure(function = "checkout", id = "works", retries = 0, timeout = "1s")]
async fn works(step: Step) -> Outcome {
    tokio::time::sleep(Duration::from_millis(500)).await;
    step.sleep("nap", Duration::from_secs(100)).await?;
    tokio::time::sleep(Duration::from_millis(400)).await;
    step.run("note", async || Ok::<_, HandlerError>(())).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_clock_stands_still_while_the_handler_sleeps_and_goes_on_after_it() {
    let started = tokio::time::Instant::now();
    let seen = Seen::default();
    let dispatcher = builder().state(seen).register(handlers![works]).build().unwrap();
    let dispatch = soon(dispatcher.dispatch(event())).await;
    assert_eq!(dispatch.runs[0].result.as_ref().unwrap_err().to_string(), "timed out");
    assert_eq!(started.elapsed(), Duration::from_millis(101_000));
}
