//! What those need of a dispatcher that host its handlers: an endpoint, a server of the SDK, a command line.

use std::sync::Arc;

#[cfg(feature = "cli")]
use super::Rollback;
use super::{Called, Dispatcher, RunError};
use crate::{
    api::Api,
    event::FailureEvent,
    registry::HandlerInfo,
    selector::{Selector, Subject},
    step::Pass,
};

/// The apps of the failed functions.
pub(super) struct Apps {
    /// The dispatcher's own `app`.
    #[cfg(feature = "serve")]
    pub(super) default: Option<String>,
    /// The handlers' apps, in their order.
    pub(super) of_handlers: Vec<Option<String>>,
}

/// Why an app counts as one whose functions fail.
#[cfg(feature = "serve")]
pub(crate) enum FailedApp<'a> {
    /// It is the dispatcher's `app`.
    Default,
    /// It is the app of this handler's function.
    Of(&'a HandlerInfo),
}

impl Dispatcher {
    /// The handlers as functions of Inngest: those that undo steps of one function are one.
    pub(crate) fn functions(&self) -> &[HandlerInfo] {
        &self.inner.functions
    }

    /// Makes one attempt of one function, and nothing else: see [`run::Handler::call`].
    #[cfg(feature = "serve")]
    pub(crate) async fn call(
        &self,
        handler: usize,
        event: FailureEvent,
        attempt: u32,
        max_attempts: Option<u32>,
        pass: Option<Arc<Pass>>,
        api: &Api,
    ) -> Called {
        let handler = &self.inner.handlers[handler];
        handler.call(event, attempt, max_attempts, pass, Some(api), None).await
    }

    /// Notes that a run that Inngest has called is over.
    pub(crate) async fn end(
        &self,
        handler: usize,
        event: &FailureEvent,
        result: Result<(), &RunError>,
        attempts: u32,
        pass: Option<&Pass>,
    ) {
        self.inner.handlers[handler].end(event, result, attempts, pass).await;
    }

    /// The same within the handler's own limits, which no server keeps; `None` if its rate limit lets no run start.
    #[cfg(feature = "sdk")]
    pub(crate) async fn call_within_limits(
        &self,
        handler: usize,
        event: FailureEvent,
        attempt: u32,
        pass: Option<Arc<Pass>>,
    ) -> Option<Called> {
        let handler = &self.inner.handlers[handler];
        let limits = handler.limits();
        // The first call of a run, if the handler has no steps. With some it has neither a throttle nor a rate limit.
        if attempt == 0 && !limits.admit().await {
            return None;
        }
        let permit = limits.permit().await;
        Some(handler.call(event, attempt, None, pass, None, permit).await)
    }

    /// The handler's selector, and the failed function's app, if that is known.
    pub(crate) fn target(&self, function: usize) -> (&Selector, Option<&str>) {
        let of_function = |unit: &usize| *unit == function;
        let handler = self.inner.units.iter().position(of_function).unwrap_or_default();
        let app = self.inner.apps.of_handlers[handler].as_deref();
        (&self.inner.index.selectors()[handler], app)
    }

    /// Whether the function undoes steps.
    #[cfg(feature = "serve")]
    pub(crate) fn is_rollback(&self, function: usize) -> bool {
        self.inner.handlers[function].is_rollback()
    }

    /// Whether the handler takes steps.
    pub(crate) fn takes_steps(&self, handler: usize) -> bool {
        self.inner.handlers[handler].takes_steps()
    }

    /// The API that the dispatcher was given.
    pub(crate) fn api(&self) -> Option<&Api> {
        self.inner.tools.api.as_ref()
    }

    /// Whether the dispatcher was given a trace source.
    #[cfg(feature = "testing")]
    pub(crate) fn has_trace_source(&self) -> bool {
        self.inner.has_trace_source
    }

    /// Whether some handler is for failures of this app, as far as is known: why, if so.
    #[cfg(feature = "serve")]
    pub(crate) fn is_failed_app(&self, app: &str) -> Option<FailedApp<'_>> {
        let Apps { default, of_handlers } = &self.inner.apps;
        if default.as_deref() == Some(app) {
            return Some(FailedApp::Default);
        }
        let selectors = self.inner.index.selectors();
        let names = |i: &usize| match &of_handlers[*i] {
            Some(named) => named == app,
            None => selectors[*i].may_name_app(app),
        };
        (0..selectors.len()).find(names).map(|i| FailedApp::Of(&self.inner.infos[i]))
    }

    /// Whether there is a handler for failures of functions that none names.
    pub(crate) fn takes_unnamed(&self) -> bool {
        self.inner.index.selectors().iter().any(|selector| !selector.names_functions())
    }

    /// Whether the handler's selector takes the failure.
    pub(crate) fn takes(&self, handler: usize, event: &FailureEvent) -> bool {
        let subject = Subject::from(event);
        if self.inner.handlers[handler].is_rollback() {
            // Its trigger says nothing of errors: each undo looks at them by itself.
            let (selector, _) = self.target(handler);
            let any = Selector { error: None, cancelled: true, ..selector.clone() };
            return any.matches(subject);
        }
        let selection = self.inner.index.select(subject);
        selection.handlers.iter().any(|&i| self.inner.units[i] == handler)
    }

    /// The handlers that take the failure, by their places, and whether it is unhandled.
    #[cfg(feature = "cli")]
    pub(crate) fn select(&self, event: &FailureEvent) -> (Vec<usize>, bool) {
        let selection = self.inner.index.select(Subject::from(event));
        (selection.handlers.to_vec(), selection.unhandled)
    }

    /// What becomes of the other undos when one has failed for good.
    #[cfg(feature = "cli")]
    pub(crate) fn rollback(&self) -> Rollback {
        self.inner.rollback
    }

    /// The app whose functions the handlers mean that name none.
    #[cfg(feature = "cli")]
    pub(crate) fn app(&self) -> Option<&str> {
        self.inner.apps.default.as_deref()
    }
}
