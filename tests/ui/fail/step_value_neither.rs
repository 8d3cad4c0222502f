use inngest_failure::{HandlerError, Step, on_failure};

struct Receipt;

async fn refund() -> Result<Receipt, HandlerError> {
    Ok(Receipt)
}

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<(), HandlerError> {
    let _receipt = step.run("refund", refund).await?;
    Ok(())
}

fn main() {}
