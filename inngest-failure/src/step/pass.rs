//! One pass of a handler: what its steps, and whoever polls it, tell each other.
//!
//! A step is *met* when it is first polled. What is remembered of it is given to it, one step after the other in the order
//! in which they had completed; what is new waits until nothing remembered is left, and then the host decides what
//! happens: in process it runs, at an endpoint it runs or is reported.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

#[cfg(feature = "sdk")]
use super::carried::{Came, Carried, Handover};
#[cfg(feature = "serve")]
use super::{
    engine::{Choice, Remote},
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

struct State {
    host: Host,
    is_over: bool,
    /// Whether the handler is to be called anew, for the time of one of its parts was over.
    is_late: bool,
    /// The ids that were used, each with the number that its next repetition gets.
    ids: HashMap<String, u32>,
    met: BTreeMap<Ticket, Met>,
    next: Ticket,
    /// Those with a remembered outcome, by the rank in which they had completed.
    remembered: BTreeSet<(usize, Ticket)>,
    /// Those that are new and are being awaited. Each is in `met`, which it leaves together with this.
    fresh: BTreeSet<Ticket>,
    /// Those that may go ahead since the handler was last polled.
    granted: Vec<Ticket>,
    /// How many closures are running.
    running: usize,
    /// How many sleep in process.
    sleeping: usize,
    /// How often the running ones were asked whether anybody still awaits them.
    asked: u8,
}

/// How often a step that is running is woken before it counts as one that nobody awaits. A `FuturesUnordered` that has
/// much to do leaves some of its futures for the next time.
const ASK: u8 = 8;

/// Who decides what happens to a new step.
enum Host {
    Local(Local),
    #[cfg(feature = "serve")]
    Remote(Remote),
    #[cfg(feature = "sdk")]
    Carried(Carried),
}

impl Host {
    /// Whether no step runs beside another, also not one that was left for another.
    fn runs_alone(&self) -> bool {
        match self {
            Self::Local(_) => false,
            #[cfg(feature = "serve")]
            Self::Remote(_) => false,
            #[cfg(feature = "sdk")]
            Self::Carried(_) => true,
        }
    }
}

/// A step that was met and has not ended.
pub(super) struct Met {
    /// The id, which a repetition has a number in.
    pub(super) key: String,
    /// The id as a person reads it.
    pub(super) label: String,
    /// How often it is tried again, if that is less often than the handler.
    pub(super) retries: Option<u32>,
    /// The same as the server knows it.
    #[cfg(feature = "serve")]
    pub(super) hashed: String,
    pub(super) id: String,
    /// The number of this use of the id, from 1.
    #[cfg(feature = "sdk")]
    pub(super) number: u32,
    pub(super) op: Op,
    rank: Option<usize>,
    phase: Phase,
    /// Whether it was polled since it was asked.
    is_polled: bool,
    /// Until when it sleeps, in process.
    deadline: Option<Instant>,
    waker: Option<Waker>,
}

enum Phase {
    /// Waits for its turn.
    Waiting,
    /// May go ahead.
    Granted,
    /// Could have gone ahead, but is held by a handler that awaits something else: waits until it is polled.
    Held,
    /// Has gone ahead.
    Started,
    /// Has gone ahead, but is held by a handler that awaits something else.
    Stalled,
    /// Has nothing more to wait for in this pass.
    Parked,
    /// Has a remembered outcome, whose turn it is.
    Remembered,
    Ended(Outcome),
}

/// What a step is to do.
pub(super) enum Go {
    Run,
    Sleep(Instant),
    End(Outcome),
}

/// What whoever polls the handler is to do.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Poll it again: a step may go on.
    Poll,
    /// Poll it when it wakes.
    Wait,
    /// Let go of it: the pass has its end.
    Stop,
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

impl Met {
    /// Whether the step runs here.
    pub(super) fn runs(&self) -> bool {
        matches!(self.op, Op::Run | Op::SendEvent)
    }

    fn has_started(&self) -> bool {
        matches!(self.phase, Phase::Started | Phase::Stalled)
    }
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
        let state = State {
            host,
            is_over: false,
            is_late: false,
            ids: HashMap::new(),
            met: BTreeMap::new(),
            next: 0,
            remembered: BTreeSet::new(),
            fresh: BTreeSet::new(),
            granted: Vec::new(),
            running: 0,
            sleeping: 0,
            asked: 0,
        };
        Self {
            state: Mutex::new(state),
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

impl State {
    fn meet(&mut self, name: &Name<'_>, op: Op) -> Ticket {
        let id = name.key;
        let key = self.key(id);
        #[cfg(feature = "serve")]
        let mut hashed = String::new();
        #[cfg(feature = "sdk")]
        let mut number = 0;
        let rank = match &mut self.host {
            Host::Local(local) => local.rank(&key),
            #[cfg(feature = "serve")]
            Host::Remote(remote) => {
                hashed = hash(&key);
                remote.rank(&hashed)
            }
            #[cfg(feature = "sdk")]
            Host::Carried(carried) => {
                number = carried.meet(id);
                None
            }
        };
        let ticket = self.next;
        self.next += 1;
        match rank {
            Some(rank) => self.remembered.insert((rank, ticket)),
            None => self.fresh.insert(ticket),
        };
        let met = Met {
            key,
            label: name.label.to_owned(),
            retries: name.retries,
            #[cfg(feature = "serve")]
            hashed,
            id: id.to_owned(),
            #[cfg(feature = "sdk")]
            number,
            op,
            rank,
            phase: Phase::Waiting,
            is_polled: false,
            deadline: None,
            waker: None,
        };
        self.met.insert(ticket, met);
        self.asked = 0;
        ticket
    }

    /// The id, with a number if it was used before, as Inngest's SDKs count: `id`, `id:1`, `id:2`.
    fn key(&mut self, id: &str) -> String {
        let Some(next) = self.ids.get_mut(id) else {
            self.ids.insert(id.to_owned(), 1);
            return id.to_owned();
        };
        let mut number = *next;
        let key = loop {
            let key = format!("{id}:{number}");
            number += 1;
            // A step may have been called so.
            if !self.ids.contains_key(&key) {
                break key;
            }
        };
        self.ids.insert(id.to_owned(), number);
        self.ids.insert(key.clone(), 1);
        key
    }

    fn advance(&mut self, wakers: &mut Vec<Waker>) -> Next {
        if self.is_late {
            return Next::Stop;
        }
        self.hold_back();
        self.resume(wakers);
        let (is_over, waits_for_running) = match &self.host {
            Host::Local(local) => (false, local.is_failing()),
            #[cfg(feature = "serve")]
            Host::Remote(remote) => {
                (remote.has_report(), !(self.fresh.is_empty() && self.remembered.is_empty()))
            }
            #[cfg(feature = "sdk")]
            Host::Carried(carried) => (carried.has_handover(), !self.fresh.is_empty()),
        };
        if is_over {
            return Next::Stop;
        }
        if self.running > 0 && waits_for_running {
            if self.asked < ASK {
                self.ask(wakers);
                return Next::Poll;
            }
            self.stall();
            if self.running > 0 {
                return Next::Wait;
            }
        }
        match &mut self.host {
            Host::Local(local) if local.is_failing() => return Next::Stop,
            Host::Local(_) => {}
            // The step that is asked for goes first: what is remembered may lead the handler away from it.
            #[cfg(feature = "serve")]
            Host::Remote(remote) => {
                let met = |ticket: &Ticket| (*ticket, &self.met[ticket]);
                match remote.target(self.fresh.iter().map(met)) {
                    Choice::Run(ticket) => {
                        self.grant(ticket, wakers);
                        return Next::Poll;
                    }
                    Choice::Report => return Next::Stop,
                    Choice::Wait => {}
                }
            }
            #[cfg(feature = "sdk")]
            Host::Carried(_) => {}
        }
        if let Some((_, ticket)) = self.remembered.pop_first() {
            self.set(ticket, Phase::Remembered, wakers);
            return Next::Poll;
        }
        if self.fresh.is_empty() {
            return Next::Wait;
        }
        match &mut self.host {
            Host::Local(_) => {
                for ticket in mem::take(&mut self.fresh) {
                    self.grant(ticket, wakers);
                }
                Next::Poll
            }
            #[cfg(feature = "serve")]
            Host::Remote(remote) => {
                let fresh = self.fresh.iter().map(|ticket| (*ticket, &self.met[ticket]));
                match remote.choose(fresh) {
                    Choice::Run(ticket) => {
                        self.grant(ticket, wakers);
                        Next::Poll
                    }
                    Choice::Report => Next::Stop,
                    Choice::Wait => Next::Wait,
                }
            }
            #[cfg(feature = "sdk")]
            Host::Carried(carried) => {
                let Some(&first) = self.fresh.first() else { return Next::Wait };
                match carried.ask(first, &self.met[&first]) {
                    Came::Back(outcome) => {
                        self.fresh.remove(&first);
                        self.set(first, Phase::Ended(outcome), wakers);
                        Next::Poll
                    }
                    Came::New => {
                        self.grant(first, wakers);
                        Next::Poll
                    }
                    Came::Reported => Next::Stop,
                }
            }
        }
    }

    /// Takes back what was granted to steps that the handler holds without awaiting them.
    fn hold_back(&mut self) {
        for ticket in mem::take(&mut self.granted) {
            let Some(met) = self.met.get_mut(&ticket) else { continue };
            if matches!(met.phase, Phase::Granted) {
                met.phase = Phase::Held;
                match met.op {
                    Op::Sleep { .. } => self.sleeping -= 1,
                    _ => self.running -= 1,
                }
            }
        }
    }

    /// Wakes the steps that are running, to see which of them the handler still awaits.
    fn ask(&mut self, wakers: &mut Vec<Waker>) {
        for met in self.met.values_mut().filter(|met| matches!(met.phase, Phase::Started)) {
            if self.asked == 0 {
                met.is_polled = false;
            }
            wakers.extend(met.waker.clone());
        }
        self.asked += 1;
    }

    /// Counts those no more as running that were asked in vain.
    fn stall(&mut self) {
        for met in self.met.values_mut() {
            if matches!(met.phase, Phase::Started) && met.runs() && !met.is_polled {
                met.phase = Phase::Stalled;
                self.running -= 1;
            }
        }
    }

    fn is_fresh(&self, ticket: Ticket) -> bool {
        self.fresh.contains(&ticket)
    }

    /// Lets a step go ahead.
    fn grant(&mut self, ticket: Ticket, wakers: &mut Vec<Waker>) {
        self.fresh.remove(&ticket);
        self.granted.push(ticket);
        let met = &self.met[&ticket];
        let phase = match &met.op {
            Op::Run | Op::SendEvent => {
                self.running += 1;
                Phase::Granted
            }
            Op::Sleep { .. } => {
                self.sleeping += 1;
                Phase::Granted
            }
            Op::WaitForEvent { .. } | Op::Invoke { .. } => {
                Phase::Ended(Err(Box::new(Local::refuse(met))))
            }
        };
        self.set(ticket, phase, wakers);
    }

    fn set(&mut self, ticket: Ticket, phase: Phase, wakers: &mut Vec<Waker>) {
        if let Some(met) = self.met.get_mut(&ticket) {
            met.phase = phase;
            wakers.extend(met.waker.take());
        }
    }

    /// What the step is to do, if it is its turn.
    fn turn(&mut self, ticket: Ticket) -> Option<Go> {
        let met = self.met.get_mut(&ticket)?;
        match mem::replace(&mut met.phase, Phase::Parked) {
            Phase::Granted => {
                met.phase = Phase::Started;
                match (&met.op, &mut self.host) {
                    (Op::Sleep { until }, Host::Local(local)) => {
                        let deadline = local.deadline(&met.key, *until);
                        met.deadline = Some(deadline);
                        Some(Go::Sleep(deadline))
                    }
                    _ => Some(Go::Run),
                }
            }
            Phase::Remembered => Some(Go::End(match &self.host {
                Host::Local(local) => local.outcome(&met.key),
                #[cfg(feature = "serve")]
                Host::Remote(remote) => remote.outcome(&met.hashed),
                // Its steps have no rank.
                #[cfg(feature = "sdk")]
                Host::Carried(_) => return None,
            })),
            Phase::Ended(outcome) => Some(Go::End(outcome)),
            Phase::Held => {
                met.phase = Phase::Waiting;
                self.fresh.insert(ticket);
                None
            }
            waiting @ (Phase::Waiting | Phase::Started | Phase::Stalled | Phase::Parked) => {
                met.phase = waiting;
                None
            }
        }
    }

    /// The handler awaits a step that is running: whether that goes on, and who was to be woken before.
    fn polled(&mut self, ticket: Ticket, waker: Waker) -> (bool, Option<Waker>) {
        let is_alone = self.host.runs_alone();
        let Some(met) = self.met.get_mut(&ticket) else { return (true, None) };
        met.is_polled = true;
        let before = met.waker.replace(waker);
        if matches!(met.phase, Phase::Stalled) {
            if is_alone && self.running > 0 {
                return (false, before);
            }
            met.phase = Phase::Started;
            self.running += 1;
        }
        (true, before)
    }

    /// Lets a step go on that had to wait for another one, which is gone.
    fn resume(&mut self, wakers: &mut Vec<Waker>) {
        if self.running > 0 || !self.host.runs_alone() {
            return;
        }
        let waits = |met: &&mut Met| matches!(met.phase, Phase::Stalled) && met.is_polled;
        wakers.extend(self.met.values_mut().find(waits).and_then(|met| met.waker.take()));
    }

    /// Whom to wake when it is the step's turn; who was to be woken before is handed back.
    fn wait(&mut self, ticket: Ticket, waker: Waker) -> Option<Waker> {
        self.met.get_mut(&ticket)?.waker.replace(waker)
    }

    /// A step that had gone ahead is done.
    fn finish(&mut self, ticket: Ticket, result: Result<String, Fault>) -> Option<Lost> {
        let met = self.met.get_mut(&ticket)?;
        match (&met.phase, &met.op) {
            (Phase::Started, Op::Sleep { .. }) => self.sleeping -= 1,
            (Phase::Started, _) => self.running -= 1,
            // One whose time was over has failed already.
            _ => return None,
        }
        self.asked = 0;
        let outcome = match &mut self.host {
            Host::Local(local) => local.finish(met, result),
            #[cfg(feature = "serve")]
            Host::Remote(remote) => {
                remote.finish(met, result);
                None
            }
            #[cfg(feature = "sdk")]
            Host::Carried(carried) => {
                carried.finish(ticket, met, result);
                None
            }
        };
        let lost = match &outcome {
            Some(Err(error)) => {
                Some(Lost { step: met.label.clone(), error: error.message.clone() })
            }
            _ => None,
        };
        met.phase = outcome.map_or(Phase::Parked, Phase::Ended);
        lost
    }

    /// The handler has let go of a step. Whether it had started, and nothing is remembered of it.
    fn leave(&mut self, ticket: Ticket) -> Option<(Met, bool)> {
        let met = self.met.remove(&ticket)?;
        self.fresh.remove(&ticket);
        if let Some(rank) = met.rank {
            self.remembered.remove(&(rank, ticket));
        }
        match (&met.phase, &met.op) {
            (Phase::Granted | Phase::Started, Op::Sleep { .. }) => self.sleeping -= 1,
            (Phase::Granted | Phase::Started, _) => self.running -= 1,
            _ => {}
        }
        self.asked = 0;
        match &mut self.host {
            Host::Local(_) => {}
            #[cfg(feature = "serve")]
            Host::Remote(remote) => remote.lose(&met),
            #[cfg(feature = "sdk")]
            Host::Carried(carried) => carried.lose(ticket),
        }
        let is_lost = !self.is_over && met.has_started() && met.runs();
        Some((met, is_lost))
    }
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
