//! Checkouts: what one had done before it failed is undone, step by step, the last one first.
//!
//! The function `checkout`, in whatever language it is written, reserves the stock, charges the card and ships. Each
//! handler here undoes one of these steps, if the failed run had completed it.

use inngest_failure::{Failure, HandlerError, State, StepOutput, on_failure};
use serde::Deserialize;

use super::{
    payments::{self, Provider},
    stock,
    store::Store,
};

/// What the step `charge-card` returns.
#[derive(Deserialize)]
struct Charge {
    charge_id: String,
}

/// Give the money back, if the card had been charged.
#[on_failure(function = "checkout", step = "charge-card", retries = 4, timeout = "10s")]
async fn refund_card(
    charge: StepOutput<Charge>,
    failure: Failure,
    State(store): State<Store>,
    State(provider): State<Provider>,
) -> Result<String, HandlerError> {
    // The same at every attempt, and when the same event comes a second time: the provider pays once.
    let key = charge.idempotency_key();
    let why = failure.error.to_string();
    payments::refund(&store, &provider, charge.into_inner().charge_id, key, why).await
}

/// What the step `reserve-stock` returns.
#[derive(Deserialize)]
struct Reserved {
    reservation: String,
}

/// Put the goods back on the shelf, if they had been reserved.
///
/// A plain `fn`, since SQLite blocks.
#[on_failure(function = "checkout", step = "reserve-stock")]
fn release_stock(
    reserved: StepOutput<Reserved>,
    State(store): State<Store>,
) -> Result<String, HandlerError> {
    let key = reserved.idempotency_key();
    let units = stock::release(&mut store.lock(), &reserved.reservation, &key)?;
    Ok(match units {
        0 => "already restocked".to_owned(),
        units => format!("restocked {units}"),
    })
}
