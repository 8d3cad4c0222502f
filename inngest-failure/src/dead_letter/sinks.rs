//! Putting a letter where it is kept, or else in the log.

use std::{fmt, sync::Arc, time::Duration};

use super::{DeadLetter, DeadLetters};
use crate::{
    dispatcher::shown,
    error::{BoxError, chain},
    metrics,
    panic::{Caught, Panic, catch},
};

/// What has become of a letter: every sink has it, or it is in the log.
const KEPT: &str = "kept";
const LOGGED: &str = "logged";

/// How long a sink may take for one letter.
const TIMEOUT: Duration = Duration::from_secs(30);

/// All that a dispatcher does with its letters.
#[derive(Clone, Default)]
pub(crate) struct Sinks {
    sinks: Vec<Arc<dyn DeadLetters>>,
    /// Whether there are letters of failures that no handler took.
    pub(crate) unhandled: bool,
}

impl Sinks {
    pub(crate) fn add(&mut self, sink: Arc<dyn DeadLetters>) {
        self.sinks.push(sink);
    }

    /// Whether there is a place for letters of failures that no handler took.
    pub(crate) fn takes_unhandled(&self) -> bool {
        self.unhandled && !self.is_empty()
    }

    /// Whether nobody wants letters.
    pub(crate) fn is_empty(&self) -> bool {
        self.sinks.is_empty()
    }

    /// Puts the letter into each sink, one after the other; into the log, if one fails.
    pub(crate) async fn put(&self, letter: &DeadLetter) {
        let mut is_kept = true;
        for sink in &self.sinks {
            let mut unkept = Unkept { letter, is_over: false };
            let put = Box::pin(async {
                match tokio::time::timeout(TIMEOUT, sink.put(letter)).await {
                    Ok(result) => result,
                    Err(_) => Err(BoxError::from(format!(
                        "the sink took longer than {} seconds",
                        TIMEOUT.as_secs()
                    ))),
                }
            });
            let result = match Caught::new(put).await {
                Ok(result) => result,
                Err(Panic { message, location }) => {
                    Err(format!("the sink panicked at {location}: {message}").into())
                }
            };
            unkept.is_over = true;
            match result {
                Ok(()) => tracing::debug!(handler_id = letter.handler_id, "dead letter kept"),
                Err(error) => {
                    is_kept = false;
                    let text = catch(|| chain(&*error).to_string());
                    log(letter, &text.unwrap_or_else(|panic| panic.describe().message));
                }
            }
        }
        metrics::dead_letter(if is_kept { KEPT } else { LOGGED });
    }
}

fn log(letter: &DeadLetter, error: &str) {
    let json = serde_json::to_string(letter)
        .unwrap_or_else(|error| format!("{letter:?}, which can't be written as JSON: {error}"));
    tracing::error!(
        handler_id = letter.handler_id,
        function_id = shown(letter.event.function_id()),
        failed_run_id = shown(letter.event.run_id()),
        error,
        letter = json,
        "a dead letter could not be kept, so here is all of it",
    );
}

/// Logs a letter that is dropped while it is put.
struct Unkept<'a> {
    letter: &'a DeadLetter,
    is_over: bool,
}

impl Drop for Unkept<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            log(self.letter, "it was dropped with its dispatch while it was put");
            metrics::dead_letter(LOGGED);
        }
    }
}

impl fmt::Debug for Sinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sinks")
            .field("len", &self.sinks.len())
            .field("unhandled", &self.unhandled)
            .finish()
    }
}
