use inngest_failure::{HandlerError, Step, on_failure};

async fn refund(step: &Step) {
    let _ = step.run("refund", async || Ok::<_, HandlerError>(())).await;
}

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<(), HandlerError> {
    let refunded = tokio::spawn(refund(&step));
    refunded.await?;
    Ok(())
}

fn main() {}
