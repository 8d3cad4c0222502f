//! Checkouts: one that fails is undone, step by step.

use inngest_failure::{Failure, HandlerError, State, Step, on_failure};

use super::{
    messages::{Outbox, To},
    payments::{self, Provider},
    stock,
    store::{Order, Store},
};

/// Give the money back, then put the goods back, then tell the customer.
///
/// Each part is a step: one that has completed is not done again because a later one fails.
#[on_failure(function = "checkout", retries = 4, timeout = "10s")]
async fn undo_checkout(
    failure: Failure<Order>,
    State(store): State<Store>,
    State(provider): State<Provider>,
    State(outbox): State<Outbox>,
    step: Step,
) -> Result<String, HandlerError> {
    let order_id = &failure.event.data.order_id;

    // The same however often the step runs, and when the same event comes a second time: the provider pays once.
    let key = failure.idempotency_key("refund");
    let why = failure.error.to_string();
    let refund =
        step.run("refund", || payments::refund(&store, &provider, order_id, key, why)).await?;

    let key = failure.idempotency_key("restock");
    let units = step.run("restock", || stock::restock(&store, order_id, key)).await?;

    let key = failure.idempotency_key("apologise");
    let text = format!("we are sorry: order {order_id} did not go through; {refund}");
    let customer = To::CustomerOf(order_id.clone());
    let mail = step.run("apologise", || outbox.send(key, customer, text)).await?;

    Ok(format!("{refund}, restocked {units}, mail {mail}"))
}
