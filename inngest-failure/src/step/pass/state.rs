//! What is known in a pass, and what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    task::Waker,
};

use tokio::time::Instant;

use super::{Fault, Lost, Name, Outcome, Ticket};
#[cfg(feature = "sdk")]
use crate::step::carried::{Came, Carried};
#[cfg(feature = "serve")]
use crate::step::{
    engine::{Choice, Remote},
    operation::hash,
};
use crate::step::{local::Local, op::Op};

pub(super) struct State {
    pub(super) host: Host,
    pub(super) is_over: bool,
    /// Whether the handler is to be called anew, for the time of one of its parts was over.
    pub(super) is_late: bool,
    /// The ids that were used, each with the number that its next repetition gets.
    pub(super) ids: HashMap<String, u32>,
    pub(super) met: BTreeMap<Ticket, Met>,
    pub(super) next: Ticket,
    /// Those with a remembered outcome, by the rank in which they had completed.
    remembered: BTreeSet<(usize, Ticket)>,
    /// Those that are new and are being awaited. Each is in `met`, which it leaves together with this.
    pub(super) fresh: BTreeSet<Ticket>,
    /// Those that may go ahead since the handler was last polled.
    granted: Vec<Ticket>,
    /// How many closures are running.
    pub(super) running: usize,
    /// How many sleep in process.
    pub(super) sleeping: usize,
    /// How often the running ones were asked whether anybody still awaits them.
    asked: u8,
}

/// How often a step that is running is woken before it counts as one that nobody awaits. A `FuturesUnordered` that has
/// much to do leaves some of its futures for the next time.
const ASK: u8 = 8;

/// Who decides what happens to a new step.
pub(super) enum Host {
    Local(Local),
    #[cfg(feature = "serve")]
    Remote(Remote),
    #[cfg(feature = "sdk")]
    Carried(Carried),
}

impl Host {
    /// Whether no step runs beside another, also not one that was left for another.
    pub(super) fn runs_alone(&self) -> bool {
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
pub(in crate::step) struct Met {
    /// The id, which a repetition has a number in.
    pub(in crate::step) key: String,
    /// The id as a person reads it.
    pub(in crate::step) label: String,
    /// How often it is tried again, if that is less often than the handler.
    pub(in crate::step) retries: Option<u32>,
    /// The same as the server knows it.
    #[cfg(feature = "serve")]
    pub(in crate::step) hashed: String,
    pub(in crate::step) id: String,
    /// The number of this use of the id, from 1.
    #[cfg(feature = "sdk")]
    pub(in crate::step) number: u32,
    pub(in crate::step) op: Op,
    rank: Option<usize>,
    phase: Phase,
    /// Whether it was polled since it was asked.
    is_polled: bool,
    /// Until when it sleeps, in process.
    pub(super) deadline: Option<Instant>,
    pub(super) waker: Option<Waker>,
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
pub(in crate::step) enum Go {
    Run,
    Sleep(Instant),
    End(Outcome),
}

/// What whoever polls the handler is to do.
#[derive(Debug, PartialEq)]
pub(in crate::step) enum Next {
    /// Poll it again: a step may go on.
    Poll,
    /// Poll it when it wakes.
    Wait,
    /// Let go of it: the pass has its end.
    Stop,
}

impl Met {
    /// Whether the step runs here.
    pub(in crate::step) fn runs(&self) -> bool {
        matches!(self.op, Op::Run | Op::SendEvent)
    }

    pub(super) fn has_started(&self) -> bool {
        matches!(self.phase, Phase::Started | Phase::Stalled)
    }
}

impl State {
    pub(super) fn new(host: Host) -> Self {
        Self {
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
        }
    }

    pub(super) fn meet(&mut self, name: &Name<'_>, op: Op) -> Ticket {
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

    pub(super) fn advance(&mut self, wakers: &mut Vec<Waker>) -> Next {
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

    pub(super) fn is_fresh(&self, ticket: Ticket) -> bool {
        self.fresh.contains(&ticket)
    }

    /// Lets a step go ahead.
    pub(super) fn grant(&mut self, ticket: Ticket, wakers: &mut Vec<Waker>) {
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
    pub(super) fn turn(&mut self, ticket: Ticket) -> Option<Go> {
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
    pub(super) fn polled(&mut self, ticket: Ticket, waker: Waker) -> (bool, Option<Waker>) {
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
    pub(super) fn wait(&mut self, ticket: Ticket, waker: Waker) -> Option<Waker> {
        self.met.get_mut(&ticket)?.waker.replace(waker)
    }

    /// A step that had gone ahead is done.
    pub(super) fn finish(&mut self, ticket: Ticket, result: Result<String, Fault>) -> Option<Lost> {
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
    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<(Met, bool)> {
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
