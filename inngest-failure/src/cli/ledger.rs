//! Which handler has run for which event: an SQLite database.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OpenFlags, params};
use tokio::sync::{mpsc, oneshot};

use super::Fatal;
use crate::dead_letter::{DeadLetter, private, rfc3339};

/// The version of the tables below.
const VERSION: i64 = 1;

const TABLES: &str = "
    CREATE TABLE runs (
        handler_id TEXT NOT NULL,
        event_id   TEXT NOT NULL,
        succeeded  INTEGER NOT NULL,
        at         TEXT NOT NULL,
        attempts   INTEGER NOT NULL,
        letter     TEXT, -- of one that has failed for good
        PRIMARY KEY (handler_id, event_id)
    ) WITHOUT ROWID;
    PRAGMA user_version = 1;";

/// The ledger, which a thread of its own keeps.
#[derive(Clone)]
pub(super) struct Ledger {
    keeper: Arc<Keeper>,
}

/// The thread. With the last who might ask, it ends.
struct Keeper {
    tasks: Option<mpsc::Sender<Task>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Waits until the database is closed: all of it is then in the one file, which another may open.
impl Drop for Keeper {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is known of a handler and an event.
#[derive(Debug)]
pub(super) enum Status {
    New,
    Succeeded,
    /// It has failed for good, with this letter if it could be kept.
    Failed(Option<Box<DeadLetter>>),
}

/// What became of a handler's run.
pub(super) struct Record {
    pub(super) handler_id: String,
    pub(super) event_id: String,
    pub(super) attempts: u32,
    /// None if it has succeeded.
    pub(super) failed: Option<Option<Box<DeadLetter>>>,
}

enum Task {
    Look { event_id: String, reply: oneshot::Sender<Result<HashMap<String, Status>, String>> },
    Record { records: Vec<Record>, reply: oneshot::Sender<Result<(), String>> },
}

impl Ledger {
    /// Opens the ledger, which no other program may use meanwhile; it is made if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, Fatal> {
        let connection = open(path).map_err(|fault| {
            let path = path.display();
            let error = match fault {
                Fault::Version(version) => {
                    return Fatal::new(format!(
                        "`{path}` is no ledger that this version of the program knows (its `user_version` is \
                         {version}); give `--ledger` another file"
                    ));
                }
                Fault::Sqlite(error) => error,
            };
            let remedy = match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy) => {
                    "another program is using it; wait until it is done, or give `--ledger` another file"
                }
                Some(rusqlite::ErrorCode::NotADatabase) => {
                    "give `--ledger` another file, or one that is not there yet"
                }
                _ => "give `--ledger` a file that can be written, or `--no-ledger`",
            };
            Fatal::new(format!("can't use the ledger `{path}`: {error}; {remedy}"))
        })?;
        let (tasks, waiting) = mpsc::channel(1024);
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || keep(connection, waiting))
            .map_err(|error| Fatal::new(format!("can't start a thread for the ledger: {error}")))?;
        Ok(Self { keeper: Arc::new(Keeper { tasks: Some(tasks), thread: Some(thread) }) })
    }

    /// What is known of the event, by handlers.
    pub(super) async fn look(&self, event_id: &str) -> Result<HashMap<String, Status>, String> {
        let (reply, answer) = oneshot::channel();
        self.ask(Task::Look { event_id: event_id.to_owned(), reply }, answer).await
    }

    /// Writes down what became of an event: when this returns it is on the disk.
    pub(super) async fn record(&self, records: Vec<Record>) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.ask(Task::Record { records, reply }, answer).await
    }

    async fn ask<T>(
        &self,
        task: Task,
        answer: oneshot::Receiver<Result<T, String>>,
    ) -> Result<T, String> {
        let gone = || "the ledger's thread is gone".to_owned();
        let tasks = self.keeper.tasks.as_ref().ok_or_else(gone)?;
        tasks.send(task).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Why there is no ledger in a file.
enum Fault {
    /// It is a database of another kind, or of another version.
    Version(i64),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn open(path: &Path) -> Result<Connection, Fault> {
    // It holds what the events hold, and SQLite would make it for everybody. What is wrong with it SQLite says.
    let _ = private().create(true).append(true).open(path);
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(Duration::from_millis(200))?;
    connection.pragma_update(None, "locking_mode", "exclusive")?;
    // First of all, for somebody else's database must stay as it is.
    let version = version(&connection)?;
    if version != VERSION && (version != 0 || has_tables(&connection)?) {
        return Err(Fault::Version(version));
    }
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    // A transaction, so that the lock is there from now on.
    connection.execute_batch("BEGIN IMMEDIATE")?;
    if !has_tables(&connection)? {
        connection.execute_batch(TABLES)?;
    }
    connection.execute_batch("COMMIT")?;
    Ok(connection)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) > 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Does what is asked for, until nobody is left who asks. What is waiting goes to the disk together.
fn keep(mut connection: Connection, mut tasks: mpsc::Receiver<Task>) {
    let mut waiting = Vec::new();
    while tasks.blocking_recv_many(&mut waiting, 1024) > 0 {
        let mut written = Vec::new();
        let result = (|| {
            let transaction = connection.transaction()?;
            for task in waiting.drain(..) {
                match task {
                    Task::Look { event_id, reply } => {
                        let known = look(&transaction, &event_id);
                        // Whoever asked may be gone, here and below.
                        let _ = reply.send(known.map_err(|error| error.to_string()));
                    }
                    Task::Record { records, reply } => {
                        let result = records.iter().try_for_each(|one| record(&transaction, one));
                        written.push((reply, result));
                    }
                }
            }
            transaction.commit()
        })();
        for (reply, own) in written {
            let both = own.and(result.as_ref().copied().map_err(clone));
            let _ = reply.send(both.map_err(|error| error.to_string()));
        }
        // Whoever asked and was not answered learns it from that.
        waiting.clear();
        if let Err(error) = result {
            tracing::error!(%error, "the ledger could not be written");
        }
    }
}

/// An error of SQLite's as another one with the same text: it can't be cloned.
fn clone(error: &rusqlite::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.to_string().into())
}

fn look(connection: &Connection, event_id: &str) -> rusqlite::Result<HashMap<String, Status>> {
    let mut query = connection
        .prepare_cached("SELECT handler_id, succeeded, letter FROM runs WHERE event_id = ?1")?;
    let rows = query.query_map([event_id], |row| {
        let letter: Option<String> = row.get(2)?;
        let status = match row.get(1)? {
            true => Status::Succeeded,
            false => Status::Failed(letter.and_then(|json| serde_json::from_str(&json).ok())),
        };
        Ok((row.get(0)?, status))
    })?;
    rows.collect()
}

fn record(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    let letter =
        record.failed.as_ref().and_then(|letter| serde_json::to_string(letter.as_ref()?).ok());
    let mut insert = connection.prepare_cached(
        "INSERT INTO runs (handler_id, event_id, succeeded, at, attempts, letter) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET succeeded = max(succeeded, excluded.succeeded), at = excluded.at,
             attempts = attempts + excluded.attempts, letter = CASE WHEN excluded.succeeded THEN NULL ELSE coalesce(excluded.letter, letter) END",
    )?;
    insert.execute(params![
        record.handler_id,
        record.event_id,
        record.failed.is_none(),
        rfc3339(SystemTime::now()),
        record.attempts,
        letter,
    ])?;
    Ok(())
}
