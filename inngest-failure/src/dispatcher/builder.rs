//! Setting a dispatcher up, and checking that every handler can do its work.

use std::{any::type_name, collections::BTreeSet, fmt, sync::Arc};

use super::{Backoff, Dispatcher, Inner, hint::Hints, run};
#[cfg(feature = "api")]
use crate::api::Api;
use crate::{
    error::{BuildError, Problem},
    extract::States,
    panic,
    registry::{Entry, Registration, Wiring, wire},
    selector::{Index, Selector},
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

    /// Checks all handlers and makes the dispatcher.
    ///
    /// The first dispatcher of a program puts a panic hook in front of the one that is there, which
    /// it calls: it notes where a handler panicked.
    ///
    /// # Errors
    ///
    /// [`BuildError`] with every problem at once: two handlers with one id, missing state, state
    /// given twice, a handler for none of the known functions, a `function` that begins with its own
    /// app's id, a blank `app`, a plain `fn` that takes [`Step`](crate::Step), a `rate_limit` beside one, no handlers
    /// at all.
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
        };
        let wired = wire(registrations, &wiring, &mut self.problems);
        if !self.problems.is_empty() {
            return Err(BuildError::new(self.problems));
        }

        panic::install_hook();
        let selectors: Vec<Selector> = wired.iter().map(|wired| wired.selector.clone()).collect();
        let states = Arc::new(self.states);
        let handlers = wired.iter().map(|wired| run::Handler::new(wired, &states)).collect();
        #[cfg(any(feature = "serve", feature = "sdk"))]
        let apps = super::Apps {
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
                handlers,
                infos,
                hints: Hints::default(),
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
