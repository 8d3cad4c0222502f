use inngest_failure::{HandlerError, Step, on_failure};

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<(), HandlerError> {
    step.run("refund", || Ok::<_, HandlerError>(())).await?;
    Ok(())
}

fn main() {}
