//! A run of a handler, with a server that is played.

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde::Serialize;
use serde_json::{Value, json};
use tower_service::Service;
use tracing::subscriber::NoSubscriber;

use super::{
    Probe, TestCall, Transcript,
    failure::{TestTrace, json_of},
    server::{Answer, Item, Server},
};
use crate::{
    api::Api, dispatcher::Dispatcher, error::BuildError, event::FailureEvent, serve::Endpoint,
    step::Event,
};

/// The app that handlers are served as here.
const APP: &str = "inngest-failure-testing";

/// Drives one handler the way the Inngest server does: calls it, remembers its steps, calls it again, until the run has
/// its end.
///
/// The calls are those of a real server, and go through a real [`Endpoint`] in dev mode, so what is tested is what runs in
/// production. Time that the server would wait is skipped, and events that the handler sends are kept for
/// [`Transcript::sent_events`].
///
/// # Examples
///
/// ```
/// use inngest_failure::{Dispatcher, HandlerError, Step, handlers, on_failure, testing::{TestRun, failure}};
///
/// #[on_failure(function = "checkout")]
/// async fn undo_checkout(step: Step) -> Result<u64, HandlerError> {
///     let cents = step.run("refund", async || Ok::<u64, HandlerError>(1250)).await?;
///     step.run("restock", async || Ok::<(), HandlerError>(())).await?;
///     Ok(cents)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let dispatcher = Dispatcher::builder()
///     .app("shop")
///     .without_inventory()
///     .register(handlers![undo_checkout])
///     .build()?;
/// let transcript = TestRun::new(&dispatcher, "shop-checkout-failure", failure("shop-checkout").build())
///     .fail_step("restock", 2)
///     .run()
///     .await;
///
/// assert_eq!(transcript.assert_succeeded(), 1250);
/// transcript.assert_completed(["refund", "restock"]);
/// println!("{transcript}");
/// # Ok(())
/// # }
/// ```
#[must_use = "a run does nothing until `run` is called"]
pub struct TestRun {
    handler_id: String,
    endpoint: Endpoint,
    app_id: String,
    path: String,
    server: Server,
    probe: Arc<Probe>,
    outbox: Outbox,
    random: fastrand::Rng,
    /// Whether calls that are due at one time are made in a random order.
    is_random: bool,
    lost: f64,
    repeated: f64,
}

impl TestRun {
    /// A run of the dispatcher's handler of this id, for this failure. Whether its selector takes the failure is not
    /// asked.
    ///
    /// # Panics
    ///
    /// If there is no such handler, or if an endpoint would not serve the dispatcher's handlers.
    #[track_caller]
    pub fn new(dispatcher: &Dispatcher, handler_id: &str, event: FailureEvent) -> Self {
        let Some(handler) = dispatcher.functions().iter().find(|handler| handler.id == handler_id)
        else {
            let ids: Vec<&str> =
                dispatcher.functions().iter().map(|handler| handler.id.as_str()).collect();
            panic!("there is no handler `{handler_id}`; there are {ids:?}");
        };
        let outbox = Outbox::default();
        let endpoint = match endpoint(dispatcher, &outbox) {
            Ok(endpoint) => endpoint,
            Err(error) => panic!("{error}"),
        };
        Self {
            handler_id: handler_id.to_owned(),
            endpoint,
            app_id: APP.to_owned(),
            path: "/api/inngest".to_owned(),
            probe: Arc::new(Probe::new(trace(dispatcher, &event))),
            server: Server::new(handler.retries + 1, event),
            outbox,
            random: fastrand::Rng::with_seed(0),
            is_random: false,
            lost: 0.0,
            repeated: 0.0,
        }
    }

    /// Makes a step of `run` or `send_event` fail so many times, in place of its closure, before it runs. Of steps of one id the
    /// second is `id:1`.
    pub fn fail_step(self, step: impl Into<String>, times: u32) -> Self {
        self.probe.fail(step.into(), times);
        self
    }

    /// The event that comes while a step waits for one. Without it, the time of the step's wait runs out. Whether a
    /// [`matching`](crate::Wait::matching) expression holds for it is not asked, but it must have the name that the step
    /// waits for.
    ///
    /// # Panics
    ///
    /// If its data can't be written as JSON.
    #[track_caller]
    pub fn event_arrives(mut self, step: impl Into<String>, event: &Event) -> Self {
        let mut event = json_of(event);
        event["id"] =
            event.get("id").cloned().unwrap_or_else(|| json!("01TEST0000000000000AWAITED"));
        event["ts"] = event.get("ts").cloned().unwrap_or_else(|| json!(1_795_378_322_890_u64));
        self.server.answer(step.into(), Answer::Event(event));
        self
    }

    /// What the function returns that a step invokes.
    ///
    /// # Panics
    ///
    /// If it can't be written as JSON.
    #[track_caller]
    pub fn invoke_returns(mut self, step: impl Into<String>, value: impl Serialize) -> Self {
        self.server.answer(step.into(), Answer::Returned(json_of(value)));
        self
    }

    /// What the function fails with that a step invokes.
    pub fn invoke_fails(mut self, step: impl Into<String>, message: impl Into<String>) -> Self {
        let error = json!({ "name": "Error", "message": message.into() });
        self.server.answer(step.into(), Answer::Failed(error));
        self
    }

    /// Makes the calls that are due at one time in a random order, as happens with steps that run side by side. The same
    /// seed gives the same order. It also decides which answers are lost and which calls repeated.
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = fastrand::Rng::with_seed(seed);
        self.is_random = true;
        self
    }

    /// Loses the answers of this share of the calls, from 0 to 1, at random: the server then calls again, as the next
    /// attempt. The last attempt's answer is never lost, for that would be the end of the run.
    pub fn lose_answers(mut self, share: f64) -> Self {
        self.lost = share;
        self
    }

    /// Makes this share of the calls, from 0 to 1, at random, once more, as Inngest does after steps that have run side by
    /// side.
    pub fn repeat_calls(mut self, share: f64) -> Self {
        self.repeated = share;
        self
    }

    /// The app id of the endpoint, for [`run_through`](Self::run_through); by default `inngest-failure-testing`.
    pub fn app_id(mut self, app_id: impl Into<String>) -> Self {
        self.app_id = app_id.into();
        self
    }

    /// The path of the endpoint, for [`run_through`](Self::run_through); by default `/api/inngest`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Drives the handler to its end.
    ///
    /// # Panics
    ///
    /// If it is not awaited on a Tokio runtime with its timer enabled; if the run does not end; if the handler invokes a
    /// function and the test has not said what it returns; if the test has said what becomes of a step, and the
    /// handler has not come to it, or not to one of that kind; if an event has another name than the one that a step waits
    /// for.
    pub async fn run(mut self) -> Transcript {
        APP.clone_into(&mut self.app_id);
        let mut calls = Vec::new();
        while let Some((item, mut call, request)) = self.next(calls.len()) {
            let Ok(response) = self.endpoint.clone().call(request.map(Full::new)).await;
            let (parts, body) = response.into_parts();
            let Ok(body) = body.collect().await;
            let response = Response::from_parts(parts, body.to_bytes());
            self.take(item, &mut call, &response);
            calls.push(call);
        }
        let unmet = self.probe.unmet();
        let transcript = self.transcript(calls);
        assert!(
            unmet.is_empty(),
            "the handler has not come to the steps {unmet:?}, which were to fail\n\n{transcript}"
        );
        transcript
    }

    /// Drives the handler to its end with requests that are sent some other way, such as to a server in another process.
    ///
    /// In another process `fail_step` has no effect, and neither executions nor sent events are seen. The requests are unsigned, and
    /// for what [`app_id`](Self::app_id) and [`path`](Self::path) say.
    ///
    /// # Panics
    ///
    /// If the run does not end; if the handler invokes a function and the test has not said what it returns; if the test has
    /// said what comes of a step that waits, and none does so; if the path is none.
    pub async fn run_through(
        mut self,
        mut exchange: impl AsyncFnMut(Request<Bytes>) -> Response<Bytes>,
    ) -> Transcript {
        let mut calls = Vec::new();
        while let Some((item, mut call, request)) = self.next(calls.len()) {
            let response = exchange(request).await;
            self.take(item, &mut call, &response);
            calls.push(call);
        }
        self.transcript(calls)
    }

    /// The next call, until the run has its end.
    fn next(&mut self, calls: usize) -> Option<(Item, TestCall, Request<Bytes>)> {
        /// More calls than any run has steps: Inngest allows a run 1,000 of them.
        const MAX_CALLS: usize = 100_000;
        if self.server.end.is_some() {
            return None;
        }
        assert!(calls < MAX_CALLS, "the run does not end: {MAX_CALLS} calls were made");
        let Self { server, random, is_random, .. } = self;
        let item = server.next(|due| if *is_random { random.usize(..due) } else { 0 });
        let Some(item) = item else {
            panic!("the run has stopped: the handler's last answer left nothing to be done");
        };
        let function = format!("{}-{}", self.app_id, self.handler_id);
        let mut request = self.server.request(&item, &self.path, &function);
        request.extensions_mut().insert(Arc::clone(&self.probe));
        let call = self.server.call(&item);
        Some((item, call, request))
    }

    fn take(&mut self, item: Item, call: &mut TestCall, response: &Response<Bytes>) {
        call.executions = self.probe.take();
        if self.random.f64() < self.lost && !self.server.is_last(&item) {
            call.is_lost = true;
            call.status = response.status().as_u16();
            self.server.lose(item);
            return;
        }
        let repeated = (self.random.f64() < self.repeated).then(|| item.clone());
        self.server.take(item, response, call);
        if let Some(item) = repeated {
            self.server.repeat(item);
        }
    }

    fn transcript(mut self, calls: Vec<TestCall>) -> Transcript {
        let transcript = Transcript {
            end: self.server.end.take().unwrap_or(Ok(Value::Null)),
            calls,
            sent: self.outbox.take(),
            elapsed: self.server.clock(),
            handler_id: self.handler_id,
        };
        let unasked: Vec<&str> = self.server.unasked().collect();
        assert!(
            unasked.is_empty(),
            "the handler has not waited in the steps {unasked:?}, which were to get an answer\n\n{transcript}"
        );
        transcript
    }
}

/// What the failed run had done: what the test says, or what the dispatcher's own source does, or nothing.
fn trace(dispatcher: &Dispatcher, event: &FailureEvent) -> Option<Arc<TestTrace>> {
    let given = event.test_trace();
    match given.is_some_and(|trace| trace.is_given) || dispatcher.has_trace_source() {
        true => given.cloned(),
        false => Some(Arc::new(TestTrace::empty(event))),
    }
}

/// An endpoint that takes nothing from the environment.
fn endpoint(dispatcher: &Dispatcher, outbox: &Outbox) -> Result<Endpoint, BuildError> {
    let none: &crate::api::Environment<'_> = &|_| None;
    let mut problems = Vec::new();
    let api = Api::builder().dev(true).client(outbox.clone()).resolve(none, &mut problems);
    let builder = Endpoint::builder(dispatcher.clone(), APP).api(api);
    // What it would warn of is nothing to a test.
    tracing::subscriber::with_default(NoSubscriber::new(), || builder.resolve(none))
}

/// Where events are sent to: it keeps them.
#[derive(Clone, Default)]
struct Outbox(Arc<Mutex<Vec<Value>>>);

impl Outbox {
    fn take(&self) -> Vec<Value> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Service<Request<Bytes>> for Outbox {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let events: Vec<Value> = serde_json::from_slice(request.body()).unwrap_or_default();
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<String> = (sent.len()..sent.len() + events.len())
            .map(|number| format!("01TEST00000000000000SENT{number:02}"))
            .collect();
        sent.extend(events);
        let body = json!({ "ids": ids, "status": 200 }).to_string();
        ready(Ok(Response::new(Full::from(body))))
    }
}

impl fmt::Debug for TestRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestRun").field("handler_id", &self.handler_id).finish_non_exhaustive()
    }
}
