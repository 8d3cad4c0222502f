//! Steps that are awaited together, by a macro or as a collection.

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use inngest_failure::{Dispatcher, HandlerError, Step, on_failure};

async fn double(number: u32) -> Result<u32, HandlerError> {
    tokio::task::yield_now().await;
    Ok(2 * number)
}

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<u32, HandlerError> {
    let two = step.run("two", || double(1));
    let four = step.run("four", async || Ok::<_, std::io::Error>(4));
    let (two, four) = tokio::join!(two, four);
    let mut sum = two? + four?;

    let (six, text) = tokio::try_join!(
        step.run("six", || double(3)),
        step.run("text", async || Ok::<_, HandlerError>(String::from("8"))),
    )?;
    sum += six + text.len() as u32;

    for number in join_all((0..3).map(|n| step.run("all", move || double(n)))).await {
        sum += number?;
    }

    let mut unordered: FuturesUnordered<_> =
        (0..3).map(|n| step.run("unordered", move || double(n))).collect();
    while let Some(number) = unordered.next().await {
        sum += number?;
    }
    Ok(sum)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), &serde_json::json!(25));
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
