//! Stock: what was set aside for an order that comes to nothing goes back on the shelf.

use inngest_failure::{Failure, HandlerError, State, on_failure};
use serde::Serialize;

use super::store::{self, Order, Store};

/// Put back what a failed checkout had reserved.
#[on_failure(function = "checkout", id = "restock")]
fn restock(failure: Failure<Order>, State(store): State<Store>) -> Result<Restocked, HandlerError> {
    release(&store, &failure)
}

/// Put back what the depot did not pick, or not in time: Inngest's own time-outs cancel a run.
#[on_failure(app = "depot", function = "pick-*", cancelled)]
fn unpick(failure: Failure<Order>, State(store): State<Store>) -> Result<Restocked, HandlerError> {
    release(&store, &failure)
}

/// How many units went back: a handler returns anything that is `Serialize`.
#[derive(Serialize)]
struct Restocked {
    units: u32,
}

fn release(store: &Store, failure: &Failure<Order>) -> Result<Restocked, HandlerError> {
    let order_id = &failure.event.data.order_id;
    let mut db = store.lock();
    let tx = store::write(&mut db)?;
    store::customer_of(&tx, order_id)?;
    let units = tx.query_row(
        "SELECT coalesce(sum(units), 0) FROM reservations WHERE order_id = ?1 AND released_by IS NULL",
        [order_id],
        |row| row.get(0),
    )?;
    tx.execute(
        "UPDATE stock SET units = stock.units + r.units FROM reservations r
         WHERE r.sku = stock.sku AND r.order_id = ?1 AND r.released_by IS NULL",
        [order_id],
    )?;
    // Marked, not deleted: so the second time there is nothing to put back.
    tx.execute(
        "UPDATE reservations SET released_by = ?2 WHERE order_id = ?1 AND released_by IS NULL",
        [order_id, &failure.idempotency_key("restock")],
    )?;
    tx.commit()?;
    Ok(Restocked { units })
}
