//! The shop's books: an SQLite database.

use std::{
    error::Error,
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use inngest_failure::{HandlerError, ResultExt};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use serde::Deserialize;

use crate::tidy;

/// What the data of every event of the shop holds.
#[derive(Deserialize)]
pub(crate) struct Order {
    /// The functions are written in three languages, and each team has its own spelling.
    #[serde(alias = "orderId", alias = "order")]
    pub(crate) order_id: String,
}

/// Marks a database file as this example's: `shop` in ASCII.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"shop");

/// The books, which handlers take as `State<Store>`; a clone is the same books.
///
/// SQLite blocks: so a handler that uses it is a plain `fn`, which runs on the blocking pool, or calls `work`.
#[derive(Clone, Debug)]
pub struct Store {
    db: Arc<Mutex<Connection>>,
}

impl Store {
    /// The books in this file, which is made if it is not there, or else in memory.
    ///
    /// # Errors
    ///
    /// Why the file can't be used, as a message for the user.
    pub fn open(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else {
            return Connection::open_in_memory()
                .map_err(Into::into)
                .and_then(Self::new)
                .map_err(|error| format!("cannot make a database: {error}"));
        };
        Connection::open(path).map_err(Into::into).and_then(Self::new).map_err(|error| {
            format!(
                "cannot keep the books in `{}`: {error}; name a file that this example made, or a new \
                 one in a directory that is there",
                path.display(),
            )
        })
    }

    fn new(mut db: Connection) -> Result<Self, Box<dyn Error>> {
        let tx = write(&mut db)?;
        let owner: i32 = tx.pragma_query_value(None, "application_id", |row| row.get(0))?;
        if owner != APPLICATION_ID {
            let tables: u32 =
                tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables > 0 {
                return Err("it is another program's database".into());
            }
            tx.execute_batch(include_str!("schema.sql"))?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        tx.commit()?;
        Ok(Self { db: Arc::new(Mutex::new(db)) })
    }

    /// The database. Not to be held across an `.await`.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        // A handler that panicked has left nothing half done: its transaction was rolled back.
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works with the database on the blocking pool, for an `async fn` must not block.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, HandlerError> + Send + 'static,
    ) -> Result<T, HandlerError> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&mut store.lock())).await?
    }

    /// The steps of this run that were undone, in order.
    ///
    /// # Errors
    ///
    /// What SQLite failed with.
    pub fn undone(&self, run_id: &str) -> rusqlite::Result<Vec<String>> {
        let db = self.lock();
        // The key of an undo is the run's id and the step's: `01M82KHGGM4VS44SRQQMJGT0D1:undo/charge-card`.
        let begins_with = format!("{run_id}:undo/");
        db.prepare("SELECT substr(key, length(?1) + 1) FROM undone WHERE instr(key, ?1) = 1 ORDER BY place")?
            .query_map([begins_with], |row| row.get(0))?
            .collect()
    }

    /// What stands in the books.
    ///
    /// # Errors
    ///
    /// What SQLite failed with.
    pub fn totals(&self) -> rusqlite::Result<Totals> {
        let db = self.lock();
        let failures = db
            .prepare("SELECT function_id, count(*) FROM failures GROUP BY 1 ORDER BY 2 DESC, 1")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        db.query_row(
            "SELECT (SELECT count(*) FROM payments WHERE cents < 0),
                    (SELECT -coalesce(sum(cents), 0) FROM payments WHERE cents < 0),
                    (SELECT coalesce(sum(units), 0) FROM reservations WHERE released_by IS NOT NULL),
                    (SELECT count(*) FROM outbox WHERE recipient <> 'team'),
                    (SELECT count(*) FROM outbox WHERE recipient = 'team')",
            [],
            |row| {
                Ok(Totals {
                    refunds: row.get(0)?,
                    refunded: Cents(row.get(1)?),
                    restocked: row.get(2)?,
                    mails: row.get(3)?,
                    alerts: row.get(4)?,
                    failures,
                })
            },
        )
    }
}

/// A transaction that means to write, and so waits for other writers now, not half-way through.
///
/// Dropped without a commit, as by `?`, it is rolled back.
pub(crate) fn write(db: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    db.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// The address of the customer who placed the order.
///
/// That there is no such order is an error that no retry will mend.
pub(crate) fn customer_of(db: &Connection, order_id: &str) -> Result<String, HandlerError> {
    let email = db
        .query_row("SELECT email FROM orders WHERE id = ?1", [order_id], |row| row.get(0))
        .optional()?
        .ok_or_else(|| format!("there is no order `{order_id}` in the books; enter it first"))
        .non_retriable()?;
    Ok(email)
}

/// The reservation of the order.
///
/// That there is none is an error that no retry will mend.
pub(crate) fn reservation_of(db: &Connection, order_id: &str) -> Result<String, HandlerError> {
    let reservation = "SELECT id FROM reservations WHERE order_id = ?1";
    let id = db
        .query_row(reservation, [order_id], |row| row.get(0))
        .optional()?
        .ok_or_else(|| {
            format!("there is no reservation for order `{order_id}` in the books; enter it first")
        })
        .non_retriable()?;
    Ok(id)
}

/// Notes that something was undone, in the transaction that undoes it.
pub(crate) fn note_undone(tx: &Transaction<'_>, key: &str) -> rusqlite::Result<()> {
    tx.execute("INSERT INTO undone (key) VALUES (?1) ON CONFLICT (key) DO NOTHING", [key])?;
    Ok(())
}

/// An amount of money.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cents(pub(crate) i64);

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} EUR", self.0 / 100, self.0 % 100)
    }
}

/// What stands in the books.
#[derive(Debug)]
pub struct Totals {
    refunds: u32,
    refunded: Cents,
    restocked: u32,
    mails: u32,
    alerts: u32,
    /// How many runs of each function failed or were cancelled, the most first.
    failures: Vec<(String, u32)>,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "refunds         {}, {} given back", self.refunds, self.refunded)?;
        writeln!(f, "units restocked {}", self.restocked)?;
        writeln!(f, "mails           {}", self.mails)?;
        writeln!(f, "alerts          {}", self.alerts)?;
        write!(f, "failed runs     {}", self.failures.iter().map(|(_, n)| n).sum::<u32>())?;
        for (function_id, n) in &self.failures {
            write!(f, "\n  {n:>4} of {}", tidy(function_id, 60))?;
        }
        Ok(())
    }
}
