//! Stock: what was set aside for an order that comes to nothing goes back on the shelf.

use inngest_failure::{Failure, HandlerError, State, on_failure};
use rusqlite::Connection;
use serde::Serialize;

use super::store::{self, Order, Store};

/// Put back what the depot did not pick, or not in time: Inngest's own time-outs cancel a run.
///
/// A plain `fn`, since SQLite blocks.
#[on_failure(app = "depot", function = "pick-*", cancelled)]
fn unpick(failure: Failure<Order>, State(store): State<Store>) -> Result<Restocked, HandlerError> {
    let key = failure.idempotency_key("restock");
    let units = release(&mut store.lock(), &failure.event.data.order_id, &key)?;
    Ok(Restocked { units })
}

/// How many units went back: a handler returns anything that is `Serialize`.
#[derive(Serialize)]
struct Restocked {
    units: u32,
}

/// Puts back what an order had reserved: how many units that were.
pub(super) async fn restock(
    store: &Store,
    order_id: &str,
    key: String,
) -> Result<u32, HandlerError> {
    let order_id = order_id.to_owned();
    store.work(move |db| release(db, &order_id, &key)).await
}

fn release(db: &mut Connection, order_id: &str, key: &str) -> Result<u32, HandlerError> {
    let tx = store::write(db)?;
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
        [order_id, key],
    )?;
    tx.commit()?;
    Ok(units)
}
