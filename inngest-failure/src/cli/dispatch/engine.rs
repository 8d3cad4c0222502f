//! One failure through the handlers that are not done with it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::super::{
    ledger::{Ledger, Record, Status},
    output::tidy,
};
use crate::{
    __private::BoxFuture,
    dead_letter::{DeadLetter, DeadLetters, JsonLines},
    dispatcher::{Dispatcher, HandlerRun, RunError},
    error::BoxError,
    event::FailureEvent,
};

/// The dispatcher with its ledger.
#[derive(Clone)]
pub(super) struct Engine {
    dispatcher: Dispatcher,
    ledger: Option<Ledger>,
    only: Option<Arc<HashSet<String>>>,
    captured: Captured,
    /// The file with the program's dead letters.
    letters: Option<JsonLines>,
}

/// What became of one failure.
pub(super) struct Done {
    pub(super) run_id: String,
    pub(super) runs: Vec<HandlerRun>,
    /// The handlers that had succeeded before.
    pub(super) before: Vec<String>,
    pub(super) is_unhandled: bool,
    /// Why the ledger is of no use any more, if it is not.
    pub(super) ledger_error: Option<String>,
}

/// What would become of one failure.
pub(super) struct Preview {
    function_id: String,
    run_id: String,
    pub(super) would_run: Vec<String>,
    pub(super) before: Vec<String>,
    pub(super) is_unhandled: bool,
}

/// The letters of the failures that are being handled, for the ledger.
#[derive(Clone, Default)]
pub(super) struct Captured(Arc<Mutex<HashMap<(String, String), DeadLetter>>>);

/// What there is to do for one failure, by the handlers' places.
struct Plan {
    fresh: Vec<usize>,
    again: Vec<DeadLetter>,
    before: Vec<String>,
    is_unhandled: bool,
}

impl Engine {
    pub(super) fn new(
        dispatcher: Dispatcher,
        ledger: Option<Ledger>,
        only: Option<HashSet<String>>,
        captured: Captured,
        letters: Option<JsonLines>,
    ) -> Self {
        Self { dispatcher, ledger, only: only.map(Arc::new), captured, letters }
    }

    pub(super) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    pub(super) fn has_ledger(&self) -> bool {
        self.ledger.is_some()
    }

    /// Runs the handlers that are not done with the failure: new ones, and those that have failed for good, which go on
    /// where they were.
    pub(super) async fn handle(&self, event: FailureEvent) -> Done {
        let run_id = event.run_id().to_owned();
        let Plan { fresh, again, before, is_unhandled } = match self.plan(&event).await {
            Ok(plan) => plan,
            Err(error) => {
                let (runs, before) = (Vec::new(), Vec::new());
                let error = format!("the ledger can't be read: {error}; nothing has run for it");
                return Done {
                    run_id,
                    runs,
                    before,
                    is_unhandled: false,
                    ledger_error: Some(error),
                };
            }
        };
        let mut runs = if self.only.is_none() && again.is_empty() && before.is_empty() {
            self.dispatcher.dispatch(event.clone()).await.runs
        } else {
            let retries = again.iter().map(|letter| self.dispatcher.retry(letter));
            let fresh = self.dispatcher.run_selected(&event, &fresh, &[]);
            let (fresh, retried) =
                futures_util::future::join(fresh, futures_util::future::join_all(retries)).await;
            let retried = retried.into_iter().flatten();
            retried.chain([fresh]).flat_map(|dispatch| dispatch.runs).collect()
        };
        runs.sort_by(|a, b| a.handler_id.cmp(&b.handler_id));
        let ledger_error = self.record(&event, &runs).await.err().map(|error| {
            format!("the ledger can't be written: {error}; what has run may run again for it")
        });
        for letter in &again {
            if runs.iter().any(|run| run.handler_id == letter.handler_id && run.result.is_ok()) {
                self.take_back(letter);
            }
        }
        Done { run_id, runs, before, is_unhandled, ledger_error }
    }

    /// Takes a letter back whose handler has succeeded since.
    fn take_back(&self, letter: &DeadLetter) {
        let Some(letters) = &self.letters else { return };
        if let Err(error) = letters.remove(letter) {
            tracing::warn!(
                handler_id = letter.handler_id,
                %error,
                "a dead letter could not be removed from its file, though its handler has succeeded since",
            );
        }
    }

    /// What would become of the failure.
    pub(super) async fn preview(&self, event: &FailureEvent) -> Result<Preview, String> {
        let Plan { fresh, again, before, is_unhandled } = self.plan(event).await?;
        let fresh = fresh.into_iter().map(|handler| self.dispatcher.handlers()[handler].id.clone());
        let mut would_run: Vec<String> =
            fresh.chain(again.into_iter().map(|letter| letter.handler_id)).collect();
        would_run.sort();
        Ok(Preview {
            function_id: event.function_id().to_owned(),
            run_id: event.run_id().to_owned(),
            would_run,
            before,
            is_unhandled,
        })
    }

    async fn plan(&self, event: &FailureEvent) -> Result<Plan, String> {
        let (mut handlers, is_unhandled) = self.dispatcher.select(event);
        let ids = self.dispatcher.handlers();
        if let Some(only) = &self.only {
            handlers.retain(|&handler| only.contains(&ids[handler].id));
        }
        let mut known = match &self.ledger {
            Some(ledger) => ledger.look(event.id()).await?,
            None => HashMap::new(),
        };
        let mut plan = Plan {
            fresh: Vec::new(),
            again: Vec::new(),
            before: Vec::new(),
            // Whoever wants only some handlers knows that others are left out.
            is_unhandled: is_unhandled && self.only.is_none(),
        };
        for handler in handlers {
            match known.remove(&ids[handler].id).unwrap_or(Status::New) {
                Status::New | Status::Failed(None) => plan.fresh.push(handler),
                Status::Failed(Some(letter)) => plan.again.push(*letter),
                Status::Succeeded => plan.before.push(ids[handler].id.clone()),
            }
        }
        Ok(plan)
    }

    async fn record(&self, event: &FailureEvent, runs: &[HandlerRun]) -> Result<(), String> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let record = |run: &HandlerRun| {
            let letter = self.captured.take(&run.handler_id, event.id());
            let failed = match &run.result {
                Ok(_) => None,
                // It has not run, and may the next time.
                Err(RunError::RateLimited) => return None,
                Err(_) => Some(letter.map(Box::new)),
            };
            Some(Record {
                handler_id: run.handler_id.clone(),
                event_id: event.id().to_owned(),
                attempts: run.attempts,
                failed,
            })
        };
        let records: Vec<Record> = runs.iter().filter_map(record).collect();
        self.captured.take(DeadLetter::UNHANDLED, event.id());
        if records.is_empty() { Ok(()) } else { ledger.record(records).await }
    }
}

impl Captured {
    fn take(&self, handler_id: &str, event_id: &str) -> Option<DeadLetter> {
        let mut letters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        letters.remove(&(handler_id.to_owned(), event_id.to_owned()))
    }
}

impl DeadLetters for Captured {
    fn put<'a>(&'a self, letter: &'a DeadLetter) -> BoxFuture<'a, Result<(), BoxError>> {
        let (handler_id, event_id) = letter.key();
        let key = (handler_id.to_owned(), event_id.to_owned());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, letter.clone());
        Box::pin(std::future::ready(Ok(())))
    }
}

/// `shop-checkout, run 01M8: refund, restock`.
impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, run {}: ", tidy(&self.function_id, 100), tidy(&self.run_id, 40))?;
        let mut parts = Vec::new();
        if !self.would_run.is_empty() {
            parts.push(self.would_run.join(", "));
        }
        if !self.before.is_empty() {
            parts.push(format!("done before: {}", self.before.join(", ")));
        }
        if self.is_unhandled {
            parts.push("unhandled".to_owned());
        }
        if parts.is_empty() {
            parts.push("nothing".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}
