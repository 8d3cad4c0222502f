//! The same handlers in process, at an endpoint and in a server of the SDK.

use std::time::Duration;

use inngest_failure::{
    Backoff, Dispatcher, Failure, FailureEvent, HandlerError, RunContext, State, Step, handlers,
    on_failure,
    testing::{TestRun, failure},
};
use serde_json::{Value, json};

use crate::{Outcome, Seen, builder, handler, open, server::Server};

/// Refunds, after the provider was busy once; restocks in a loop; tells, in vain, and asks a person then.
#[on_failure(function = "checkout", retries = 2)]
async fn undo_checkout(
    failure: Failure,
    run: RunContext,
    State(seen): State<Seen>,
    step: Step,
) -> Outcome<Value> {
    let key = failure.idempotency_key("refund");
    let refund = step
        .run("refund", async || {
            if run.attempt == 0 {
                return Err(format!("{key} is busy"));
            }
            seen.note("refund");
            Ok(key.clone())
        })
        .await?;
    step.sleep("breath", Duration::from_secs(60)).await?;
    let mut units = Vec::new();
    for shelf in ["a", "b"] {
        units.push(
            step.run("restock", async || {
                seen.note(format!("restock {shelf}"));
                Ok::<_, HandlerError>(shelf.len())
            })
            .await?,
        );
    }
    let (told, noted) = tokio::join!(
        step.run("tell", async || -> Outcome<u32> {
            Err(HandlerError::non_retriable(std::io::Error::other("no address")))
        }),
        step.run("note", async || {
            seen.note("note");
            Ok::<_, HandlerError>(json!({ "inngest-failure": [failure.error.message] }))
        })
    );
    let noted = noted?;
    let Err(error) = told else { return Err("it was told")? };
    let asked = step
        .run("ask", async || {
            seen.note("ask");
            Ok::<_, HandlerError>(format!("{}: {}", error.step_id, error.message))
        })
        .await?;
    Ok(json!({ "refund": refund, "units": units, "noted": noted, "asked": asked }))
}

/// Its second step fails for good, and it does not recover.
#[on_failure(function = "checkout", id = "gives-up", retries = 1)]
async fn gives_up(State(seen): State<Seen>, step: Step) -> Outcome {
    step.run("first", async || {
        seen.note("first");
        Ok::<_, HandlerError>(())
    })
    .await?;
    step.run("second", async || {
        seen.note("second");
        Err::<(), _>("never")
    })
    .await?;
    seen.note("not reached");
    Ok(())
}

/// Without steps.
#[on_failure(function = "checkout", id = "plain", retries = 2)]
async fn plain(run: RunContext, State(seen): State<Seen>) -> Outcome<u32> {
    seen.note("plain");
    match run.is_last_attempt() {
        true => Ok(run.attempt),
        false => Err("not yet".into()),
    }
}

/// What came of a handler, and what its closures did.
type Came = (Result<Value, String>, Vec<String>);

fn dispatcher(seen: &Seen) -> Dispatcher {
    let backoff = Backoff::new().first(Duration::from_millis(1)).max(Duration::from_millis(1));
    let registered = builder().register(handlers![undo_checkout, gives_up, plain]);
    registered.backoff(backoff).state(seen.clone()).build().unwrap()
}

async fn in_process(id: &str, event: &FailureEvent) -> Came {
    let seen = Seen::default();
    tokio::time::pause();
    let dispatch = dispatcher(&seen).dispatch(event.clone()).await;
    tokio::time::resume();
    let mut runs = dispatch.runs.into_iter();
    let run = runs.find(|run| run.handler_id == id).unwrap();
    let of_this = |what: &String| (id == "plain") == (what == "plain");
    let mut did = seen.take();
    // All handlers of the failure run in one dispatch; tell them apart by what they do.
    did.retain(|what| match id {
        "gives-up" => ["first", "second", "not reached"].contains(&what.as_str()),
        "plain" => of_this(what),
        _ => of_this(what) && !["first", "second"].contains(&what.as_str()),
    });
    let result = run.result.map_err(|error| error.to_string());
    // In process a step's error names the step.
    let named = "step `second` failed: ";
    (result.map_err(|error| error.replace(named, "")), did)
}

async fn at_an_endpoint(id: &str, event: &FailureEvent) -> Came {
    let seen = Seen::default();
    let transcript = TestRun::new(&dispatcher(&seen), id, event.clone()).run().await;
    let result = match transcript.result() {
        Ok(value) => Ok(value.clone()),
        Err(error) => Err(error["message"].as_str().unwrap().to_owned()),
    };
    (result, seen.take())
}

async fn in_the_sdk(id: &str, event: &FailureEvent) -> Came {
    let seen = Seen::default();
    let dispatcher = dispatcher(&seen);
    let info = dispatcher.handlers().iter().find(|info| info.id == id).unwrap();
    let attempts = info.retries + 1;
    let server = Server::start(handler(&dispatcher), Some(open())).await;
    let id = id.strip_prefix("shop-").unwrap_or(id);
    let run = server.run(&format!("shop-{id}"), event, attempts).await;
    (run.result.map_err(|error| error["message"].as_str().unwrap().to_owned()), seen.take())
}

#[tokio::test]
async fn the_same_handlers_do_the_same_in_process_at_an_endpoint_and_in_the_sdk() {
    let event = failure("shop-checkout").error("card declined").run_id("r1").build();
    let undone = json!({
        "refund": "r1:refund", "units": [1, 1], "asked": "tell: no address",
        "noted": { "inngest-failure": ["card declined"] },
    });
    let did = ["refund", "restock a", "restock b", "note", "ask"];
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    for (id, expected) in [
        ("shop-checkout-failure", (Ok(undone), texts(&did))),
        ("gives-up", (Err("never".to_owned()), texts(&["first", "second", "second"]))),
        ("plain", (Ok(json!(2)), texts(&["plain"; 3]))),
    ] {
        assert_eq!(in_process(id, &event).await, expected, "{id} in process");
        assert_eq!(at_an_endpoint(id, &event).await, expected, "{id} at an endpoint");
        assert_eq!(in_the_sdk(id, &event).await, expected, "{id} in the SDK");
    }
}
