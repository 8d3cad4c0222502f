//! Payments: what a failed checkout has taken is given back, once.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use inngest_failure::{HandlerError, ResultExt};
use rusqlite::{Connection, OptionalExtension, params};

use super::store::{self, Cents, Store};

/// Gives back what was charged, once per key.
pub(super) async fn refund(
    store: &Store,
    provider: &Provider,
    charge_id: String,
    key: String,
    why: String,
) -> Result<String, HandlerError> {
    let provider = provider.clone();
    store.work(move |db| pay_back(db, &provider, &charge_id, &key, &why)).await
}

fn pay_back(
    db: &mut Connection,
    provider: &Provider,
    charge_id: &str,
    key: &str,
    why: &str,
) -> Result<String, HandlerError> {
    let tx = store::write(db)?;
    // How much is a matter of the books, not of the event.
    let charge = "SELECT order_id, cents FROM payments WHERE key = ?1";
    let (order_id, charged) = tx
        .query_row(charge, [charge_id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
        .optional()?
        .ok_or_else(|| format!("there is no charge `{charge_id}` in the books; enter it first"))
        .non_retriable()?;
    let entered = tx.execute(
        "INSERT INTO payments VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key) DO NOTHING",
        params![key, order_id, -charged, format!("refund: {why}")],
    )?;
    if entered == 0 {
        return Ok("already refunded".to_owned());
    }
    // If the provider refuses, the entry is rolled back. If the commit fails, the provider is asked
    // again, and knows by the key that it has paid. Nobody else can write meanwhile: SQLite has one
    // writer at a time.
    provider
        .refund(key, charge_id, Cents(charged))
        .map_err(|busy| HandlerError::retry_after(busy, busy.wait))?;
    store::note_undone(&tx, key)?;
    tx.commit()?;
    Ok(format!("refunded {}", Cents(charged)))
}

/// Stands for the client of a payment provider; it is busy when it is called for the first time.
#[derive(Clone, Default)]
pub(crate) struct Provider {
    was_called: Arc<AtomicBool>,
}

impl Provider {
    /// Pays once per key.
    fn refund(&self, key: &str, _charge_id: &str, amount: Cents) -> Result<(), Busy> {
        if !self.was_called.swap(true, Ordering::Relaxed) {
            return Err(Busy { wait: Duration::from_millis(50) });
        }
        tracing::info!(key, "the payment provider pays {amount}");
        Ok(())
    }
}

/// The payment provider has too much to do.
#[derive(Clone, Copy, Debug)]
struct Busy {
    /// When to come back, by its own word.
    wait: Duration,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the payment provider is busy for {:?}", self.wait)
    }
}

impl Error for Busy {}
