use std::time::Duration;

use inngest_failure::{HandlerError, Step, Wait, on_failure};

struct Approval;

#[on_failure(function = "checkout")]
async fn undo(step: Step) -> Result<(), HandlerError> {
    let wait = Wait::new("shop/refund.approved", Duration::from_secs(60));
    let _approval = step.wait_for_event::<Approval>("approval", wait).await?;
    Ok(())
}

fn main() {}
