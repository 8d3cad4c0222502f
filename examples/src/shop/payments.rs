//! Payments: what a failed checkout has taken is given back, once.

use std::{
    env,
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
    provider.refund(key, charge_id, Cents(charged))?;
    store::note_undone(&tx, key)?;
    tx.commit()?;
    Ok(format!("refunded {}", Cents(charged)))
}

/// Stands for the client of a payment provider; it is busy when it is called for the first time.
#[derive(Clone, Default)]
pub(crate) struct Provider {
    was_called: Arc<AtomicBool>,
    is_down: bool,
}

impl Provider {
    /// Down, if the environment has it so.
    pub(crate) fn from_env() -> Self {
        let is_down = env::var_os("SHOP_PROVIDER").is_some_and(|state| state == "down");
        Self { is_down, ..Self::default() }
    }

    /// Pays once per key.
    fn refund(&self, key: &str, _charge_id: &str, amount: Cents) -> Result<(), HandlerError> {
        if self.is_down {
            return Err("the payment provider does not answer".into());
        }
        if !self.was_called.swap(true, Ordering::Relaxed) {
            // By its own word it knows when to come back.
            let wait = Duration::from_millis(50);
            let busy = format!("the payment provider is busy for {wait:?}");
            return Err(HandlerError::retry_after(busy, wait));
        }
        tracing::info!(key, "the payment provider pays {amount}");
        Ok(())
    }
}
