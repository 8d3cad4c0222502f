//! Setting a dispatcher up, and checking that every handler can do its work.

use std::{
    any::type_name,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{Backoff, Dispatcher, Inner, Rollback, hint::Hints, run};
#[cfg(feature = "api")]
use crate::api::Api;
use crate::{
    dead_letter::{DeadLetters, Sinks},
    error::{BuildError, Problem},
    extract::States,
    metrics, panic,
    registry::{Entry, HandlerInfo, Registration, Wired, Wiring, rollback, wire},
    selector::{Index, Selector},
    trace::{TraceSource, Traces},
};

/// Sets a [`Dispatcher`] up.
///
/// # Examples
///
/// ```standalone_crate
/// use inngest_failure::{Dispatcher, on_failure};
///
/// #[on_failure(function = "checkout")]
/// async fn undo_checkout() {}
///
/// let dispatcher = Dispatcher::builder().app("shop").build()?;
/// assert_eq!(dispatcher.handlers()[0].id, "shop-checkout-failure");
/// # Ok::<(), inngest_failure::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct DispatcherBuilder {
    app: Option<String>,
    inventory: bool,
    registered: Vec<&'static Registration>,
    known_functions: Option<BTreeSet<String>>,
    states: States,
    backoff: Backoff,
    rollback: Rollback,
    trace_source: Option<Arc<dyn TraceSource>>,
    letters: Sinks,
    #[cfg(feature = "cli")]
    json_lines: Option<crate::JsonLines>,
    #[cfg(feature = "api")]
    api: Option<Api>,
    problems: Vec<Problem>,
}

impl DispatcherBuilder {
    pub(super) fn new() -> Self {
        Self {
            app: None,
            inventory: true,
            registered: Vec::new(),
            known_functions: None,
            states: States::default(),
            backoff: Backoff::new(),
            rollback: Rollback::default(),
            trace_source: None,
            letters: Sinks::default(),
            #[cfg(feature = "cli")]
            json_lines: None,
            #[cfg(feature = "api")]
            api: None,
            problems: Vec::new(),
        }
    }

    /// The app whose functions the handlers mean that name no `app` of their own.
    ///
    /// Without it, their `function` is a whole composite id, `{app}-{function}`;
    /// [`build`](Self::build) logs a warning of one that has no `-`, for it will hardly ever match.
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = Some(app.into());
        self
    }

    /// A value that handlers take as [`State<S>`](crate::State), which clones it, one per type.
    pub fn state<S: Send + Sync + 'static>(mut self, state: S) -> Self {
        if !self.states.insert(state) {
            self.problem(
                format!("state of type `{}` is given twice", type_name::<S>()),
                "give one value of a type, and wrap a second one in a type of its own",
            );
        }
        self
    }

    /// Registers handlers explicitly: what [`handlers!`](crate::handlers) lists.
    ///
    /// One that is registered already counts once.
    pub fn register(mut self, handlers: impl IntoIterator<Item = &'static Registration>) -> Self {
        self.registered.extend(handlers);
        self
    }

    /// Leaves out the handlers that registered themselves: only those given to
    /// [`register`](Self::register) count.
    pub fn without_inventory(mut self) -> Self {
        self.inventory = false;
        self
    }

    /// The composite ids of all functions that there are, so that a handler that names none of
    /// them, and would never run, is an error of [`build`](Self::build).
    pub fn known_functions<I>(mut self, function_ids: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let ids = function_ids.into_iter().map(Into::into);
        self.known_functions.get_or_insert_default().extend(ids);
        self
    }

    /// The same in place of those that were given before.
    #[cfg(feature = "cli")]
    pub(crate) fn only_known_functions(mut self, function_ids: BTreeSet<String>) -> Self {
        self.known_functions = Some(function_ids);
        self
    }

    /// How long to wait before a handler is tried again, for itself or for one of its steps.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The keys, mode and origins of Inngest's API: for events that handlers send in process, and for an `Endpoint`
    /// of this dispatcher.
    #[cfg(feature = "api")]
    pub fn api(mut self, api: Api) -> Self {
        self.api = Some(api);
        self
    }

    /// Where the traces of failed runs come from, for handlers that undo steps or take
    /// [`RunTrace`](crate::RunTrace).
    ///
    /// By default, with the feature `api`, Inngest's API: that of the endpoint that the handler runs at, then that of
    /// `.api(..)`, then that of the environment.
    pub fn trace_source(mut self, source: impl TraceSource + 'static) -> Self {
        self.trace_source = Some(Arc::new(source));
        self
    }

    /// What becomes of the other steps of a failed run when one could not be undone; by default they are undone all
    /// the same.
    pub fn rollback(mut self, rollback: Rollback) -> Self {
        self.rollback = rollback;
        self
    }

    /// Where to put a [`DeadLetter`](crate::DeadLetter) when a handler has failed for good: also when the payload does not
    /// fit it, and when it was not tried at all, as an undo after [`StopAtFirst`](Rollback::StopAtFirst). Not when its
    /// `rate_limit` was used up.
    ///
    /// Called twice, letters are put in both places. Without it, that a handler failed stands in the log and in the
    /// [`Dispatch`](crate::Dispatch), or in Inngest's dashboard.
    ///
    /// # Examples
    ///
    /// See [`JsonLines`](crate::JsonLines).
    pub fn dead_letters(mut self, sink: impl DeadLetters + 'static) -> Self {
        #[cfg(feature = "cli")]
        if let Some(file) = (&sink as &dyn std::any::Any).downcast_ref::<crate::JsonLines>() {
            self.json_lines.get_or_insert_with(|| file.clone());
        }
        self.letters.add(Arc::new(sink));
        self
    }

    /// The first file that letters are put in.
    #[cfg(feature = "cli")]
    pub(crate) fn json_lines(&self) -> Option<&crate::JsonLines> {
        self.json_lines.as_ref()
    }

    /// Puts a letter also for a failure that was [unhandled](crate::Dispatch::is_unhandled). Under Inngest there is none:
    /// a failure that no handler takes does not arrive.
    pub fn dead_letter_unhandled(mut self) -> Self {
        self.letters.unhandled = true;
        self
    }

    /// Checks all handlers and makes the dispatcher.
    ///
    /// The first dispatcher of a program puts a panic hook in front of the one that is there, which
    /// it calls: it notes where a handler panicked.
    ///
    /// # Errors
    ///
    /// [`BuildError`] with every problem at once: two handlers with one id, missing state, state
    /// given twice, a handler for none of the known functions, a `function` that begins with its own
    /// app's id, a blank `app`, a plain `fn` that takes [`Step`](crate::Step), a `rate_limit` beside one, two undos of
    /// one step, a [`StepOutput`](crate::StepOutput) in a handler that undoes none, a trace that is needed and can't be had,
    /// no handlers at all.
    ///
    /// # Panics
    ///
    /// If an extractor's [`needs`](crate::FromFailure::needs) does.
    pub fn build(mut self) -> Result<Dispatcher, BuildError> {
        if self.app.as_ref().is_some_and(|app| app.trim().is_empty()) {
            self.problem(
                "the dispatcher's `app` is blank".to_owned(),
                "give `.app(..)` the app's id, or leave it out and write composite ids in `function`",
            );
        }
        let mut registrations = self.registered;
        if self.inventory {
            registrations.extend(inventory::iter::<Entry>().map(|entry| entry.0));
        }
        if registrations.is_empty() {
            self.problems.push(no_handlers(self.inventory));
        }
        let wiring = Wiring {
            app: self.app.as_deref().filter(|app| !app.trim().is_empty()),
            known_functions: self.known_functions.as_ref(),
            states: &self.states,
            has_traces: cfg!(feature = "api") || self.trace_source.is_some(),
        };
        let wired = wire(registrations, &wiring, &mut self.problems);
        if !self.problems.is_empty() {
            return Err(BuildError::new(self.problems));
        }

        panic::install_hook();
        metrics::describe();
        let selectors: Vec<Selector> = wired.iter().map(|wired| wired.selector.clone()).collect();
        #[cfg(feature = "testing")]
        let has_trace_source = self.trace_source.is_some();
        let shared = run::Shared {
            states: Arc::new(self.states),
            traces: Arc::new(Traces::new(
                self.trace_source,
                #[cfg(feature = "api")]
                self.api.clone(),
            )),
            rollback: self.rollback,
            letters: Arc::new(self.letters),
        };
        let Units { units, handlers, functions } = Units::of(&wired, &shared);
        #[cfg(not(any(feature = "serve", feature = "sdk")))]
        drop(functions);
        #[cfg(any(feature = "serve", feature = "sdk"))]
        let apps = super::hosted::Apps {
            #[cfg(feature = "serve")]
            default: self.app,
            of_handlers: wired.iter().map(|wired| wired.app.clone()).collect(),
        };
        let infos = wired.into_iter().map(|wired| wired.info).collect();
        Ok(Dispatcher {
            inner: Arc::new(Inner {
                #[cfg(any(feature = "serve", feature = "sdk"))]
                apps,
                index: Index::new(selectors),
                infos,
                units,
                handlers,
                #[cfg(any(feature = "serve", feature = "sdk"))]
                functions,
                #[cfg(feature = "testing")]
                has_trace_source,
                hints: Hints::default(),
                letters: shared.letters,
                #[cfg(feature = "cli")]
                rollback: shared.rollback,
                counts: metrics::Events::new(),
                tools: run::Tools {
                    backoff: self.backoff,
                    #[cfg(feature = "api")]
                    api: self.api,
                },
            }),
        })
    }

    fn problem(&mut self, fault: String, remedy: &str) {
        let remedy = remedy.to_owned();
        self.problems.push(Problem { location: None, handler: None, fault, remedy });
    }
}

/// What runs as one: a handler, or all that undo steps of one function.
struct Units {
    /// For each handler, what it runs as.
    units: Vec<usize>,
    handlers: Vec<run::Handler>,
    functions: Vec<HandlerInfo>,
}

impl Units {
    /// The handlers are sorted by id, so that the undos of a function stand together.
    fn of(wired: &[Wired], shared: &run::Shared) -> Self {
        let (mut units, mut handlers, mut functions) = (Vec::new(), Vec::new(), Vec::new());
        let mut by_function: BTreeMap<&str, Vec<&Wired>> = BTreeMap::new();
        for wired in wired.iter().filter(|wired| wired.info.step.is_some()) {
            by_function
                .entry(wired.selector.exact_id().unwrap_or_default())
                .or_default()
                .push(wired);
        }
        let mut rollbacks: BTreeMap<&str, usize> = BTreeMap::new();
        for wired in wired {
            let unit = handlers.len();
            let (Some(_), Some(function_id)) = (wired.info.step, wired.selector.exact_id()) else {
                handlers.push(run::Handler::new(wired, shared));
                functions.push(wired.info.clone());
                units.push(unit);
                continue;
            };
            let unit = *rollbacks.entry(function_id).or_insert_with(|| {
                let undos = &by_function[function_id];
                let info = rollback(function_id, undos);
                handlers.push(run::Handler::rollback(&info, undos, shared));
                functions.push(info);
                unit
            });
            units.push(unit);
        }
        Self { units, handlers, functions }
    }
}

fn no_handlers(inventory: bool) -> Problem {
    let remedy = match inventory {
        true => {
            "annotate a function with `#[on_failure(..)]`; if there is one in another crate, that \
             crate is not linked, for the compiler leaves out a crate that is never named: name it \
             (`use payments as _;`), or give its handlers to `.register(handlers![..])`"
        }
        false => "give some to `.register(handlers![..])`, or leave out `.without_inventory()`",
    };
    Problem {
        location: None,
        handler: None,
        fault: "there are no handlers at all".to_owned(),
        remedy: remedy.to_owned(),
    }
}

impl fmt::Debug for DispatcherBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatcherBuilder")
            .field("app", &self.app)
            .field("inventory", &self.inventory)
            .field("registered", &self.registered.len())
            .field("known_functions", &self.known_functions)
            .field("states", &self.states)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}
