//! One failure through the handlers that are not done with it.

use std::{
    collections::{HashMap, HashSet},
    fmt, fs, io,
    sync::{Arc, Mutex, PoisonError},
};

use super::super::{
    ledger::{Ledger, Record, Status},
    output::tidy,
};
use crate::{
    __private::BoxFuture,
    dead_letter::{DeadLetter, DeadLetters, JsonLines},
    dispatcher::{Dispatcher, HandlerRun, Rollback, RunError},
    error::BoxError,
    event::FailureEvent,
};

/// The dispatcher with its ledger.
#[derive(Clone)]
pub(in crate::cli) struct Engine {
    dispatcher: Dispatcher,
    ledger: Option<Ledger>,
    only: Option<Arc<HashSet<String>>>,
    captured: Captured,
    /// The file with the program's dead letters.
    letters: Option<JsonLines>,
    /// The keys of those that were in it before: the ledger need not know of them, as when the program was killed in
    /// between.
    earlier: Arc<HashSet<(String, String)>>,
}

/// What became of one failure.
pub(in crate::cli) struct Done {
    pub(in crate::cli) run_id: String,
    pub(in crate::cli) runs: Vec<HandlerRun>,
    /// The handlers that had succeeded before.
    pub(in crate::cli) before: Vec<String>,
    pub(in crate::cli) is_unhandled: bool,
    /// Why the ledger is of no use any more, if it is not.
    pub(in crate::cli) ledger_error: Option<String>,
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
pub(in crate::cli) struct Captured(Arc<Mutex<HashMap<(String, String), DeadLetter>>>);

/// What there is to do for one failure, by the handlers' places.
struct Plan {
    fresh: Vec<usize>,
    again: Vec<DeadLetter>,
    before: Vec<String>,
    is_unhandled: bool,
}

impl Engine {
    pub(in crate::cli) fn new(
        dispatcher: Dispatcher,
        ledger: Option<Ledger>,
        only: Option<HashSet<String>>,
        captured: Captured,
        letters: Option<JsonLines>,
    ) -> Self {
        let (only, earlier) = (only.map(Arc::new), Arc::default());
        Self { dispatcher, ledger, only, captured, letters, earlier }
    }

    /// From now on letters that are in the file already are taken back as well.
    pub(super) fn with_earlier_letters(mut self) -> io::Result<Self> {
        // What is no file, such as a pipe, can't be read over and over.
        let is_file =
            |letters: &&JsonLines| fs::metadata(letters.path()).is_ok_and(|of| of.is_file());
        if let Some(letters) = self.letters.as_ref().filter(is_file) {
            self.earlier = Arc::new(letters.keys()?.collect());
        }
        Ok(self)
    }

    pub(super) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    pub(super) fn has_ledger(&self) -> bool {
        self.ledger.is_some()
    }

    /// Runs the handler of a letter again, from where it was. A failure that was unhandled is dispatched, without the
    /// handlers that the ledger holds as done.
    pub(in crate::cli) async fn retry(&self, letter: &DeadLetter) -> Result<Done, String> {
        if letter.is_unhandled() {
            return Ok(self.handle(letter.event.clone()).await);
        }
        let dispatch = self.dispatcher.retry(letter).await.map_err(|error| error.to_string())?;
        let ledger_error = self.record(&letter.event, &dispatch.runs).await.err();
        Ok(Done {
            run_id: letter.event.run_id().to_owned(),
            is_unhandled: dispatch.is_unhandled(),
            runs: dispatch.runs,
            before: Vec::new(),
            ledger_error: ledger_error.map(|error| {
                format!("the ledger can't be written: {error}; `dispatch` may run it again")
            }),
        })
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
            let fresh = self.dispatcher.run_selected(&event, &fresh, &[]);
            let (fresh, retried) = futures_util::future::join(fresh, self.go_on(&again)).await;
            retried.into_iter().chain(fresh.runs).collect()
        };
        runs.sort_by(|a, b| a.handler_id.cmp(&b.handler_id));
        let ledger_error = self.record(&event, &runs).await.err().map(|error| {
            format!("the ledger can't be written: {error}; what has run may run again for it")
        });
        let succeeded = runs.iter().filter(|run| run.result.is_ok()).map(|run| &run.handler_id);
        for handler_id in succeeded.chain(&before) {
            let key = (handler_id.clone(), event.id().to_owned());
            if self.earlier.contains(&key)
                || again.iter().any(|letter| letter.handler_id == *handler_id)
            {
                self.take_back(handler_id, event.id()).await;
            }
        }
        Done { run_id, runs, before, is_unhandled, ledger_error }
    }

    /// Runs handlers that have failed for good once more: undos one after the other, in the order in which they had
    /// failed, which is that of undoing.
    async fn go_on(&self, letters: &[DeadLetter]) -> Vec<HandlerRun> {
        let infos = self.dispatcher.handlers();
        let is_undo = |letter: &&DeadLetter| {
            infos.iter().any(|info| info.id == letter.handler_id && info.step.is_some())
        };
        let (mut undos, others): (Vec<_>, Vec<_>) = letters.iter().partition(is_undo);
        undos.sort_by_key(|letter| letter.failed_at);
        let others = others.into_iter().map(|letter| self.dispatcher.retry(letter));
        let undos = async {
            let mut runs = Vec::new();
            for letter in undos {
                let dispatch = self.dispatcher.retry(letter).await;
                runs.extend(dispatch.into_iter().flat_map(|dispatch| dispatch.runs));
                let stops = self.dispatcher.rollback() == Rollback::StopAtFirst;
                if stops && runs.last().is_some_and(|run: &HandlerRun| run.result.is_err()) {
                    break;
                }
            }
            runs
        };
        let (others, undos) =
            futures_util::future::join(futures_util::future::join_all(others), undos).await;
        let others = others.into_iter().flatten().flat_map(|dispatch| dispatch.runs);
        others.chain(undos).collect()
    }

    /// Takes a letter back whose handler has succeeded since.
    async fn take_back(&self, handler_id: &str, event_id: &str) {
        let Some(letters) = self.letters.clone() else { return };
        let (handler, event) = (handler_id.to_owned(), event_id.to_owned());
        let remove = move || letters.remove_key(&handler, &event);
        let removed = tokio::task::spawn_blocking(remove).await;
        if let Err(error) = removed.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::warn!(
                handler_id,
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
