//! One pass of a handler: what its steps, and whoever polls it, tell each other.
//!
//! A step is *met* when it is first polled. What is remembered of it is given to it, one step after the other in the order
//! in which they had completed; what is new waits until nothing remembered is left, and then the host decides what
//! happens: in process it runs, at an endpoint it runs or is reported.

mod state;

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

pub(super) use self::state::{Go, Met, Next};
use self::state::{Host, State};
#[cfg(feature = "sdk")]
use super::carried::{Carried, Handover};
#[cfg(feature = "serve")]
use super::{
    engine::Remote,
    operation::{Report, hash},
};
use super::{
    local::{Failing, Local, Memory},
    op::Op,
    place::Place,
};
#[cfg(feature = "api")]
use crate::api::Api;
use crate::{
    dead_letter::CompletedStep,
    error::{HandlerError, StepError},
    event::FailureError,
    panic::{Panic, catch},
};

/// A step that was met in this pass, in the order of meeting.
pub(super) type Ticket = u64;

/// What a step ended with: JSON, or the error that it failed with for good.
pub(super) type Outcome = Result<String, Box<FailureError>>;

/// One pass of a handler.
pub(crate) struct Pass {
    state: Mutex<State>,
    /// What sends events.
    #[cfg(feature = "api")]
    pub(super) api: Option<Api>,
    /// Nobody polls the handler but the user: steps go ahead by themselves.
    is_plain: bool,
    #[cfg(feature = "testing")]
    pub(super) probe: Option<Arc<crate::testing::Probe>>,
}

/// What a step failed with, this time.
pub(crate) struct Fault {
    pub(crate) error: FailureError,
    pub(crate) is_retriable: bool,
    pub(crate) delay: Option<Duration>,
}

/// How a step is known.
pub(crate) struct Name<'a> {
    pub(crate) key: &'a str,
    pub(crate) label: &'a str,
    /// How often it is tried again, if that is less often than the handler.
    pub(crate) retries: Option<u32>,
}

impl Fault {
    /// The error is the user's own, so that to look at it may panic.
    pub(crate) fn of(error: &HandlerError) -> Self {
        Self {
            error: catch(|| error.describe()).unwrap_or_else(Panic::describe),
            is_retriable: catch(|| error.is_retriable()).unwrap_or(true),
            delay: catch(|| error.retry_delay()).unwrap_or_default(),
        }
    }

    pub(super) fn retriable(error: FailureError) -> Self {
        Self { error, is_retriable: true, delay: None }
    }

    pub(super) fn panicked(panic: Panic) -> Self {
        Self::retriable(panic.describe())
    }
}

impl Pass {
    fn new(host: Host) -> Self {
        Self {
            state: Mutex::new(State::new(host)),
            #[cfg(feature = "api")]
            api: None,
            is_plain: false,
            #[cfg(feature = "testing")]
            probe: None,
        }
    }

    /// An attempt in process.
    pub(crate) fn local(
        memory: Box<Memory>,
        retries: u32,
        #[cfg(feature = "api")] api: Option<Api>,
    ) -> Arc<Self> {
        Arc::new(Self {
            #[cfg(feature = "api")]
            api,
            ..Self::new(Host::Local(Local::new(memory, retries)))
        })
    }

    /// A call at an endpoint.
    #[cfg(feature = "serve")]
    pub(crate) fn remote(
        remote: Remote,
        api: Api,
        #[cfg(feature = "testing")] probe: Option<Arc<crate::testing::Probe>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            api: Some(api),
            #[cfg(feature = "testing")]
            probe,
            ..Self::new(Host::Remote(remote))
        })
    }

    /// A call in a server of the `inngest` crate.
    #[cfg(feature = "sdk")]
    pub(crate) fn carried(carried: Carried, api: Option<Api>) -> Arc<Self> {
        Arc::new(Self { api, ..Self::new(Host::Carried(carried)) })
    }

    /// Steps of no handler, which run as they are met.
    #[cfg(feature = "testing")]
    pub(crate) fn plain() -> Arc<Self> {
        let local = Local::new(Box::default(), 0);
        Arc::new(Self { is_plain: true, ..Self::new(Host::Local(local)) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of the user's runs under the lock, and of an executor's no more than the clone of a waker.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of what is polled in this pass, outside of its steps.
    pub(super) fn place(self: &Arc<Self>) -> Place {
        Place { pass: Arc::as_ptr(self) as usize, step: None }
    }

    /// Notes that the handler has come to a step.
    pub(super) fn meet<'a>(
        self: &'a Arc<Self>,
        id: &'a str,
        name: &Name<'_>,
        op: Op,
    ) -> Result<Turn<'a>, StepError> {
        let here = Place::current();
        let mut state = self.lock();
        let misuse = |message: String| Err(StepError::misuse(id, message));
        if id.trim().is_empty() {
            return misuse(
                "a step's id is blank; give each step of a handler a name of its own".to_owned(),
            );
        }
        if state.is_over {
            return misuse(format!(
                "step `{id}` is used after its handler's call had ended; use a step only in the call of the handler \
                 that was given the `Step`"
            ));
        }
        if here.pass == self.place().pass {
            if let Some(outer) = here.step.and_then(|outer| state.met.get(&outer)) {
                return misuse(format!(
                    "step `{id}` is used inside step `{}`, which could not be remembered then; let one follow the \
                     other",
                    outer.id
                ));
            }
        } else if !self.is_plain {
            return misuse(format!(
                "step `{id}` is used outside of its handler's own future, in a spawned task or in another handler; \
                 in place of `spawn`, join the futures in the handler, with `join!` for example"
            ));
        }
        let ticket = state.meet(name, op);
        Ok(Turn { pass: self, ticket, id })
    }

    /// How often the step has failed, where that is known of each: in process.
    pub(super) fn failures(&self, key: &str) -> Option<u32> {
        match &self.lock().host {
            Host::Local(local) => Some(local.failures(key)),
            #[cfg(feature = "serve")]
            Host::Remote(_) => None,
            #[cfg(feature = "sdk")]
            Host::Carried(_) => None,
        }
    }

    /// Whether it is known that the step has completed, or has failed for good. It is asked of a step that is met once
    /// at most.
    pub(crate) fn remembers(&self, key: &str) -> bool {
        match &mut self.lock().host {
            Host::Local(local) => local.rank(key).is_some(),
            #[cfg(feature = "serve")]
            Host::Remote(remote) => remote.remembers(&hash(key)),
            #[cfg(feature = "sdk")]
            Host::Carried(carried) => carried.remembers(key),
        }
    }

    /// The steps that have completed, as far as it is known of this pass or has come up in it.
    pub(crate) fn completed(&self) -> Vec<CompletedStep> {
        let state = self.lock();
        match &state.host {
            Host::Local(local) => local.completed(),
            #[cfg(feature = "serve")]
            Host::Remote(remote) => remote.completed(state.ids.keys()),
            #[cfg(feature = "sdk")]
            Host::Carried(carried) => carried.completed(),
        }
    }

    /// How often the step has failed that is tried again of those with this prefix, where that is known: in process.
    pub(crate) fn failures_under(&self, prefix: &str) -> Option<u32> {
        match &self.lock().host {
            Host::Local(local) => Some(local.failures_under(prefix)),
            #[cfg(feature = "serve")]
            Host::Remote(_) => None,
            #[cfg(feature = "sdk")]
            Host::Carried(_) => None,
        }
    }

    /// The time of a part of the handler is over, and with it that of a step: if the step is not tried again, the handler
    /// is to be called anew, in process, to see that.
    pub(crate) fn call_anew(&self) {
        let mut state = self.lock();
        state.is_late = matches!(&state.host, Host::Local(local) if !local.is_failing());
    }

    /// Whether the handler is to be called anew.
    pub(super) fn is_late(&self) -> bool {
        self.lock().is_late
    }

    /// Decides what happens next, after the handler was polled and waits.
    pub(super) fn advance(&self) -> Next {
        let mut wakers = Vec::new();
        let next = self.lock().advance(&mut wakers);
        wakers.into_iter().for_each(Waker::wake);
        next
    }

    /// If the step that was asked for has not turned up, or the handler holds it while it waits for a step that is not to
    /// run now, the number of those that have turned up.
    #[cfg(feature = "serve")]
    pub(crate) fn target_is_missing(&self) -> Option<Ticket> {
        let state = self.lock();
        let Host::Remote(remote) = &state.host else { return None };
        if state.running > 0 || !remote.has_target() {
            return None;
        }
        let is_met = state.met.values().any(|met| remote.is_target(met));
        (!is_met || !state.fresh.is_empty()).then_some(state.next)
    }

    /// The step that was asked for did not turn up.
    #[cfg(feature = "serve")]
    pub(crate) fn give_target_up(&self) {
        if let Host::Remote(remote) = &mut self.lock().host {
            remote.give_target_up();
        }
    }

    /// Whether the handler waits for a sleep to end.
    pub(crate) fn is_asleep(&self) -> bool {
        let state = self.lock();
        if state.sleeping == 0 || state.running > 0 {
            return false;
        }
        let now = Instant::now();
        let sleeps = |met: &Met| met.has_started() && met.deadline.is_some_and(|until| until > now);
        state.met.values().any(sleeps)
    }

    /// The call's time is over: the steps that are running have failed. Whether there were any.
    pub(crate) fn time_out(&self) -> bool {
        let mut state = self.lock();
        let running = state.met.iter().filter(|(_, met)| met.has_started() && met.runs());
        let running: Vec<Ticket> = running.map(|(ticket, _)| *ticket).collect();
        let mut lost = Vec::new();
        for &ticket in &running {
            let error = FailureError::own(
                "TimedOut",
                "the handler took longer than its `timeout` while the step ran",
            );
            lost.extend(state.finish(ticket, Err(Fault::retriable(error))));
        }
        drop(state);
        lost.iter().for_each(Lost::log);
        !running.is_empty()
    }

    /// Ends the pass: from now on its steps are of no use.
    pub(crate) fn end(&self) -> Ended {
        let mut state = self.lock();
        state.is_over = true;
        let wakers: Vec<Waker> =
            state.met.values_mut().filter_map(|met| met.waker.take()).collect();
        let ended = match &mut state.host {
            Host::Local(local) => {
                let (memory, has_remembered, failing) = local.take();
                Ended::Local { memory, has_remembered, failing }
            }
            #[cfg(feature = "serve")]
            Host::Remote(remote) => Ended::Remote {
                report: remote.take(),
                not_found: remote.missing(),
                unmet: remote.unmet(),
            },
            #[cfg(feature = "sdk")]
            Host::Carried(carried) => Ended::Carried(carried.take()),
        };
        drop(state);
        // Whoever still waits, in a place where it should not, shall wait no longer.
        wakers.into_iter().for_each(Waker::wake);
        ended
    }
}

/// What is left when a pass is over.
pub(crate) enum Ended {
    Local {
        memory: Box<Memory>,
        /// Whether a step has ended in this pass.
        has_remembered: bool,
        failing: Option<Failing>,
    },
    #[cfg(feature = "serve")]
    Remote {
        report: Option<Report>,
        /// What there is to report if the handler has returned, for it was asked for a step that it has not come to.
        not_found: Option<Report>,
        /// How many remembered steps the handler did not come to.
        unmet: usize,
    },
    #[cfg(feature = "sdk")]
    Carried(Option<Handover>),
}

/// A step that has failed for good in process.
struct Lost {
    step: String,
    error: String,
}

impl Lost {
    fn log(&self) {
        tracing::warn!(
            step = self.step,
            error = self.error,
            "step failed for good, which the handler is told",
        );
    }
}

/// A step's place in its pass.
pub(super) struct Turn<'a> {
    pub(super) pass: &'a Arc<Pass>,
    pub(super) ticket: Ticket,
    pub(super) id: &'a str,
}

impl Turn<'_> {
    /// Waits until the step may go on. In most passes of a handler that never is.
    pub(super) async fn next(&self) -> Result<Go, StepError> {
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut state = self.pass.lock();
            if let Some(go) = state.turn(self.ticket) {
                return Poll::Ready(Ok(go));
            }
            if state.is_over {
                let message = format!(
                    "step `{}` outlives its handler's call, whose answer is known; keep its future in the handler",
                    self.id
                );
                return Poll::Ready(Err(StepError::misuse(self.id, message)));
            }
            if self.pass.is_plain && state.is_fresh(self.ticket) {
                // Nobody else decides.
                state.grant(self.ticket, &mut Vec::new());
                if let Some(go) = state.turn(self.ticket) {
                    return Poll::Ready(Ok(go));
                }
            }
            // What a waker does when it is dropped is not for the lock.
            let _before = state.wait(self.ticket, waker);
            drop(state);
            Poll::Pending
        })
        .await
    }

    /// Notes that the step is awaited while it runs. Whether it goes on.
    pub(super) fn polled(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let (goes_on, _before) = self.pass.lock().polled(self.ticket, waker);
        goes_on
    }

    pub(super) fn finish(&self, result: Result<String, Fault>) {
        let lost = self.pass.lock().finish(self.ticket, result);
        lost.iter().for_each(Lost::log);
    }

    /// The id as a test knows it: one that a repetition has a number in, or that of an undo.
    #[cfg(feature = "testing")]
    pub(super) fn shown(&self) -> String {
        let state = self.pass.lock();
        let shown = |met: &Met| match met.retries {
            Some(_) => met.label.clone(),
            None => met.key.clone(),
        };
        state.met.get(&self.ticket).map(shown).unwrap_or_default()
    }

    /// The place of the step's closure.
    pub(super) fn place(&self) -> Place {
        Place { step: Some(self.ticket), ..self.pass.place() }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let left = self.pass.lock().leave(self.ticket);
        if let Some((met, true)) = left {
            tracing::warn!(
                step = met.label,
                "a step that had started was dropped before it ended, as in a `select!` that another future won: nothing \
                 is remembered of it, and it starts once more if the handler is called once more",
            );
        }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").finish_non_exhaustive()
    }
}
