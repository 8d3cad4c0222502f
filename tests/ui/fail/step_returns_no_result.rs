use inngest_failure::{HandlerError, Step, on_failure};

async fn refund() -> u64 {
    1250
}

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<(), HandlerError> {
    let _cents = step.run("refund", refund).await?;
    Ok(())
}

fn main() {}
