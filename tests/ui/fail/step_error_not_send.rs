use std::error::Error;

use inngest_failure::{HandlerError, Step, on_failure};

async fn refund() -> Result<(), Box<dyn Error>> {
    Ok(())
}

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<(), HandlerError> {
    step.run("refund", refund).await?;
    Ok(())
}

fn main() {}
