use std::{future::ready, rc::Rc};

use inngest_failure::{HandlerError, Step, on_failure};

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<(), HandlerError> {
    let refund = async || {
        let shared = Rc::new(1);
        ready(()).await;
        drop(shared);
        Ok::<_, HandlerError>(())
    };
    step.run("refund", refund).await?;
    Ok(())
}

fn main() {}
