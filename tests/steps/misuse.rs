//! Steps used where they can't be, or with what can't be remembered.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    task::Poll,
    time::{Duration, SystemTime},
};

use inngest_failure::{
    Dispatcher, Event, Failure, HandlerError, Invoke, State, Step, Wait, handlers, on_failure,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Call, builder, endpoint, event, op, ops};

type Outcome<T = ()> = Result<T, HandlerError>;

async fn in_process(dispatcher: &Dispatcher) -> Value {
    let mut runs = dispatcher.dispatch(event()).await.runs;
    let run = runs.remove(0);
    assert_eq!(run.attempts, 1, "{:?}", run.result);
    run.result.unwrap_or_else(|error| json!(error.to_string()))
}

#[on_failure(function = "checkout")]
async fn nested(step: Step) -> Outcome {
    let outer = step.run("outer", || async {
        step.run("inner", async || Ok::<_, HandlerError>(())).await?;
        Ok::<_, HandlerError>(())
    });
    outer.await?;
    Ok(())
}

const NESTED: &str = "step `inner` is used inside step `outer`, which could not be remembered then; let one follow the other";

#[tokio::test]
async fn a_step_inside_a_step() {
    let handlers = || builder().register(handlers![nested]);
    let result = in_process(&handlers().build().unwrap()).await;
    assert_eq!(
        result,
        format!("step `outer` failed: {NESTED}").replace("step `outer` failed: ", "")
    );
    let (_, no_retry, body) =
        Call::default().of(&endpoint(handlers()), "shop-checkout-failure").await;
    assert_eq!((ops(&body), no_retry.as_str()), (vec![op("StepFailed", "outer")], "true"));
    assert_eq!(body[0]["error"], json!({ "name": "StepError", "message": NESTED }));
}

type Slot = Arc<Mutex<Option<Arc<Step>>>>;

/// Leaves its step to whoever comes after.
#[on_failure(function = "checkout", id = "leaves")]
async fn leaves(step: Step, State(slot): State<Slot>) -> Outcome<String> {
    let left = slot.lock().unwrap().replace(Arc::new(step));
    let Some(left) = left else { return Ok("left".to_owned()) };
    let used = left.run("late", async || Ok::<_, HandlerError>(())).await;
    Ok(used.unwrap_err().to_string())
}

#[tokio::test]
async fn a_step_after_its_handler_has_returned() {
    let dispatcher = builder().state(Slot::default()).register(handlers![leaves]).build().unwrap();
    assert_eq!(in_process(&dispatcher).await, "left");
    assert_eq!(
        in_process(&dispatcher).await,
        "step `late` is used after its handler's call had ended; use a step only in the call of the handler that was \
         given the `Step`"
    );
}

const OUTSIDE: &str = "is used outside of its handler's own future, in a spawned task or in another handler; in place \
                       of `spawn`, join the futures in the handler, with `join!` for example";

#[on_failure(function = "checkout", id = "shares")]
async fn shares(step: Step, State(slot): State<Slot>) -> Outcome<Option<String>> {
    let step = Arc::new(step);
    let other = slot.lock().unwrap().replace(Arc::clone(&step));
    let Some(other) = other else {
        tokio::time::sleep(Duration::from_millis(50)).await;
        return Ok(None);
    };
    let used = other.run("stolen", async || Ok::<_, HandlerError>(())).await;
    Ok(Some(used.unwrap_err().to_string()))
}

#[tokio::test(start_paused = true)]
async fn two_dispatches_with_one_step() {
    let dispatcher = builder().state(Slot::default()).register(handlers![shares]).build().unwrap();
    let (first, second) = tokio::join!(async { dispatcher.dispatch(event()).await }, async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        dispatcher.dispatch(event()).await
    },);
    assert_eq!(first.runs[0].result.as_ref().unwrap(), &Value::Null);
    assert_eq!(second.runs[0].result.as_ref().unwrap(), &json!(format!("step `stolen` {OUTSIDE}")));
}

#[on_failure(function = "checkout", id = "spawns")]
async fn spawns(step: Step) -> Outcome<String> {
    let step = Arc::new(step);
    let spawned = Arc::clone(&step);
    let used =
        tokio::spawn(
            async move { spawned.run("elsewhere", async || Ok::<_, HandlerError>(())).await },
        );
    Ok(used.await?.unwrap_err().to_string())
}

#[tokio::test]
async fn a_step_in_a_spawned_task() {
    let handlers = || builder().register(handlers![spawns]);
    let expected = format!("step `elsewhere` {OUTSIDE}");
    assert_eq!(in_process(&handlers().build().unwrap()).await, json!(expected));
    let (status, _, body) = Call::default().of(&endpoint(handlers()), "spawns").await;
    assert_eq!((status, body), (200, json!(expected)));
}

type Ended = Arc<Mutex<Vec<String>>>;

/// Polls a step once in its own future, and moves it to a task that outlives the call.
#[on_failure(function = "checkout", id = "moves")]
async fn moves(step: Step, State(ended): State<Ended>) -> Outcome {
    let step = Arc::new(step);
    let moved = Arc::clone(&step);
    let mut other = Box::pin(async move {
        let error = moved.run("moved", async || Ok::<_, HandlerError>(())).await.unwrap_err();
        ended.lock().unwrap().push(error.to_string());
    });
    assert!(std::future::poll_fn(|cx| Poll::Ready(other.as_mut().poll(cx).is_pending())).await);
    tokio::spawn(other);
    step.run("stays", async || Ok::<_, HandlerError>(())).await?;
    Ok(())
}

#[tokio::test]
async fn a_step_that_was_moved_to_a_task_ends_with_its_call() {
    let ended = Ended::default();
    let endpoint = endpoint(builder().state(ended.clone()).register(handlers![moves]));
    let (_, _, body) = Call::default().of(&endpoint, "moves").await;
    assert_eq!(ops(&body), [op("StepPlanned", "moved"), op("StepPlanned", "stays")]);
    tests::http::until("ended", || !ended.lock().unwrap().is_empty()).await;
    assert_eq!(
        *ended.lock().unwrap(),
        [
            "step `moved` outlives its handler's call, whose answer is known; keep its future in the handler"
        ]
    );
}

#[on_failure(function = "checkout", id = "blank")]
async fn blank(step: Step) -> Outcome<String> {
    let used = step.run(" ", async || Ok::<_, HandlerError>(())).await;
    let slept = step.sleep("", Duration::ZERO).await;
    assert_eq!(used.as_ref().unwrap_err().to_string(), slept.unwrap_err().to_string());
    Ok(used.unwrap_err().to_string())
}

#[tokio::test]
async fn a_blank_id() {
    let dispatcher = builder().register(handlers![blank]).build().unwrap();
    assert_eq!(
        in_process(&dispatcher).await,
        "a step's id is blank; give each step of a handler a name of its own"
    );
}

/// Written as a number, read from a text.
#[derive(Debug)]
struct Lopsided;

impl Serialize for Lopsided {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for Lopsided {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|_| Self)
    }
}

#[on_failure(function = "checkout", id = "values")]
async fn values(step: Step) -> Outcome<Vec<String>> {
    let map = || async { Ok::<_, HandlerError>(HashMap::from([((1, 2), 3)])) };
    let unwritable = step.run("unwritable", map).await.unwrap_err();
    let lopsided =
        step.run("lopsided", async || Ok::<_, HandlerError>(Lopsided)).await.unwrap_err();
    let data = HashMap::from([((1, 2), 3)]);
    let sent = step.send_event("sent", Event::new("shop/undone", &data)).await.unwrap_err();
    let invoked = step.invoke::<()>("invoked", Invoke::new("f").data(&data)).await.unwrap_err();
    let nobody = step.invoke::<()>("nobody", Invoke::new(" ")).await.unwrap_err();
    let nothing =
        step.wait_for_event::<()>("nothing", Wait::new("", Duration::ZERO)).await.unwrap_err();
    let nameless = step.send_event("nameless", Event::new("", ())).await.unwrap_err();
    let wait = Wait::new("shop/approved", Duration::MAX);
    let forever = step.wait_for_event::<()>("forever", wait).await.unwrap_err();
    let long = step.sleep("long", Duration::MAX).await.unwrap_err();
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(300_000_000_000);
    let late = step.sleep_until("late", far).await.unwrap_err();
    Ok([unwritable, lopsided, sent, invoked, nobody, nothing, nameless, forever, long, late]
        .iter()
        .map(ToString::to_string)
        .collect())
}

#[tokio::test]
async fn values_that_are_no_json() {
    let api =
        inngest_failure::Api::builder().dev_server("http://127.0.0.1:9").dev(true).build().unwrap();
    let dispatcher = builder().api(api).register(handlers![values]).build().unwrap();
    let result = in_process(&dispatcher).await;
    let expected = [
        "step `unwritable` failed: what step `unwritable` returned can't be written as JSON: key must be a string",
        "what step `lopsided` has returned does not fit `steps::misuse::Lopsided`: invalid type: integer, expected a \
         string; let the type take what it writes, and what it wrote before it was changed",
        "step `sent` failed: no event was sent: the data of event `shop/undone`: key must be a string",
        "step `invoked`: the function's data can't be written as JSON: key must be a string",
        "step `nobody` is for a function without a name; give it one",
        "step `nothing` is for an event without a name; give it one",
        "step `nameless` is for an event without a name; give it one",
        "step `forever`: a wait of more than 292 years is not to be had",
        "step `long`: a sleep of more than 292 years is not to be had",
        "step `late`: a time beyond the year 9999 is not to be had",
    ];
    assert_eq!(result, json!(expected));
}

#[on_failure(function = "checkout", id = "plain")]
fn plain_fn(_step: Step) {}

#[on_failure(function = "checkout", id = "limited", rate_limit = "1/5m")]
async fn limited(_step: Step, _failure: Failure) {}

#[test]
fn a_plain_fn_and_a_rate_limit_are_errors_of_the_build() {
    let error = builder().register(handlers![plain_fn, limited]).build().unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(
            "it takes `Step` but is a plain `fn`, which can't await one; make it an `async fn`"
        ),
        "{text}"
    );
    assert!(
        text.contains(
            "it takes `Step` and has a `rate_limit`, which drops runs, and with them the compensation; limit it with \
             `throttle`, which lets runs wait"
        ),
        "{text}"
    );
}

/// An extractor that takes steps and does not say so.
struct Sly;

impl inngest_failure::FromFailure for Sly {
    type Rejection = inngest_failure::NonRetriable;

    async fn from_failure(cx: &inngest_failure::Context) -> Result<Self, Self::Rejection> {
        Step::from_failure(cx).await.map(|_| Self)
    }
}

#[on_failure(function = "checkout", id = "sly")]
async fn sly(_sly: Sly) {}

#[tokio::test]
async fn an_extractor_that_does_not_say_that_it_takes_steps() {
    let dispatcher = builder().register(handlers![sly]).build().unwrap();
    assert_eq!(
        in_process(&dispatcher).await,
        "the handler was called without steps; the extractor that takes a `Step` is to say so in its `needs`, with \
         `needs.steps()`, or to call `Step::needs`"
    );
}
