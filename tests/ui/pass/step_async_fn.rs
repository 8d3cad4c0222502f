//! A step is a plain async function as well as a closure, and its error any that turns into `HandlerError`.

use std::error::Error;

use inngest_failure::{Dispatcher, HandlerError, Step, on_failure};

async fn handler_error() -> Result<u32, HandlerError> {
    Ok(1)
}

async fn standard() -> Result<u32, std::num::ParseIntError> {
    "10".parse()
}

async fn boxed() -> Result<u32, Box<dyn Error + Send + Sync>> {
    Ok("100".parse()?)
}

async fn text() -> Result<u32, String> {
    Ok(1000)
}

fn written_by_hand() -> impl Future<Output = Result<u32, &'static str>> + Send {
    std::future::ready(Ok(10_000))
}

struct Shop;

impl Shop {
    async fn associated() -> anyhow::Result<u32> {
        Ok(100_000)
    }
}

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<u32, HandlerError> {
    let mut sum = step.run("handler error", handler_error).await?;
    sum += step.run("standard", standard).await?;
    sum += step.run("boxed", boxed).await?;
    sum += step.run("text", text).await?;
    sum += step.run("by hand", written_by_hand).await?;
    sum += step.run("associated", Shop::associated).await?;
    Ok(sum)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), &serde_json::json!(111_111));
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
