//! A `StepError` goes into the error of a handler, whichever it is, and is looked at before.

use std::error::Error;

use inngest_failure::{Dispatcher, Step, StepError, on_failure};

async fn refund() -> anyhow::Result<()> {
    anyhow::bail!("no such charge")
}

#[on_failure(function = "checkout", id = "a", retries = 0)]
async fn undo(step: Step) -> Result<(), Box<dyn Error + Send + Sync>> {
    step.run("refund", refund).await?;
    Ok(())
}

#[on_failure(function = "checkout", id = "b", retries = 0)]
async fn undo_anyhow(step: Step) -> anyhow::Result<()> {
    step.run("refund", refund).await?;
    Ok(())
}

#[on_failure(function = "checkout", id = "c", retries = 0)]
async fn undo_step(step: Step) -> Result<(), StepError> {
    step.run("refund", refund).await
}

#[on_failure(function = "checkout", id = "d", retries = 0)]
async fn recover(step: Step) -> Result<String, StepError> {
    match step.run("refund", refund).await {
        Ok(()) => Ok(String::new()),
        Err(error) => step.run("tell", async || Ok::<_, StepError>(error.to_string())).await,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    for run in &report.runs {
        match (&*run.handler_id, &run.result) {
            ("d", Ok(value)) => assert!(value.as_str().unwrap().contains("no such charge")),
            (id, Err(error)) if id != "d" => {
                assert!(error.to_string().contains("no such charge"), "{error}");
            }
            (id, result) => panic!("{id}: {result:?}"),
        }
    }
    assert_eq!(report.runs.len(), 4);
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
