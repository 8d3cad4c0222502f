//! The dispatcher: one failure event through every handler that takes it.

mod backoff;
mod builder;
mod hint;
#[cfg(any(feature = "serve", feature = "sdk"))]
mod hosted;
mod limits;
mod once;
mod outcome;
mod report;
mod rollback;
mod run;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::SystemTime,
};

use futures_util::{StreamExt, stream::FuturesOrdered};
use tracing::{Instrument, Span};

use self::hint::Hints;
#[cfg(feature = "serve")]
pub(crate) use self::hosted::FailedApp;
pub use self::{
    backoff::Backoff,
    builder::DispatcherBuilder,
    report::{Dispatch, HandlerRun, RunError, UnknownHandler},
    rollback::Rollback,
    service::DispatchFuture,
};
#[cfg(any(feature = "serve", feature = "sdk"))]
pub(crate) use self::{
    outcome::{Look, outcome},
    run::Called,
};
use crate::{
    dead_letter::{CompletedStep, DeadLetter, Sinks},
    error::ParseError,
    event::{FailureError, FailureEvent},
    metrics,
    registry::HandlerInfo,
    selector::{Index, Subject},
    suggest::nearest,
};

/// Matches failure events to handlers and runs them.
///
/// It is made by a [builder](Self::builder), which checks all handlers; a clone is the same
/// dispatcher. One event runs through every handler that takes it, concurrently, each on its own:
/// an error, a panic or a time-out of one never touches another. A handler that fails is tried
/// again, up to its `retries`, after a [`Backoff`]; of one with [`Step`](crate::Step)s, each step and the code outside
/// of steps has these retries to itself.
///
/// It is a `tower::Service<FailureEvent>` as well.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Dispatcher, Failure, HandlerError, handlers, on_failure};
///
/// #[on_failure(function = "checkout")]
/// async fn undo_checkout(failure: Failure) -> Result<String, HandlerError> {
///     Ok(format!("undone: {}", failure.error))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dispatcher = Dispatcher::builder()
///     .app("shop")
///     .without_inventory()
///     .register(handlers![undo_checkout])
///     .build()?;
///
/// let report = dispatcher
///     .dispatch_json(br#"{
///         "name": "inngest/function.failed",
///         "data": {
///             "function_id": "shop-checkout",
///             "run_id": "01M82E82J0N0GBAMR1N91EZJJ6",
///             "error": { "message": "card declined" },
///             "event": { "data": {} }
///         }
///     }"#)
///     .await?;
///
/// assert_eq!(report.runs[0].handler_id, "shop-checkout-failure");
/// assert_eq!(report.runs[0].result.as_ref().unwrap(), "undone: card declined");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Dispatcher {
    inner: Arc<Inner>,
}

struct Inner {
    index: Index,
    /// In the index's order.
    infos: Vec<HandlerInfo>,
    /// What each of them runs as: itself, or with all others that undo steps of its function.
    units: Vec<usize>,
    handlers: Vec<run::Handler>,
    /// What the handlers are as functions of Inngest, in their order.
    #[cfg(any(feature = "serve", feature = "sdk"))]
    functions: Vec<HandlerInfo>,
    hints: Hints,
    letters: Arc<Sinks>,
    #[cfg(feature = "cli")]
    rollback: Rollback,
    counts: metrics::Events,
    tools: run::Tools,
    #[cfg(feature = "testing")]
    has_trace_source: bool,
    /// What the serving of these handlers has to know of the failed functions' apps.
    #[cfg(any(feature = "serve", feature = "sdk"))]
    apps: hosted::Apps,
}

impl Dispatcher {
    /// A dispatcher with every `#[on_failure]` handler of the program, unless
    /// [told otherwise](DispatcherBuilder::without_inventory).
    pub fn builder() -> DispatcherBuilder {
        DispatcherBuilder::new()
    }

    /// The handlers, sorted by id.
    pub fn handlers(&self) -> &[HandlerInfo] {
        &self.inner.infos
    }

    /// Runs the failure through every handler that takes it, and reports what became of each.
    ///
    /// A failure that no handler takes is logged as a warning, with the selector that comes
    /// nearest.
    ///
    /// # Panics
    ///
    /// If a handler is a plain `fn` and this is not awaited on a Tokio runtime, or if a handler has a
    /// time-out, waits for its `throttle`, sleeps in a step or is to be tried again, and the runtime's timer is not enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the dispatch: every `async` handler in it is dropped at its
    /// current `.await`. A plain `fn` that has started runs to its end; its result is lost, which
    /// is logged as a warning. What is remembered of steps is lost: dispatched again, they run again.
    pub async fn dispatch(&self, event: FailureEvent) -> Dispatch {
        let inner = &*self.inner;
        let span = span(&event);
        let selection = inner.index.select(Subject::from(&event));
        inner.counts.count(event.kind());
        if selection.unhandled {
            inner.counts.unhandled();
            span.in_scope(|| self.warn_of_unhandled(&event));
        }
        let unhandled =
            (selection.unhandled && inner.letters.takes_unhandled()).then(|| event.clone());
        let function_id = event.function_id().to_owned();
        let run_id = event.run_id().to_owned();
        let runs = match selection.handlers.as_slice() {
            &[only] if !inner.handlers[inner.units[only]].is_rollback() => {
                vec![
                    inner.handlers[inner.units[only]]
                        .run(event, &[], &inner.tools, &span, None)
                        .await,
                ]
            }
            several => {
                let units: BTreeSet<usize> = several.iter().map(|&i| inner.units[i]).collect();
                let run = |unit: usize| {
                    inner.handlers[unit].run_all(event.clone(), &[], None, &inner.tools, &span)
                };
                sorted(units.into_iter().map(run).collect()).await
            }
        };
        if let Some(event) = unhandled {
            Box::pin(self.bury_unhandled(&event).instrument(span.clone())).await;
        }
        Dispatch { function_id, run_id, runs, unhandled: selection.unhandled }
    }

    /// Tries a handler again that had failed for good, as its dead letter has it: the steps that it had completed do not run
    /// once more. Of the handlers of the failure only this one runs, whatever its selector is by now. If the letter is
    /// about a failure that was unhandled, the failure is dispatched.
    ///
    /// The letter stays where it is: [remove](crate::JsonLines::remove) it if this is [ok](Dispatch::is_ok). If the handler
    /// fails for good again, the sinks get another letter of the same key. That of an unhandled failure is to be removed
    /// as soon as the failure is not [unhandled](Dispatch::is_unhandled) any more: a handler that fails leaves its own.
    ///
    /// # Errors
    ///
    /// [`UnknownHandler`] if there is no handler of this id any more; nothing has run then.
    ///
    /// # Panics
    ///
    /// As [`dispatch`](Self::dispatch).
    ///
    /// # Cancel safety
    ///
    /// As [`dispatch`](Self::dispatch).
    pub async fn retry(&self, letter: &DeadLetter) -> Result<Dispatch, UnknownHandler> {
        if letter.is_unhandled() {
            return Ok(self.dispatch(letter.event.clone()).await);
        }
        let infos = &self.inner.infos;
        let Some(handler) = infos.iter().position(|info| info.id == letter.handler_id) else {
            let ids = infos.iter().map(|info| info.id.as_str());
            return Err(UnknownHandler {
                nearest: nearest(&letter.handler_id, ids).map(str::to_owned),
                handler_id: letter.handler_id.clone(),
            });
        };
        Ok(self.run_selected(&letter.event, &[handler], &letter.steps).await)
    }

    /// Runs these of the handlers, by their places, with these steps completed.
    pub(crate) async fn run_selected(
        &self,
        event: &FailureEvent,
        selected: &[usize],
        steps: &[CompletedStep],
    ) -> Dispatch {
        let inner = &*self.inner;
        let span = span(event);
        let mut units: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for &handler in selected {
            units.entry(inner.units[handler]).or_default().push(&inner.infos[handler].id);
        }
        let run = |(unit, only): (usize, Vec<_>)| {
            inner.handlers[unit].run_all(event.clone(), steps, Some(only), &inner.tools, &span)
        };
        let runs = sorted(units.into_iter().map(run).collect()).await;
        Dispatch {
            function_id: event.function_id().to_owned(),
            run_id: event.run_id().to_owned(),
            runs,
            unhandled: false,
        }
    }

    async fn bury_unhandled(&self, event: &FailureEvent) {
        let letter = DeadLetter {
            handler_id: DeadLetter::UNHANDLED.to_owned(),
            event: event.clone(),
            error: FailureError::own(
                "Unhandled",
                "no handler that names the function takes the failure, and no fallback",
            ),
            attempts: Some(0),
            failed_at: SystemTime::now(),
            steps: Vec::new(),
        };
        self.inner.letters.put(&letter).await;
    }

    /// Reads a failure event from JSON, as [`FailureEvent::from_slice`] does, and dispatches it.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if it is not a failure event; nothing has run then. That the original event's
    /// data does not fit a handler's type is that handler's error:
    /// [`RunError::Payload`].
    ///
    /// # Panics
    ///
    /// As [`dispatch`](Self::dispatch).
    ///
    /// # Cancel safety
    ///
    /// As [`dispatch`](Self::dispatch).
    pub async fn dispatch_json(&self, json: &[u8]) -> Result<Dispatch, ParseError> {
        let event = FailureEvent::from_slice(json)
            .inspect_err(|error| tracing::error!(%error, "not a failure event, nothing has run"))?;
        Ok(self.dispatch(event).await)
    }

    fn warn_of_unhandled(&self, event: &FailureEvent) {
        if !tracing::enabled!(tracing::Level::WARN) {
            return;
        }
        tracing::warn!(
            function_id = shown(event.function_id()),
            run_id = shown(event.run_id()),
            error = event.error().to_string(),
            hint = self.inner.hints.of(event, self.inner.index.selectors()),
            "unhandled failure: no handler that names the function takes it, and no fallback",
        );
    }
}

/// The span of a dispatch: of the highest level, so that a line of any level says which failure it is about.
fn span(event: &FailureEvent) -> Span {
    tracing::error_span!(
        "dispatch",
        function_id = shown(event.function_id()),
        run_id = shown(event.run_id()),
    )
}

/// The runs of all handlers, sorted by their ids.
async fn sorted(runs: FuturesOrdered<impl Future<Output = Vec<HandlerRun>>>) -> Vec<HandlerRun> {
    let mut runs: Vec<HandlerRun> = runs.collect::<Vec<_>>().await.into_iter().flatten().collect();
    runs.sort_by(|a, b| a.handler_id.cmp(&b.handler_id));
    runs
}

/// As much of an id as a log line can do with: it may be as long as the event.
pub(crate) fn shown(id: &str) -> &str {
    const MAX_BYTES: usize = 256;
    let mut end = id.len().min(MAX_BYTES);
    while !id.is_char_boundary(end) {
        end -= 1;
    }
    &id[..end]
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.inner.infos.iter().map(|info| info.id.as_str()).collect();
        f.debug_struct("Dispatcher").field("handlers", &ids).finish_non_exhaustive()
    }
}
