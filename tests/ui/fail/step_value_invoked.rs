use inngest_failure::{HandlerError, Invoke, Step, on_failure};

struct Receipt;

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<(), HandlerError> {
    let _receipt: Receipt = step.invoke("refund", Invoke::new("payments-refund")).await?;
    Ok(())
}

fn main() {}
