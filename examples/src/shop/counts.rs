//! Counts: how often each function fails.

use inngest_failure::{FailureEvent, HandlerError, State, on_failure};

use super::store::Store;

/// The id of the handler that counts, by which a report knows it.
pub const COUNT: &str = "count";

/// Count every failed or cancelled run of every function, once.
#[on_failure(function = "*", cancelled, id = COUNT)]
fn count(event: FailureEvent, State(store): State<Store>) -> Result<(), HandlerError> {
    store.lock().execute(
        "INSERT INTO failures VALUES (?1, ?2) ON CONFLICT (run_id) DO NOTHING",
        [event.run_id(), event.function_id()],
    )?;
    Ok(())
}
