//! The handlers: what the attribute registers, and the checks of how they are wired.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use serde_json::Value;

use crate::{
    __private::BoxFuture,
    dead_letter::DeadLetter,
    error::{HandlerError, Location, Problem},
    extract::{Context, Needs, States},
    rate::Rate,
    selector::{Glob, Selector, Target, Trigger, triggers},
    suggest::nearest,
};

/// Makes a function the handler of an Inngest function's failures.
///
/// The function stays as it is written: it can be called and tested like any other. The attribute
/// registers it at link time, and a [`Dispatcher`](crate::Dispatcher) runs it for each failure that it is meant for.
///
/// # Arguments
///
/// | argument | meaning |
/// |---|---|
/// | `function = ".."` | the id of the function whose failures to handle, relative to the app. May hold `*`, which is any run of characters. A bare `*` is every function of the environment, or of `app` where the attribute names one. Required, unless `fallback` |
/// | `fallback` | handle what no handler that names the function takes |
/// | `step = ".."` | undo this step of the function: run only if the failed run had completed it, see [below](#undoing-a-step). The id that the step has in the function's code |
/// | `app = ".."` | the function's app. Default: the dispatcher's `app`; with neither, `function` is the whole composite id |
/// | `error = ".."` | only failures whose error has this name: `data.error.name` of the event, which for every class is `Error` with the JavaScript SDK 3 |
/// | `cancelled` | also handle runs that were cancelled, as Inngest's own time-outs do; not beside `error`, for a cancelled run has none |
/// | `id = ".."` | the handler's id, which a second handler of one function needs. Default: the composite id of the function and `-failure`; of an undo `<composite id>-rollback/<step>`; for a pattern, `*` or a fallback the Rust name in kebab case, which changes when the function is renamed |
/// | `name = ".."` | the display name. Default: `<function> (failure)`, of an undo `<function> (undo <step>)` |
/// | `retries = 3` | attempts after the first one, 0 to 20: of each [step](crate::Step), and of the code outside of steps. Default: 3 |
/// | `timeout = "30s"` | how long one call may take, its extractors included, such as `500ms`, `30s`, `5m`, `2h45m`, `1d`; a step's `sleep` does not count. Default: any time |
/// | `concurrency = 10` | calls of this handler at once. Default: any number |
/// | `throttle = "10/1m"` | at most so many runs in each period, which is `1s` to `7d`; a run above that waits. Default: any number |
/// | `rate_limit = "1/5m"` | at most so many runs in each period, which is `1s` to `24h`; **a run above that is dropped**, so it is for messages, not for compensation, and not for handlers that take [`Step`](crate::Step). Default: any number |
/// | `priority = 100` | by how many seconds the server puts this handler's runs ahead in its queue, -600 to 600. Default: 0 |
/// | `idempotency = ".."` | a CEL expression, such as `event.data.event.data.order_id`: of the failures for which it has one value, **only the first in 24 hours is handled**. Default: each is |
/// | `crate = path` | where the crate `inngest_failure` is, if it was renamed |
///
/// What is a text is a string literal or the path of a `const` of type `&'static str`.
///
/// # Undoing a step
///
/// With `step = "charge-card"` the handler undoes that step: it runs once for each use of the step that the failed run had
/// completed. All undos of one function make one rollback, an Inngest function `shop-checkout-rollback`, which reads the run's
/// trace and undoes one completed step after the other, the one that completed last first.
///
/// - [`StepOutput<T>`](crate::StepOutput) is what the step had returned. [`RunTrace`](crate::RunTrace), which any handler may
///   take, is all that the run had done.
/// - An undo that takes no [`Step`](crate::Step) is one step of the rollback; one that does has its own steps in it.
/// - `retries` and `timeout` are the undo's own, and so are `error` and `cancelled`: of a failure that it does not take it
///   undoes nothing, whatever the other undos do.
/// - `id`, `name`, `fallback`, a `function` with `*`, and `concurrency`, `throttle`, `rate_limit`, `priority` and `idempotency`
///   are compile errors beside it. Two undos of one step are an error of [`build()`](crate::DispatcherBuilder::build).
///
/// One that fails for good does not stop the others: see [`Rollback`](crate::Rollback).
///
/// # Flow control
///
/// Who keeps the limits depends on where the handler runs:
///
/// | | in process: the dispatcher and its clones | at an `Endpoint` (feature `serve`): the Inngest server | in a server of the `inngest` crate (feature `sdk`): the dispatcher and its clones |
/// |---|---|---|---|
/// | `concurrency` | a call above it waits | a call above it stays in the queue | a call above it waits, its connection open |
/// | `throttle` | a run above it waits | a run above it stays in the queue | a run above it waits, its connection open; beside [`Step`](crate::Step) an error at start-up |
/// | `rate_limit` | a run above it does not take place: [`RunError::RateLimited`](crate::RunError::RateLimited), and a warning | a run above it does not take place, **and nobody is told** | a run above it does not take place: to Inngest it succeeded, and a warning |
/// | `priority` | no effect: nothing waits in an order | the queue's order | an error at start-up |
/// | `idempotency` | no effect: nothing is remembered | a repetition does not take place, and nobody is told | an error at start-up |
///
/// Where the dispatcher keeps it, a rate of ten a minute lets ten runs start at once after a quiet minute, then one every
/// six seconds: the generic cell rate algorithm, as on the Inngest server, which may let fewer start at once. The
/// limits of one process say nothing of another's.
///
/// # The function
///
/// - Any number of arguments, each an extractor: a type that implements [`FromFailure`](crate::FromFailure).
/// - It returns nothing, or `Result<T, E>` with `T: Serialize` and an `E` that turns into
///   [`HandlerError`](crate::HandlerError), as text does and every error that is `Send + Sync + 'static`.
/// - An `async fn` is dropped at its current `.await` when its time is over, when its dispatch is
///   dropped, or when one of its [steps](crate::Step) ends the call. Its future is `Send`. The handlers of one failure take turns on one task, so one that
///   blocks its thread holds up the others: let it be a plain `fn`.
/// - A plain `fn` runs on Tokio's blocking pool, and takes no [`Step`](crate::Step). It can't be stopped: once it has started it runs to
///   its end. When its time is over the attempt has failed, but the next one starts, and its
///   place under `concurrency` is free, only after it has returned.
/// - It shares its name with a hidden type, so no type, trait or module beside it may have that name.
/// - No generics, lifetimes, `self`, `unsafe`, `const` or `extern`: it is called with nothing but
///   the failure.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Failure, HandlerError, State, on_failure};
///
/// # #[derive(Clone)]
/// # struct Shop;
/// # impl Shop {
/// #     async fn refund(&self, _: &str, _: &str) -> Result<(), std::io::Error> { Ok(()) }
/// # }
/// #[derive(serde::Deserialize)]
/// struct Order {
///     order_id: String,
/// }
///
/// /// Give the money back.
/// #[on_failure(function = "checkout", retries = 5, timeout = "30s")]
/// async fn refund(failure: Failure<Order>, State(shop): State<Shop>) -> Result<(), HandlerError> {
///     let order = &failure.event.data;
///     shop.refund(&order.order_id, &failure.idempotency_key("refund")).await?;
///     Ok(())
/// }
///
/// /// Count every failure of every function.
/// #[on_failure(function = "*", cancelled, retries = 0)]
/// fn count(failure: Failure) {
///     println!("{} {:?}", failure.function_id, failure.kind);
/// }
/// ```
///
/// # Errors
///
/// Every fault in the arguments or the signature is a compile error of its own, with the remedy. What
/// can be known only at start-up is an error of [`build()`](crate::DispatcherBuilder::build).
pub use inngest_failure_macros::on_failure;

/// A handler as the attribute registers it: everything known at compile time.
#[derive(Debug)]
pub struct Registration {
    rust_name: &'static str,
    kebab_name: &'static str,
    location: Location,
    description: &'static str,
    function: Option<&'static str>,
    app: Option<&'static str>,
    error: Option<&'static str>,
    cancelled: bool,
    id: Option<&'static str>,
    name: Option<&'static str>,
    step: Option<&'static str>,
    retries: u32,
    timeout: Option<Duration>,
    concurrency: Option<u32>,
    throttle: Option<Rate>,
    rate_limit: Option<Rate>,
    priority: Option<i32>,
    idempotency: Option<&'static str>,
    needs: fn(&mut Needs),
    call: Call,
}

/// How the handler is called.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// An `async fn`.
    Async(for<'a> fn(&'a Context) -> BoxFuture<'a, Result<Value, CallError>>),
    /// A plain `fn`: its arguments are taken first, then it runs on the blocking pool.
    Blocking(for<'a> fn(&'a Context) -> BoxFuture<'a, Result<BlockingCall, CallError>>),
}

/// A plain `fn` with its arguments.
pub type BlockingCall = Box<dyn FnOnce() -> Result<Value, CallError> + Send>;

/// Why a call gave no value.
#[derive(Debug)]
pub enum CallError {
    /// An argument could not be taken.
    Rejected(HandlerError),
    /// The handler failed.
    Failed(HandlerError),
}

/// What inventory collects.
#[derive(Debug)]
pub struct Entry(pub &'static Registration);

inventory::collect!(Entry);

/// The hidden type of a handler's own name, by which `handlers!` finds its registration.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not annotated with `#[on_failure(..)]`"
)]
pub trait Handler {
    /// The handler's registration: a static, so that one seen twice can be told from two.
    fn registration() -> &'static Registration;
}

impl Registration {
    /// A handler with the defaults of all settings.
    pub const fn new(
        rust_name: &'static str,
        kebab_name: &'static str,
        (file, line): (&'static str, u32),
        description: &'static str,
        needs: fn(&mut Needs),
        call: Call,
    ) -> Self {
        Self {
            rust_name,
            kebab_name,
            location: Location { file, line },
            description,
            function: None,
            app: None,
            error: None,
            cancelled: false,
            id: None,
            name: None,
            step: None,
            retries: 3,
            timeout: None,
            concurrency: None,
            throttle: None,
            rate_limit: None,
            priority: None,
            idempotency: None,
            needs,
            call,
        }
    }

    /// `function = ".."`; without it the handler is a fallback.
    pub const fn function(mut self, function: &'static str) -> Self {
        self.function = Some(function);
        self
    }

    /// `app = ".."`.
    pub const fn app(mut self, app: &'static str) -> Self {
        self.app = Some(app);
        self
    }

    /// `error = ".."`.
    pub const fn error(mut self, error: &'static str) -> Self {
        self.error = Some(error);
        self
    }

    /// `cancelled`.
    pub const fn cancelled(mut self) -> Self {
        self.cancelled = true;
        self
    }

    /// `id = ".."`.
    pub const fn id(mut self, id: &'static str) -> Self {
        self.id = Some(id);
        self
    }

    /// `name = ".."`.
    pub const fn name(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// `step = ".."`.
    pub const fn step(mut self, step: &'static str) -> Self {
        self.step = Some(step);
        self
    }

    /// `retries = 3`.
    pub const fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// `timeout = "30s"`.
    pub const fn timeout(mut self, seconds: u64, nanoseconds: u32) -> Self {
        self.timeout = Some(Duration::new(seconds, nanoseconds));
        self
    }

    /// `concurrency = 10`.
    pub const fn concurrency(mut self, concurrency: u32) -> Self {
        self.concurrency = Some(concurrency);
        self
    }

    /// `throttle = "10/1m"`.
    pub const fn throttle(mut self, limit: u32, seconds: u64) -> Self {
        self.throttle = Some(Rate { limit, period: Duration::from_secs(seconds) });
        self
    }

    /// `rate_limit = "1/5m"`.
    pub const fn rate_limit(mut self, limit: u32, seconds: u64) -> Self {
        self.rate_limit = Some(Rate { limit, period: Duration::from_secs(seconds) });
        self
    }

    /// `priority = 100`.
    pub const fn priority(mut self, seconds: i32) -> Self {
        self.priority = Some(seconds);
        self
    }

    /// `idempotency = ".."`.
    pub const fn idempotency(mut self, expression: &'static str) -> Self {
        self.idempotency = Some(expression);
        self
    }

    fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        (self.needs)(&mut needs);
        needs
    }

    pub(crate) fn call(&self) -> Call {
        self.call
    }

    fn selector(&self, default_app: Option<&str>) -> Selector {
        let target = match self.function {
            None => Target::Fallback { app: self.app.map(str::to_owned) },
            Some(stars) if is_bare_star(stars) => {
                Target::Every { app: self.app.map(str::to_owned) }
            }
            Some(function) => Target::Named(Glob::new(self.app.or(default_app), function)),
        };
        Selector { target, error: self.error.map(str::to_owned), cancelled: self.cancelled }
    }

    fn handler_id(&self, selector: &Selector) -> String {
        match (self.id, selector.exact_id(), self.step) {
            (Some(id), ..) => id.to_owned(),
            (None, Some(function_id), Some(step)) => format!("{}/{step}", rollback_id(function_id)),
            (None, Some(function_id), None) => format!("{function_id}-failure"),
            (None, None, _) => self.kebab_name.to_owned(),
        }
    }

    fn problem(&self, fault: String, remedy: String) -> Problem {
        Problem { location: Some(self.location), handler: Some(self.rust_name), fault, remedy }
    }
}

/// The id of the function that undoes this function's steps.
pub(crate) fn rollback_id(function_id: &str) -> String {
    format!("{function_id}-rollback")
}

fn is_bare_star(function: &str) -> bool {
    !function.is_empty() && function.bytes().all(|byte| byte == b'*')
}

/// A handler, as [`Dispatcher::handlers`](crate::Dispatcher::handlers) lists it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HandlerInfo {
    /// Its id, such as `shop-checkout-failure`.
    pub id: String,
    /// Its display name, such as `checkout (failure)`.
    pub name: String,
    /// The step that it undoes, if it undoes one: at an endpoint it is then a part of its function's rollback.
    pub step: Option<&'static str>,
    /// Whose failures it takes, in short: `shop-checkout`, `shop-*, error CardError`, `fallback`.
    pub selector: String,
    /// The same for Inngest: the events that would start it there, and the expressions that they would have to
    /// fulfil.
    pub triggers: Vec<Trigger>,
    /// How many attempts follow the first one at most.
    pub retries: u32,
    /// How long one call may take.
    pub timeout: Option<Duration>,
    /// How many calls there may be at once.
    pub concurrency: Option<u32>,
    /// How many runs may start in a period; one above that waits.
    pub throttle: Option<Rate>,
    /// How many runs may start in a period; one above that is dropped.
    pub rate_limit: Option<Rate>,
    /// By how many seconds the server puts its runs ahead in its queue.
    pub priority: Option<i32>,
    /// The CEL expression by whose value the server tells a repetition, which it drops.
    pub idempotency: Option<&'static str>,
    /// Its Rust name, such as `shop::payments::refund`.
    pub rust_name: &'static str,
    /// Where its attribute stands.
    pub location: Location,
    /// Its doc comment; empty if it has none.
    pub description: &'static str,
}

#[cfg(any(feature = "serve", feature = "sdk"))]
impl HandlerInfo {
    /// Something that is wrong with it.
    pub(crate) fn problem(&self, fault: String, remedy: &str) -> Problem {
        Problem {
            location: Some(self.location),
            handler: Some(self.rust_name),
            fault,
            remedy: remedy.to_owned(),
        }
    }
}

/// A handler whose wiring is sound.
#[derive(Debug)]
pub(crate) struct Wired {
    pub(crate) registration: &'static Registration,
    pub(crate) takes_steps: bool,
    #[cfg(any(feature = "serve", feature = "sdk"))]
    pub(crate) takes_trace: bool,
    pub(crate) selector: Selector,
    /// The failed function's app, if that is known.
    #[cfg(any(feature = "serve", feature = "sdk"))]
    pub(crate) app: Option<String>,
    pub(crate) info: HandlerInfo,
}

/// What handlers are checked against.
#[derive(Debug)]
pub(crate) struct Wiring<'a> {
    pub(crate) app: Option<&'a str>,
    pub(crate) known_functions: Option<&'a BTreeSet<String>>,
    pub(crate) states: &'a States,
    /// Whether there is something to have traces from.
    pub(crate) has_traces: bool,
}

/// The handlers, sorted by id; or everything that is wrong with them, added to `problems`.
pub(crate) fn wire(
    mut registrations: Vec<&'static Registration>,
    wiring: &Wiring<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Wired> {
    let mut seen = HashSet::new();
    registrations.retain(|&registration| seen.insert(std::ptr::from_ref(registration)));

    let mut wired: Vec<(&'static Registration, Selector, String)> = registrations
        .into_iter()
        .map(|registration| {
            let selector = registration.selector(wiring.app);
            let id = registration.handler_id(&selector);
            (registration, selector, id)
        })
        .collect();
    let key = |(registration, _, id): &(&'static Registration, Selector, String)| {
        (id.clone(), registration.location, registration.rust_name)
    };
    wired.sort_by_cached_key(key);

    for (registration, selector, _) in &wired {
        check_needs(registration, wiring, problems);
        check_function(registration, selector, wiring, problems);
    }
    check_reserved(&wired, problems);
    check_ids(&wired, problems);
    warn_of_both(&wired);
    if !problems.is_empty() {
        return Vec::new();
    }

    let naming: Vec<Selector> = wired
        .iter()
        .filter(|(_, selector, _)| selector.names_functions())
        .map(|(_, selector, _)| selector.clone())
        .collect();
    wired
        .into_iter()
        .map(|(registration, selector, id)| {
            let info = registration.info(&id, &selector, &naming);
            Wired {
                takes_steps: registration.needs().has_steps(),
                #[cfg(any(feature = "serve", feature = "sdk"))]
                takes_trace: registration.needs().has_trace(),
                registration,
                selector,
                #[cfg(any(feature = "serve", feature = "sdk"))]
                app: registration.app.or(wiring.app).map(str::to_owned),
                info,
            }
        })
        .collect()
}

impl Registration {
    fn info(&self, id: &str, selector: &Selector, naming: &[Selector]) -> HandlerInfo {
        let function = self.function.unwrap_or("fallback");
        HandlerInfo {
            id: id.to_owned(),
            name: match (self.name, self.step) {
                (Some(name), _) => name.to_owned(),
                (None, Some(step)) => format!("{function} (undo {step})"),
                (None, None) => format!("{function} (failure)"),
            },
            step: self.step,
            selector: match self.step {
                Some(step) => format!("{selector}, step {step}"),
                None => selector.to_string(),
            },
            triggers: triggers(selector, naming.iter()),
            retries: self.retries,
            timeout: self.timeout,
            concurrency: self.concurrency,
            throttle: self.throttle,
            rate_limit: self.rate_limit,
            priority: self.priority,
            idempotency: self.idempotency,
            rust_name: self.rust_name,
            location: self.location,
            description: self.description,
        }
    }
}

/// What the handlers that undo steps of a function are as one.
pub(crate) fn rollback(function_id: &str, undos: &[&Wired]) -> HandlerInfo {
    let infos = || undos.iter().map(|undo| &undo.info);
    let first = &undos[0];
    let selector = Selector {
        target: first.selector.target.clone(),
        // Each looks at the error by itself.
        error: None,
        cancelled: undos.iter().any(|undo| undo.selector.cancelled),
    };
    HandlerInfo {
        id: rollback_id(function_id),
        name: format!("{} (rollback)", first.registration.function.unwrap_or(function_id)),
        step: None,
        selector: selector.to_string(),
        triggers: triggers(&selector, std::iter::empty()),
        retries: infos().map(|info| info.retries).max().unwrap_or_default(),
        timeout: None,
        concurrency: None,
        throttle: None,
        rate_limit: None,
        priority: None,
        idempotency: None,
        rust_name: first.info.rust_name,
        location: first.info.location,
        description: "",
    }
}

/// Whether what the handler takes is to be had.
fn check_needs(registration: &Registration, wiring: &Wiring<'_>, problems: &mut Vec<Problem>) {
    let needs = registration.needs();
    let states = wiring.states;
    if !wiring.has_traces && (needs.has_trace() || registration.step.is_some()) {
        problems.push(registration.problem(
            "it needs the trace of the failed run, and there is nothing to have it from".to_owned(),
            "give the dispatcher's builder a `.trace_source(..)`, or turn on the feature `api` of `inngest-failure`, \
             with which it comes from Inngest's API"
                .to_owned(),
        ));
    }
    if needs.has_steps() && matches!(registration.call, Call::Blocking(_)) {
        problems.push(registration.problem(
            "it takes `Step` but is a plain `fn`, which can't await one".to_owned(),
            "make it an `async fn`".to_owned(),
        ));
    }
    if needs.has_steps() && registration.rate_limit.is_some() {
        problems.push(registration.problem(
            "it takes `Step` and has a `rate_limit`, which drops runs, and with them the compensation".to_owned(),
            "limit it with `throttle`, which lets runs wait".to_owned(),
        ));
    }
    if needs.has_step_output() && registration.step.is_none() {
        problems.push(
            registration.problem(
                "it takes `StepOutput`, but undoes no step".to_owned(),
                "write `step = \"..\"` in its attribute, or take `RunTrace`, which has all steps"
                    .to_owned(),
            ),
        );
    }
    for missing in needs.missing(states) {
        problems.push(registration.problem(
            format!("it needs state of type `{missing}`, and the dispatcher has none"),
            "give the dispatcher's builder a `.state(..)` of that type".to_owned(),
        ));
    }
}

/// Whether there can be such a function at all.
fn check_function(
    registration: &Registration,
    selector: &Selector,
    wiring: &Wiring<'_>,
    problems: &mut Vec<Problem>,
) {
    let known = wiring.known_functions;
    let app = registration.app.or(wiring.app);
    let exact = selector.exact_id();
    let is_known = |known: &BTreeSet<String>| match exact {
        Some(id) => known.contains(id),
        None => known.iter().any(|id| selector.covers(id)),
    };
    if known.is_some_and(is_known) {
        return;
    }
    if let (Target::Named(glob), Some(function), Some(app)) =
        (&selector.target, registration.function, app)
        && let Some(rest) = function.strip_prefix(app).and_then(|rest| rest.strip_prefix('-'))
    {
        problems.push(registration.problem(
            format!(
                "`function = {function:?}` begins with its own app `{app}`, so it means `{glob}`"
            ),
            format!(
                "write `function = {rest:?}`, or list `{glob}` in `.known_functions(..)` if the \
                 function is really called so"
            ),
        ));
        return;
    }
    if let (Some(id), None) = (exact, app)
        && !id.contains('-')
    {
        tracing::warn!(
            handler = registration.rust_name,
            location = %registration.location,
            "there is no `app`, so `function = {id:?}` is a whole composite id, which Inngest joins with a `-`; \
             give the dispatcher its `.app(..)`, or write `function = \"<app>-{id}\"`",
        );
    }
    let (Some(known), Some(function)) = (known, registration.function) else { return };
    let known = known.iter().map(String::as_str);
    let wanted = match &selector.target {
        Target::Named(glob) => glob.to_string(),
        Target::Every { app: Some(app) } => format!("{app}-*"),
        Target::Every { app: None } | Target::Fallback { .. } => return,
    };
    let remedy = match exact.and_then(|id| nearest(id, known)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "correct it, or add the function to `.known_functions(..)`".to_owned(),
    };
    problems.push(registration.problem(
        format!(
            "`function = {function:?}` means `{wanted}`, which fits none of the known functions"
        ),
        remedy,
    ));
}

/// Whether no handler has the id that stands for none.
fn check_reserved(
    wired: &[(&'static Registration, Selector, String)],
    problems: &mut Vec<Problem>,
) {
    for (registration, ..) in wired.iter().filter(|(.., id)| id == DeadLetter::UNHANDLED) {
        problems.push(registration.problem(
            format!(
                "its id is `{}`, which stands for no handler in dead letters",
                DeadLetter::UNHANDLED
            ),
            "give it another `id = \"..\"`".to_owned(),
        ));
    }
}

fn check_ids(wired: &[(&'static Registration, Selector, String)], problems: &mut Vec<Problem>) {
    let mut by_id: BTreeMap<String, Vec<&'static Registration>> = BTreeMap::new();
    for (registration, selector, id) in wired {
        by_id.entry(id.clone()).or_default().push(registration);
        // Its rollback has an id as well, which it shares with the other undos of the function.
        if let (Some(function_id), Some(_)) = (selector.exact_id(), registration.step) {
            let rollback = by_id.entry(rollback_id(function_id)).or_default();
            if !rollback.iter().any(|other| other.step.is_some()) {
                rollback.push(registration);
            }
        }
    }
    for (id, mut same) in by_id {
        // Those that choose their id come first: an undo can't.
        same.sort_by_key(|registration| registration.step.is_some());
        let [first, others @ ..] = same.as_slice() else { continue };
        if others.is_empty() {
            continue;
        }
        let named: Vec<String> = others
            .iter()
            .map(|other| {
                let named = format!("`{}` ({})", other.rust_name, other.location);
                match other.step {
                    Some(step) if !id.ends_with(&format!("/{step}")) => {
                        format!("the rollback that {named} is a part of")
                    }
                    _ => named,
                }
            })
            .collect();
        let problem = match first.step {
            Some(step) if others.iter().all(|other| other.step == first.step) => first.problem(
                format!("it undoes step `{step}`, and so does {}", named.join(" and ")),
                "let one handler undo a step".to_owned(),
            ),
            _ => first.problem(
                format!("its id `{id}` is also that of {}", named.join(" and of ")),
                match others.iter().any(|other| other.step.is_some()) {
                    true => "give it another `id = \"..\"`".to_owned(),
                    false => "give all but one an `id = \"..\"` of their own".to_owned(),
                },
            ),
        };
        problems.push(problem);
    }
}

/// Says so if a function's failures are handled as a whole and step by step: both run.
fn warn_of_both(wired: &[(&'static Registration, Selector, String)]) {
    let mut warned = BTreeSet::new();
    for (undo, selector, _) in wired.iter().filter(|(registration, ..)| registration.step.is_some())
    {
        let Some(function_id) = selector.exact_id() else { continue };
        let covers = |(registration, selector, _): &&(&'static Registration, Selector, String)| {
            let of_other_error = match (registration.error, undo.error) {
                (Some(error), Some(undone)) => error != undone,
                _ => false,
            };
            registration.step.is_none()
                && selector.names_functions()
                && selector.covers(function_id)
                && !of_other_error
        };
        if let Some((handler, ..)) = wired.iter().find(covers)
            && warned.insert(function_id)
        {
            tracing::warn!(
                function_id,
                handler = handler.rust_name,
                undo = undo.rust_name,
                "the function's failures have a handler, and its steps have undos: both run, in no order",
            );
        }
    }
}

/// Lists handlers for [`DispatcherBuilder::register`](crate::DispatcherBuilder::register), by the
/// paths of their functions.
///
/// `expected type, found function` means that the function lacks its `#[on_failure(..)]`.
///
/// # Examples
///
/// ```
/// use inngest_failure::{Dispatcher, handlers, on_failure};
///
/// #[on_failure(function = "checkout")]
/// async fn undo_checkout() {}
///
/// mod payments {
///     #[inngest_failure::on_failure(function = "charge")]
///     pub async fn refund() {}
/// }
///
/// let dispatcher = Dispatcher::builder()
///     .without_inventory()
///     .register(handlers![undo_checkout, payments::refund])
///     .build()?;
/// assert_eq!(dispatcher.handlers().len(), 2);
/// # Ok::<(), inngest_failure::BuildError>(())
/// ```
#[macro_export]
macro_rules! handlers {
    ($($handler:path),* $(,)?) => {
        [$(<$handler as $crate::__private::Handler>::registration()),*]
    };
}

#[cfg(all(test, not(feature = "api")))]
mod tests {
    use crate::{
        BoxFuture, Dispatcher, DispatcherBuilder, RunTrace, StepOutput, TraceError, TraceSource,
        on_failure,
    };

    #[on_failure(function = "checkout", step = "charge-card")]
    async fn undo() {}

    #[on_failure(function = "checkout", step = "reserve-stock")]
    fn undo_with_output(reserved: StepOutput<String>) {
        drop(reserved);
    }

    #[on_failure(function = "pick")]
    async fn with_trace(trace: RunTrace) {
        drop(trace);
    }

    #[on_failure(function = "pack")]
    async fn without() {}

    fn builder() -> DispatcherBuilder {
        let handlers = handlers![undo, undo_with_output, with_trace, without];
        Dispatcher::builder().app("shop").without_inventory().register(handlers)
    }

    #[test]
    fn without_the_api_a_trace_needs_a_source() {
        let error = builder().build().unwrap_err();
        let names: Vec<_> = error.problems().iter().filter_map(|problem| problem.handler).collect();
        let own = |name: &str| format!("{}::{name}", module_path!());
        assert_eq!(names, ["undo", "undo_with_output", "with_trace"].map(own));
        for problem in error.problems() {
            assert_eq!(
                format!("{}; {}", problem.fault, problem.remedy),
                "it needs the trace of the failed run, and there is nothing to have it from; give the dispatcher's \
                 builder a `.trace_source(..)`, or turn on the feature `api` of `inngest-failure`, with which it \
                 comes from Inngest's API"
            );
        }
    }

    #[test]
    fn a_trace_source_is_enough() {
        struct Nothing;

        impl TraceSource for Nothing {
            fn trace<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<RunTrace, TraceError>> {
                Box::pin(async { Err(TraceError::other("nothing")) })
            }
        }

        let dispatcher = builder().trace_source(Nothing).build().unwrap();
        assert_eq!(dispatcher.handlers().len(), 4);
    }
}
