//! Steps that a handler lets go of, at an endpoint: each call has an answer.

use std::time::Duration;

use inngest_failure::{HandlerError, State, Step, handlers, on_failure};
use serde_json::{Value, json};
use tests::Log;

use crate::{Call, Seen, builder, endpoint, memos, op, ops};

type Outcome<T = ()> = Result<T, HandlerError>;

/// A step that takes long, unless time runs out.
#[on_failure(function = "impatient")]
async fn impatient(step: Step, State(seen): State<Seen>) -> Outcome<String> {
    let slow = step.run("slow", async || {
        seen.note("slow");
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok::<_, HandlerError>("slow".to_owned())
    });
    match tokio::time::timeout(Duration::from_secs(1), slow).await {
        Ok(slow) => Ok(slow?),
        Err(_) => {
            Ok(step.run("instead", async || Ok::<_, HandlerError>("instead".to_owned())).await?)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_started_step_that_is_dropped_frees_the_turn() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![impatient]));
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let (_, _, body) = Call::default().of(&endpoint, "shop-impatient-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "instead")]);
    assert!(log.text().contains("was dropped before it ended"), "{}", log.text());
    assert!(log.text().contains("step=\"slow\""), "{}", log.text());

    // It begins again in every call, as the warning says.
    let known = [("instead", json!({ "data": "instead" }))];
    let (status, _, body) = memos(&known).of(&endpoint, "shop-impatient-failure").await;
    assert_eq!((status, body), (200, json!("instead")));
    assert_eq!(seen.take(), ["slow", "slow"]);

    // Asked for and dropped, it is no longer asked for.
    let asked = Call::default().planned().step("slow");
    let (_, _, body) = asked.of(&endpoint, "shop-impatient-failure").await;
    assert_eq!(ops(&body), [op("StepPlanned", "instead")]);
    let (status, _, body) =
        memos(&known).planned().step("slow").of(&endpoint, "shop-impatient-failure").await;
    assert_eq!((status, body), (200, json!("instead")));
}

/// The first of two steps that completes.
#[on_failure(function = "race")]
async fn race(step: Step) -> Outcome<Value> {
    let run = |id: &'static str| {
        step.run(id, move || async move { Ok::<_, HandlerError>(id.to_owned()) })
    };
    Ok(tokio::select! {
        biased;
        a = run("a") => json!(["a", a?]),
        b = run("b") => json!(["b", b?]),
    })
}

#[tokio::test]
async fn a_select_of_steps_goes_by_the_order_in_which_they_completed() {
    let endpoint = endpoint(builder().register(handlers![race]));
    let (_, _, body) = Call::default().of(&endpoint, "shop-race-failure").await;
    assert_eq!(ops(&body), [op("StepPlanned", "a"), op("StepPlanned", "b")]);
    let (a, b) = (("a", json!({ "data": "a" })), ("b", json!({ "data": "b" })));
    let (_, _, body) =
        memos(std::slice::from_ref(&a)).planned().of(&endpoint, "shop-race-failure").await;
    assert_eq!(body, json!(["a", "a"]));
    let (_, _, body) = memos(&[b, a]).planned().of(&endpoint, "shop-race-failure").await;
    assert_eq!(body, json!(["b", "b"]));
}

/// A step that completes in the very poll in which its handler returns without it.
#[on_failure(function = "crossed")]
async fn crossed(step: Step, State(seen): State<Seen>) -> Outcome<String> {
    let (done, is_done) = tokio::sync::oneshot::channel();
    let work = step.run("work", async move || {
        seen.note("work");
        done.send(()).ok();
        Ok::<_, HandlerError>("work".to_owned())
    });
    tokio::select! {
        biased;
        work = work => Ok(work?),
        _ = is_done => Ok("not seen".to_owned()),
    }
}

#[tokio::test]
async fn what_a_step_did_is_reported_even_if_the_handler_has_returned_without_it() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![crossed]));
    let (_, _, body) = Call::default().of(&endpoint, "shop-crossed-failure").await;
    assert_eq!(ops(&body), [op("StepRun", "work")]);
    let known = [("work", json!({ "data": "work" }))];
    let (_, _, body) = memos(&known).of(&endpoint, "shop-crossed-failure").await;
    assert_eq!(body, json!("work"));
    assert_eq!(seen.take(), ["work"]);
}

/// Notes that it is dropped, and tries a step then.
struct Noisy(Seen);

impl Drop for Noisy {
    fn drop(&mut self) {
        self.0.note("dropped");
    }
}

#[on_failure(function = "noisy")]
async fn noisy(step: Step, State(seen): State<Seen>) -> Outcome {
    let _noisy = Noisy(seen.clone());
    step.run("a", async || Ok::<_, HandlerError>(())).await?;
    seen.note("went on");
    Ok(())
}

#[tokio::test]
async fn a_handler_that_is_not_needed_any_more_is_dropped_and_no_more() {
    let seen = Seen::default();
    let endpoint = endpoint(builder().state(seen.clone()).register(handlers![noisy]));
    Call::default().of(&endpoint, "shop-noisy-failure").await;
    assert_eq!(seen.take(), ["dropped"]);
}

#[on_failure(function = "changed")]
async fn changed(step: Step) -> Outcome {
    step.run("new", async || Ok::<_, HandlerError>(())).await?;
    Ok(())
}

#[tokio::test]
async fn remembered_steps_that_the_handler_does_not_come_to_are_a_warning() {
    let endpoint = endpoint(builder().register(handlers![changed]));
    let (log, _guard) = Log::start(tracing::Level::WARN);
    let known = [("new", Value::Null), ("old", Value::Null), ("older", Value::Null)];
    let (status, _, _) = memos(&known).of(&endpoint, "shop-changed-failure").await;
    assert_eq!(status, 200);
    let text = log.text();
    assert!(text.contains("without coming to all steps that are remembered of its run"), "{text}");
    assert!(text.contains("unmet=2"), "{text}");
}
