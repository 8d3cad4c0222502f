use inngest_failure::{Failure, HandlerError, Step, on_failure};

#[derive(serde::Deserialize)]
struct Order {
    order_id: String,
}

#[on_failure(function = "checkout")]
async fn undo(failure: Failure<Order>, step: Step) -> Result<(), HandlerError> {
    let order_id = failure.event.data.order_id.as_str();
    let _order_id = step.run("order", async || Ok::<_, HandlerError>(order_id)).await?;
    Ok(())
}

fn main() {}
