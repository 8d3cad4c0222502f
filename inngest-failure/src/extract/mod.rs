//! What a handler is given: extractors, and the context that they take it from.

mod failure;
mod run_context;
mod state;
mod step;
mod trace;

use std::{
    any::{Any, TypeId, type_name},
    collections::HashMap,
    fmt,
    sync::Arc,
};

pub use self::{
    run_context::RunContext,
    state::{MissingState, State},
};
#[cfg(feature = "api")]
use crate::api::Api;
use crate::{
    error::HandlerError,
    step::{Pass, Scope},
    trace::{RunTrace, TraceError, Traces, Undone},
};
pub use crate::{
    event::{Failure, FailureEvent},
    step::Step,
    trace::StepOutput,
};

/// An argument of a handler: a value that is taken from the failure and from what the dispatcher
/// knows.
///
/// Every argument of a function under [`#[on_failure]`](crate::on_failure) is one. Those of this
/// crate are [`Failure`], [`FailureEvent`], [`State`], [`RunContext`], [`Step`], [`StepOutput`], [`RunTrace`], and
/// `Result<T, T::Rejection>` of any extractor `T`, for a handler that wants to see why `T` could not
/// be taken. Implement it for types of your own that several handlers need.
///
/// # Examples
///
/// An extractor that is made from another one:
///
/// ```
/// use inngest_failure::{Context, Failure, FromFailure, Needs, ParseError, State};
///
/// #[derive(Clone)]
/// struct Shop { name: &'static str }
///
/// #[derive(serde::Deserialize)]
/// struct Order { order_id: String }
///
/// /// How the customer knows the order.
/// struct Reference(String);
///
/// impl FromFailure for Reference {
///     type Rejection = inngest_failure::HandlerError;
///
///     async fn from_failure(cx: &Context) -> Result<Self, Self::Rejection> {
///         let State(shop) = State::<Shop>::from_failure(cx).await?;
///         let failure = Failure::<Order>::from_failure(cx).await?;
///         Ok(Self(format!("{}/{}", shop.name, failure.event.data.order_id)))
///     }
///
///     fn needs(needs: &mut Needs) {
///         State::<Shop>::needs(needs);
///     }
/// }
/// ```
///
/// # Cancel safety
///
/// The future of [`from_failure`](Self::from_failure) is dropped when the handler's call times out
/// or the dispatch is dropped, like the handler's own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an extractor",
    label = "a handler can't take this as an argument",
    note = "take `Failure<T>`, `FailureEvent`, `State<S>`, `RunContext`, `RunTrace`, `Step` or `StepOutput<T>`, or implement `FromFailure` for `{Self}`",
    note = "an application's own values come as `State<S>`, given to the dispatcher with `.state(..)`"
)]
pub trait FromFailure: Sized + Send {
    /// Why the value could not be taken. Whether the handler is tried again is up to it, as with
    /// every [`HandlerError`].
    type Rejection: Into<HandlerError>;

    /// Takes the value.
    ///
    /// # Errors
    ///
    /// The [`Rejection`](Self::Rejection); the handler then does not run.
    fn from_failure(cx: &Context) -> impl Future<Output = Result<Self, Self::Rejection>> + Send;

    /// Declares what must be there for it, which
    /// [`build()`](crate::DispatcherBuilder::build) then checks. By default, nothing.
    fn needs(needs: &mut Needs) {
        let _ = needs;
    }
}

/// What extractors take their values from: one attempt to handle one failure.
pub struct Context {
    event: FailureEvent,
    handler: Arc<HandlerContext>,
    attempt: u32,
    max_attempts: u32,
    pass: Option<(Arc<Pass>, Option<Arc<Scope>>)>,
    /// What few calls have: boxed, for every attempt would be the larger for it.
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Default)]
struct Rare {
    /// The step that the handler is to undo.
    undone: Option<Undone>,
    /// The API of whoever calls the handler, if it has one.
    #[cfg(feature = "api")]
    api: Option<Api>,
}

/// What is the same in all of a handler's runs.
#[derive(Debug)]
pub(crate) struct HandlerContext {
    pub(crate) id: String,
    pub(crate) max_attempts: u32,
    pub(crate) states: Arc<States>,
    pub(crate) traces: Arc<Traces>,
}

impl Context {
    pub(crate) fn new(event: FailureEvent, handler: Arc<HandlerContext>) -> Self {
        let max_attempts = handler.max_attempts;
        Self { event, handler, attempt: 0, max_attempts, pass: None, rare: None }
    }

    /// The same failure for a handler that undoes one of its steps.
    pub(crate) fn for_undo(
        &self,
        handler: Arc<HandlerContext>,
        attempt: u32,
        undone: Undone,
    ) -> Self {
        let mut cx = Self::new(self.event.clone(), handler);
        cx.attempt = attempt;
        // The server may know of fewer.
        cx.max_attempts = cx.max_attempts.min(self.max_attempts);
        cx.rare.clone_from(&self.rare);
        cx.rare.get_or_insert_default().undone = Some(undone);
        cx
    }

    pub(crate) fn set_attempt(&mut self, attempt: u32) {
        self.attempt = attempt;
    }

    pub(crate) fn set_pass(&mut self, pass: Arc<Pass>) {
        self.pass = Some((pass, None));
    }

    /// Steps in the name of one part of the handler.
    pub(crate) fn set_scoped_pass(&mut self, pass: Arc<Pass>, scope: Arc<Scope>) {
        self.pass = Some((pass, Some(scope)));
    }

    pub(crate) fn pass(&self) -> Option<&Arc<Pass>> {
        self.pass.as_ref().map(|(pass, _)| pass)
    }

    #[cfg(any(feature = "serve", feature = "sdk"))]
    pub(crate) fn set_api(&mut self, api: Api) {
        self.rare.get_or_insert_default().api = Some(api);
    }

    /// The trace of the run that failed.
    pub(crate) async fn trace(&self) -> Result<RunTrace, TraceError> {
        #[cfg(feature = "api")]
        {
            let api = self.rare.as_ref().and_then(|rare| rare.api.as_ref());
            self.handler.traces.of(&self.event, api).await
        }
        #[cfg(not(feature = "api"))]
        self.handler.traces.of(&self.event).await
    }

    pub(crate) fn undone(&self) -> Option<&Undone> {
        self.rare.as_ref()?.undone.as_ref()
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    #[cfg(any(feature = "serve", feature = "sdk"))]
    pub(crate) fn set_max_attempts(&mut self, max_attempts: u32) {
        self.max_attempts = max_attempts;
    }

    /// The failure event.
    pub fn event(&self) -> &FailureEvent {
        &self.event
    }

    /// The state of this type that the dispatcher was given.
    pub fn state<S: Send + Sync + 'static>(&self) -> Option<&S> {
        self.handler.states.get()
    }

    /// The steps of this attempt, if the handler has said that it takes some.
    fn step(&self) -> Option<Step> {
        self.pass.clone().map(|(pass, scope)| Step::new(pass, scope))
    }

    /// Which handler this is, and which attempt.
    pub fn run(&self) -> RunContext {
        RunContext {
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            handler_id: self.handler.id.clone(),
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("event", &self.event)
            .field("run", &self.run())
            .finish_non_exhaustive()
    }
}

/// What an extractor cannot do without.
///
/// # Examples
///
/// ```
/// # use inngest_failure::{Context, FromFailure, MissingState, Needs, State};
/// # #[derive(Clone)] struct Shop;
/// # struct Mine;
/// # impl FromFailure for Mine {
/// #     type Rejection = MissingState;
/// #     async fn from_failure(cx: &Context) -> Result<Self, MissingState> {
/// #         State::<Shop>::from_failure(cx).await.map(|_| Mine)
/// #     }
/// fn needs(needs: &mut Needs) {
///     needs.state::<Shop>();
/// }
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Needs {
    states: Vec<(TypeId, &'static str)>,
    steps: bool,
    step_output: bool,
    trace: bool,
}

impl Needs {
    /// State of this type.
    pub fn state<S: Send + Sync + 'static>(&mut self) {
        let need = (TypeId::of::<S>(), type_name::<S>());
        if !self.states.contains(&need) {
            self.states.push(need);
        }
    }

    /// [`Step`]s.
    pub fn steps(&mut self) {
        self.steps = true;
    }

    /// What the step that is undone had returned: [`StepOutput`].
    pub fn step_output(&mut self) {
        self.step_output = true;
    }

    /// What the failed run had done: [`RunTrace`].
    pub fn trace(&mut self) {
        self.trace = true;
    }

    pub(crate) fn has_step_output(&self) -> bool {
        self.step_output
    }

    pub(crate) fn has_trace(&self) -> bool {
        self.trace
    }

    pub(crate) fn has_steps(&self) -> bool {
        self.steps
    }

    /// The names of the types of state that are not there.
    pub(crate) fn missing<'a>(&'a self, states: &'a States) -> impl Iterator<Item = &'static str> {
        self.states.iter().filter(|(id, _)| !states.values.contains_key(id)).map(|(_, name)| *name)
    }
}

/// One value per type.
#[derive(Default)]
pub(crate) struct States {
    values: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

impl States {
    /// Returns whether it is the first of its type.
    pub(crate) fn insert<S: Send + Sync + 'static>(&mut self, state: S) -> bool {
        self.values.insert(TypeId::of::<S>(), Box::new(state)).is_none()
    }

    fn get<S: 'static>(&self) -> Option<&S> {
        self.values.get(&TypeId::of::<S>())?.downcast_ref()
    }
}

/// Shows how many there are: what they hold is the application's own.
impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States").field("len", &self.values.len()).finish_non_exhaustive()
    }
}

/// The value, or why it could not be taken.
impl<T> FromFailure for Result<T, T::Rejection>
where
    T: FromFailure,
    T::Rejection: Send,
{
    type Rejection = std::convert::Infallible;

    async fn from_failure(cx: &Context) -> Result<Self, Self::Rejection> {
        Ok(T::from_failure(cx).await)
    }

    fn needs(needs: &mut Needs) {
        T::needs(needs);
    }
}
