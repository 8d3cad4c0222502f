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
    let mut db = store.lock();
    let reservation = store::reservation_of(&db, &failure.event.data.order_id)?;
    let units = release(&mut db, &reservation, &key)?;
    Ok(Restocked { units })
}

/// How many units went back: a handler returns anything that is `Serialize`.
#[derive(Serialize)]
struct Restocked {
    units: u32,
}

/// Puts back what was reserved, unless that was done before: how many units that were.
pub(super) fn release(
    db: &mut Connection,
    reservation: &str,
    key: &str,
) -> Result<u32, HandlerError> {
    let tx = store::write(db)?;
    let units = tx.query_row(
        "SELECT coalesce(sum(units), 0) FROM reservations WHERE id = ?1 AND released_by IS NULL",
        [reservation],
        |row| row.get(0),
    )?;
    tx.execute(
        "UPDATE stock SET units = stock.units + r.units FROM reservations r
         WHERE r.sku = stock.sku AND r.id = ?1 AND r.released_by IS NULL",
        [reservation],
    )?;
    // Marked, not deleted: so the second time there is nothing to put back.
    tx.execute(
        "UPDATE reservations SET released_by = ?2 WHERE id = ?1 AND released_by IS NULL",
        [reservation, key],
    )?;
    store::note_undone(&tx, key)?;
    tx.commit()?;
    Ok(units)
}
