//! Steps in process: inline, remembered from attempt to attempt.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime},
};

use inngest_failure::{
    Api, Backoff, Dispatch, Dispatcher, DispatcherBuilder, Event, HandlerError, Invoke, RunContext,
    RunError, State, Step, Wait, handlers, on_failure,
};
use serde_json::{Value, json};
use tests::Log;

use crate::{Seen, event};

type Outcome<T = ()> = Result<T, HandlerError>;

fn builder() -> DispatcherBuilder {
    crate::builder()
        .backoff(Backoff::new().first(Duration::from_secs(1)).max(Duration::from_secs(1)))
}

/// Fails so many times, and then never again.
#[derive(Default)]
struct Flaky(AtomicU32);

impl Flaky {
    fn new(failures: u32) -> Self {
        Self(AtomicU32::new(failures))
    }

    fn go(&self) -> Result<u32, &'static str> {
        let left = self.0.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(7);
        }
        self.0.store(left - 1, Ordering::Relaxed);
        Err("busy")
    }
}

async fn dispatch(dispatcher: &Dispatcher) -> (Result<Value, RunError>, u32) {
    let Dispatch { mut runs, .. } = dispatcher.dispatch(event()).await;
    let run = runs.pop().unwrap();
    (run.result, run.attempts)
}

type Shared = std::sync::Arc<Flaky>;

#[on_failure(function = "checkout", retries = 2)]
async fn undo(
    step: Step,
    run: RunContext,
    State(seen): State<Seen>,
    State(flaky): State<Shared>,
) -> Outcome<u32> {
    seen.note(format!("attempt {}", run.attempt));
    step.run("refund", async || {
        seen.note("refund");
        Ok::<_, HandlerError>(())
    })
    .await?;
    let restock = step
        .run("restock", async || {
            seen.note("restock");
            flaky.go()
        })
        .await;
    match restock {
        Ok(n) => Ok(n),
        Err(error) => {
            seen.note(error.to_string());
            let escalate = step.run("escalate", async || Ok::<_, HandlerError>(1)).await?;
            Ok(escalate)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_ends_the_attempt_and_what_had_completed_is_not_repeated() {
    let seen = Seen::default();
    let state = |failures| std::sync::Arc::new(Flaky::new(failures));
    let dispatcher =
        builder().state(seen.clone()).state(state(2)).register(handlers![undo]).build().unwrap();
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let (result, attempts) = dispatch(&dispatcher).await;
    assert_eq!((result.unwrap(), attempts), (json!(7), 3));
    let expected =
        ["attempt 0", "refund", "restock", "attempt 1", "restock", "attempt 2", "restock"];
    assert_eq!(seen.take(), expected);
    let text = log.text();
    assert!(
        text.contains("step failed, will be tried again step=\"restock\" attempt=0 error=\"busy\""),
        "{text}"
    );

    // Its retries used up, the handler sees the error, in the attempt that used up the last one.
    let dispatcher =
        builder().state(seen.clone()).state(state(9)).register(handlers![undo]).build().unwrap();
    let (result, attempts) = dispatch(&dispatcher).await;
    assert_eq!((result.unwrap(), attempts), (json!(1), 3));
    assert_eq!(seen.take().last().unwrap(), "step `restock` failed: busy");
    let text = log.text();
    assert!(
        text.contains(
            "step failed for good, which the handler is told step=\"restock\" error=\"busy\""
        ),
        "{text}"
    );
    // Another dispatch starts from nothing.
    dispatch(&dispatcher).await.0.unwrap();
    assert_eq!(seen.take().iter().filter(|line| *line == "refund").count(), 1);
}

/// Each step fails as often as it may, and so does the code after each.
#[on_failure(function = "checkout", id = "counts", retries = 2)]
async fn counts(step: Step, run: RunContext, State(seen): State<Seen>) -> Outcome {
    let fails_twice = |what: &str| {
        let before = seen.0.lock().unwrap().iter().filter(|line| *line == what).count();
        seen.note(what);
        if before < 2 { Err("busy") } else { Ok(()) }
    };
    seen.note(format!("attempt {}", run.attempt));
    step.run("a", async || fails_twice("a")).await?;
    fails_twice("after a")?;
    step.run("b", async || fails_twice("b")).await?;
    fails_twice("after b")?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn retries_count_for_each_step_and_for_the_code_after_it() {
    let seen = Seen::default();
    let dispatcher = builder().state(seen.clone()).register(handlers![counts]).build().unwrap();
    let (result, attempts) = dispatch(&dispatcher).await;
    result.unwrap();
    assert_eq!(attempts, 9);
    let seen = seen.take();
    let attempts: Vec<&str> =
        seen.iter().filter_map(|line| line.strip_prefix("attempt ")).collect();
    assert_eq!(attempts, ["0", "1", "2", "1", "2", "1", "2", "1", "2"]);
    let ran = |what: &str| seen.iter().filter(|line| *line == what).count();
    assert_eq!((ran("a"), ran("b"), ran("after b")), (3, 3, 3));
}

#[on_failure(function = "checkout", id = "parallel", retries = 1)]
async fn parallel(step: Step, State(seen): State<Seen>) -> Outcome<String> {
    let work = |id: &'static str, millis: u64, fails: bool| {
        let (step, seen) = (&step, &seen);
        step.run(id, move || async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let first = !seen.0.lock().unwrap().contains(&id.to_owned());
            seen.note(id);
            if fails && first { Err("busy") } else { Ok(id.to_owned()) }
        })
    };
    let (a, b, c) =
        tokio::try_join!(work("a", 30, false), work("b", 10, true), work("c", 20, true))?;
    Ok(a + &b + &c)
}

#[tokio::test(start_paused = true)]
async fn steps_side_by_side_run_side_by_side_and_one_that_fails_does_not_cut_the_others_off() {
    let seen = Seen::default();
    let dispatcher = builder().state(seen.clone()).register(handlers![parallel]).build().unwrap();
    let started = tokio::time::Instant::now();
    let (result, attempts) = dispatch(&dispatcher).await;
    assert_eq!((result.unwrap(), attempts), (json!("abc"), 2));
    assert_eq!(seen.take(), ["b", "c", "a", "b", "c"]);
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_millis(1030 + 20) && waited < Duration::from_secs(3),
        "{waited:?}"
    );
}

#[on_failure(function = "checkout", id = "sleeps", retries = 2, timeout = "1s")]
async fn sleeps(step: Step, State(seen): State<Seen>, State(flaky): State<Shared>) -> Outcome {
    let (nap, work) = tokio::join!(
        step.sleep("nap", Duration::from_secs(100)),
        step.run("work", async || flaky.go())
    );
    nap?;
    work?;
    seen.note("awake");
    step.sleep_until("until", SystemTime::now() + Duration::from_secs(20)).await?;
    step.sleep_until("past", SystemTime::UNIX_EPOCH).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_sleep_sleeps_once_and_is_no_part_of_the_calls_time() {
    let seen = Seen::default();
    let dispatcher = builder()
        .state(seen.clone())
        .state(std::sync::Arc::new(Flaky::new(1)))
        .register(handlers![sleeps])
        .build()
        .unwrap();
    let started = tokio::time::Instant::now();
    let (result, attempts) = dispatch(&dispatcher).await;
    result.unwrap();
    assert_eq!(attempts, 2);
    assert_eq!(seen.take(), ["awake"]);
    let slept = started.elapsed().as_secs_f64();
    assert!((119.0..121.0).contains(&slept), "{slept}");
}

#[on_failure(function = "checkout", id = "slow", retries = 1, timeout = "1s")]
async fn slow(step: Step, run: RunContext, State(seen): State<Seen>) -> Outcome<String> {
    seen.note(format!("attempt {}", run.attempt));
    let slow = step
        .run("slow", async || {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Ok::<_, HandlerError>(())
        })
        .await;
    let error = slow.unwrap_err();
    seen.note("recovered");
    if run.attempt == 0
        && seen.0.lock().unwrap().iter().filter(|line| *line == "recovered").count() < 2
    {
        tokio::time::sleep(Duration::from_secs(9)).await;
    }
    Ok(error.name)
}

#[tokio::test(start_paused = true)]
async fn a_time_out_is_the_failure_of_the_step_that_runs_or_of_the_code_outside() {
    let seen = Seen::default();
    let dispatcher = builder().state(seen.clone()).register(handlers![slow]).build().unwrap();
    let (result, attempts) = dispatch(&dispatcher).await;
    assert_eq!((result.unwrap(), attempts), (json!("TimedOut"), 4));
    assert_eq!(
        seen.take(),
        ["attempt 0", "attempt 1", "attempt 0", "recovered", "attempt 1", "recovered"]
    );
}

#[on_failure(function = "checkout", id = "panics", retries = 0)]
async fn panics(step: Step) -> Outcome<String> {
    let step = step.run("panics", async || -> Result<(), HandlerError> { panic!("broken card") });
    let error = step.await.unwrap_err();
    Ok(format!("{}, {}: {error}", error.name, error.stack.is_some()))
}

#[tokio::test]
async fn a_panic_in_a_step_is_the_steps_failure() {
    let dispatcher = builder().register(handlers![panics]).build().unwrap();
    let (result, attempts) = dispatch(&dispatcher).await;
    assert_eq!(
        (result.unwrap(), attempts),
        (json!("Panic, true: step `panics` failed: broken card"), 1)
    );
}

#[on_failure(function = "checkout", id = "returned", retries = 3)]
async fn returned(step: Step) -> Outcome {
    step.run("refund", async || Err::<(), _>(HandlerError::non_retriable("declined"))).await?;
    Ok(())
}

#[tokio::test]
async fn a_steps_error_that_the_handler_returns_is_final() {
    let dispatcher = builder().register(handlers![returned]).build().unwrap();
    let (result, attempts) = dispatch(&dispatcher).await;
    assert_eq!(attempts, 1);
    assert_eq!(result.unwrap_err().to_string(), "step `refund` failed: declined");
}

#[on_failure(function = "checkout", id = "server", retries = 3)]
async fn server(step: Step) -> Outcome<[String; 3]> {
    let wait = Wait::new("shop/approved", Duration::from_secs(5));
    Ok([
        step.invoke::<Value>("call", Invoke::new("shop-refund")).await.unwrap_err().to_string(),
        step.wait_for_event::<Value>("wait", wait).await.unwrap_err().to_string(),
        step.send_event("send", Event::new("a", json!({}))).await.unwrap_err().to_string(),
    ])
}

#[tokio::test]
async fn what_only_the_server_can_do_is_a_clear_and_final_error() {
    let dispatcher = builder().register(handlers![server]).build().unwrap();
    let (result, attempts) = dispatch(&dispatcher).await;
    let expected = [
        "step `call`: `invoke` needs Inngest, which runs the function; let the handler run at a `serve::Endpoint`, not \
         in process",
        "step `wait`: `wait_for_event` needs Inngest, which sees the events; let the handler run at a \
         `serve::Endpoint`, not in process",
        "step `send` failed: step `send` has no API to send events to; give the dispatcher's builder an `.api(..)`",
    ];
    assert_eq!((result.unwrap(), attempts), (json!(expected), 1));
}

#[on_failure(function = "checkout", id = "sends")]
async fn sends(step: Step) -> Outcome<String> {
    Ok(step.send_event("send", Event::new("shop/undone", json!({ "n": 1 }))).await?)
}

#[tokio::test]
async fn events_go_where_the_dispatchers_api_says() {
    let api =
        tests::http::Api::start(&[(503, "later"), (200, r#"{"ids":["id1"],"status":200}"#)]).await;
    let inngest =
        Api::builder().dev(false).event_key("key1").event_api_origin(api.origin()).build();
    let dispatcher = builder()
        .backoff(Backoff::new().first(Duration::from_millis(1)))
        .api(inngest.unwrap())
        .register(handlers![sends])
        .build()
        .unwrap();
    let (result, attempts) = dispatch(&dispatcher).await;
    assert_eq!((result.unwrap(), attempts), (json!("id1"), 2));
    let paths: Vec<String> = api.received().iter().map(|it| it.uri().path().to_owned()).collect();
    assert_eq!(paths, ["/e/key1", "/e/key1"]);
}

#[on_failure(function = "checkout", id = "select")]
async fn select(step: Step, State(seen): State<Seen>) -> Outcome<&'static str> {
    let work = |id: &'static str, millis: u64| {
        let (step, seen) = (&step, &seen);
        step.run(id, move || async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            seen.note(id);
            Ok::<_, HandlerError>(())
        })
    };
    let won = tokio::select! {
        biased;
        _ = work("slow", 100) => "slow",
        _ = work("quick", 10) => "quick",
    };
    step.run("flaky", async || {
        let before = seen.0.lock().unwrap().iter().filter(|line| *line == "flaky").count();
        seen.note("flaky");
        if before == 0 { Err("busy") } else { Ok(()) }
    })
    .await?;
    Ok(won)
}

#[tokio::test(start_paused = true)]
async fn a_lost_select_is_lost_again_in_the_next_attempt() {
    let seen = Seen::default();
    let dispatcher = builder().state(seen.clone()).register(handlers![select]).build().unwrap();
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let (result, attempts) = dispatch(&dispatcher).await;
    assert_eq!((result.unwrap(), attempts), (json!("quick"), 2));
    // `slow` never ended: the remembered step was given back before a new one could begin.
    assert_eq!(seen.take(), ["quick", "flaky", "flaky"]);
    assert_eq!(
        log.text().matches("a step that had started was dropped").count(),
        1,
        "{}",
        log.text()
    );
}
