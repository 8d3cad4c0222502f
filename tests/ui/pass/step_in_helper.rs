//! Steps in functions that a handler calls: by reference, by value, generic, boxed for recursion and in a trait.

use inngest_failure::{Dispatcher, HandlerError, Step, StepError, on_failure};

async fn refund(step: &Step, cents: &mut u32) -> Result<(), HandlerError> {
    *cents += step.run("refund", async || Ok::<_, HandlerError>(1)).await?;
    Ok(())
}

async fn restock(step: Step) -> Result<u32, StepError> {
    step.run("restock", async || Ok::<_, HandlerError>(10)).await
}

async fn remembered<T, F>(
    step: &Step,
    id: &str,
    f: impl FnOnce() -> F + Send,
) -> Result<T, StepError>
where
    T: serde::Serialize + serde::de::DeserializeOwned + Send,
    F: Future<Output = Result<T, HandlerError>> + Send,
{
    step.run(id, f).await
}

fn countdown(step: &Step, from: u32) -> impl Future<Output = Result<u32, HandlerError>> + Send {
    async move {
        let left = step.run("count", async || Ok::<_, HandlerError>(from - 1)).await?;
        match left {
            0 => Ok(100),
            _ => Box::pin(countdown(step, left)).await,
        }
    }
}

struct Saga<'a> {
    step: &'a Step,
}

impl Saga<'_> {
    async fn tell(&self) -> Result<u32, StepError> {
        self.step.run("tell", async || Ok::<_, HandlerError>(1000)).await
    }
}

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<u32, HandlerError> {
    let mut sum = 0;
    refund(&step, &mut sum).await?;
    sum += remembered(&step, "generic", async || Ok(10_000)).await?;
    sum += countdown(&step, 3).await?;
    sum += Saga { step: &step }.tell().await?;
    sum += restock(step).await?;
    Ok(sum)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dispatcher = Dispatcher::builder().app("shop").build().unwrap();
    let report = dispatcher.dispatch_json(EVENT).await.unwrap();
    assert_eq!(report.runs[0].result.as_ref().unwrap(), &serde_json::json!(11_111));
}

const EVENT: &[u8] = br#"{"name":"inngest/function.failed","data":{"function_id":"shop-checkout",
    "run_id":"r1","error":{"message":"declined"},"event":{"data":{"order_id":"o1"}}}}"#;
