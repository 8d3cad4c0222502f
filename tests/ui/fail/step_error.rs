use inngest_failure::{HandlerError, Step, on_failure};

struct Declined;

async fn refund() -> Result<(), Declined> {
    Err(Declined)
}

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<(), HandlerError> {
    step.run("refund", refund).await?;
    Ok(())
}

fn main() {}
