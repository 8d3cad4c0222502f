//! The Inngest server, as far as one run of one handler meets it: its queue, what it remembers, its clock.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::transcript::TestCall;
use crate::{event::FailureEvent, step::hash};

/// How long the server waits before it tries again, if nobody says.
const RETRY: Duration = Duration::from_secs(30);

/// One run.
pub(super) struct Server {
    max_attempts: u32,
    event: FailureEvent,
    queue: Vec<Item>,
    items: u64,
    /// The items and attempts that were tried again: a call that is made twice is so once.
    retried: HashSet<(u64, u32)>,
    memos: BTreeMap<String, Value>,
    /// The hashed ids of steps in the order in which they completed.
    stack: Vec<String>,
    /// What is on its way.
    pending: HashSet<String>,
    /// Once several steps were found at once, none runs before it was reported.
    is_parallel: bool,
    /// The ids of steps by their hashed ids.
    names: HashMap<String, String>,
    clock: Duration,
    start: SystemTime,
    pub(super) end: Option<Result<Value, Value>>,
    /// What comes of steps that wait, by their hashed ids.
    answers: HashMap<String, (String, Answer)>,
}

/// What comes of a step that waits.
#[derive(Clone)]
pub(super) enum Answer {
    Event(Value),
    Returned(Value),
    Failed(Value),
}

/// Something that is due at some time.
#[derive(Clone)]
pub(super) struct Item {
    /// The same for a call and its retries.
    id: u64,
    due: Duration,
    attempt: u32,
    kind: Kind,
    is_repeated: bool,
}

#[derive(Clone)]
enum Kind {
    /// To find out what comes next.
    Discover,
    /// To run one step.
    Step(String),
    /// A step has ended that does not run at the endpoint.
    Resume(String, Value),
}

impl Server {
    pub(super) fn new(max_attempts: u32, event: FailureEvent) -> Self {
        let first = Item {
            id: 0,
            due: Duration::ZERO,
            attempt: 0,
            kind: Kind::Discover,
            is_repeated: false,
        };
        Self {
            max_attempts,
            event,
            queue: vec![first],
            items: 1,
            retried: HashSet::new(),
            memos: BTreeMap::new(),
            stack: Vec::new(),
            pending: HashSet::new(),
            is_parallel: false,
            names: HashMap::new(),
            clock: Duration::ZERO,
            start: SystemTime::now(),
            end: None,
            answers: HashMap::new(),
        }
    }

    pub(super) fn clock(&self) -> Duration {
        self.clock
    }

    /// The next call, which is one of those that are due first.
    pub(super) fn next(&mut self, choose: impl FnOnce(usize) -> usize) -> Option<Item> {
        let first = self.queue.iter().map(|item| item.due).min()?;
        self.clock = self.clock.max(first);
        let due: Vec<usize> =
            (0..self.queue.len()).filter(|&i| self.queue[i].due <= self.clock).collect();
        let mut item = self.queue.remove(due[choose(due.len())]);
        if let Kind::Resume(hashed, memo) = &item.kind {
            self.remember(hashed.clone(), memo.clone());
            item.kind = Kind::Discover;
        }
        Some(item)
    }

    /// The request that the server makes for it.
    pub(super) fn request(&self, item: &Item, path: &str, function: &str) -> Request<Bytes> {
        let event: Value = serde_json::from_str(self.event.raw().get())
            .expect("an event's text was read as JSON when it came");
        let step = match &item.kind {
            Kind::Step(hashed) => hashed,
            Kind::Discover | Kind::Resume(..) => "step",
        };
        let body = json!({
            "ctx": {
                "attempt": item.attempt,
                "disable_immediate_execution": self.is_parallel,
                "env": "",
                "fn_id": "00000000-0000-5000-8000-000000000000",
                "generation_id": 1,
                "max_attempts": self.max_attempts,
                "run_id": "01TEST00000000000000000RUN",
                "stack": { "current": self.stack.len(), "stack": self.stack },
                "step_id": "step",
                "use_api": false,
            },
            "defers": {},
            "event": event,
            "events": [event],
            "steps": self.memos,
            "use_api": false,
            "version": 1,
        });
        let query: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("fnId", function)
            .append_pair("stepId", step)
            .finish();
        Request::post(format!("{path}?{query}"))
            .header("content-type", "application/json")
            .header("user-agent", "Inngest")
            .body(body.to_string().into())
            .unwrap_or_else(|error| panic!("`{path}` is no path: {error}"))
    }

    /// What the item is to the transcript.
    pub(super) fn call(&self, item: &Item) -> TestCall {
        let step = match &item.kind {
            Kind::Step(hashed) => Some(self.name(hashed)),
            Kind::Discover | Kind::Resume(..) => None,
        };
        TestCall::new(step, item.attempt, self.clock)
    }

    fn name(&self, hashed: &str) -> String {
        self.names.get(hashed).cloned().unwrap_or_else(|| hashed.to_owned())
    }

    /// The same call once more, but not a third time.
    pub(super) fn repeat(&mut self, item: Item) {
        if !item.is_repeated {
            self.queue.push(Item { due: self.clock, is_repeated: true, ..item });
        }
    }

    /// What comes of a step that waits: of steps of one id, the second is `id:1`.
    pub(super) fn answer(&mut self, step: String, answer: Answer) {
        self.answers.insert(hash(&step), (step, answer));
    }

    /// What comes of a step, which an undo's is known by its name for.
    fn take_answer(&mut self, id: &str, operation: &Value) -> Option<(String, Answer)> {
        let name = operation["displayName"].as_str().unwrap_or_default();
        self.answers.remove(id).or_else(|| self.answers.remove(&hash(name)))
    }

    /// The steps for which there were answers that nobody has waited for.
    pub(super) fn unasked(&self) -> impl Iterator<Item = &str> {
        self.answers.values().map(|(step, _)| step.as_str())
    }

    /// Whether the call is the last attempt.
    pub(super) fn is_last(&self, item: &Item) -> bool {
        item.attempt + 1 >= self.max_attempts
    }

    /// The call got no answer.
    pub(super) fn lose(&mut self, item: Item) {
        self.retry(item, None);
    }

    fn retry(&mut self, item: Item, delay: Option<Duration>) {
        if self.retried.insert((item.id, item.attempt)) {
            let due = self.clock + delay.unwrap_or(RETRY);
            self.queue.push(Item { due, attempt: item.attempt + 1, ..item });
        }
    }

    fn push(&mut self, due: Duration, kind: Kind) {
        self.queue.push(Item { id: self.items, due, attempt: 0, kind, is_repeated: false });
        self.items += 1;
    }

    /// Takes an answer, and notes it in the transcript.
    pub(super) fn take(&mut self, item: Item, response: &Response<Bytes>, call: &mut TestCall) {
        call.status = response.status().as_u16();
        let body: Value = match serde_json::from_slice(response.body()) {
            Ok(body) => body,
            Err(error) => panic!(
                "the endpoint's answer can't be read, which the server could not either: {error}"
            ),
        };
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let operations = body.as_array().cloned().unwrap_or_default();
            self.is_parallel |= operations.len() > 1;
            for operation in operations {
                call.operations.push(self.note(&operation));
                self.operate(&item, &operation, response.headers());
            }
            return;
        }
        call.operations.push(body.to_string());
        if response.status() == StatusCode::OK {
            self.end.get_or_insert(Ok(body));
        } else if is_final(response.headers()) || self.is_last(&item) {
            self.end.get_or_insert(Err(body));
        } else {
            self.retry(item, delay(response.headers()));
        }
    }

    fn operate(&mut self, item: &Item, operation: &Value, headers: &HeaderMap) {
        let text = |field: &str| operation[field].as_str().unwrap_or_default().to_owned();
        let id = text("id");
        let op = text("op");
        if op == "StepNotFound" {
            match is_final(headers) || self.is_last(item) {
                true => {
                    let message = format!("step `{}` was not found", self.name(&id));
                    self.end.get_or_insert(Err(json!({ "name": "Error", "message": message })));
                }
                false => self.retry(item.clone(), None),
            }
            return;
        }
        let name = self.learn(&id, &text("displayName"));
        match op.as_str() {
            "StepRun" => self.complete(id, json!({ "data": operation["data"] })),
            "StepFailed" => self.complete(id, json!({ "error": operation["error"] })),
            "StepError" if is_final(headers) || self.is_last(item) => {
                self.complete(id, json!({ "error": operation["error"] }));
            }
            "StepError" => self.retry(item.clone(), delay(headers)),
            // What was found before is on its way.
            _ if self.memos.contains_key(&id) || !self.pending.insert(id.clone()) => {}
            "StepPlanned" => self.push(self.clock, Kind::Step(id)),
            "Sleep" => {
                let due = self.due(&operation["opts"]["duration"]);
                self.resume(due, id, Value::Null);
            }
            "WaitForEvent" => match self.take_answer(&id, operation) {
                Some((_, Answer::Event(event))) => {
                    let (waits, comes) = (&operation["opts"]["event"], &event["name"]);
                    assert!(
                        waits == comes,
                        "step `{name}` waits for event {waits}; give `.event_arrives({name:?}, ..)` such a one, not {comes}"
                    );
                    self.resume(self.clock, id, event);
                }
                Some(_) => panic!(
                    "step `{name}` waits for an event; say which one comes with `.event_arrives({name:?}, ..)`"
                ),
                None => {
                    let due = self.due(&operation["opts"]["timeout"]);
                    self.resume(due, id, Value::Null);
                }
            },
            "InvokeFunction" => {
                let memo = match self.take_answer(&id, operation) {
                    Some((_, Answer::Returned(data))) => json!({ "data": data }),
                    Some((_, Answer::Failed(error))) => json!({ "error": error }),
                    Some((_, Answer::Event(_))) | None => panic!(
                        "step `{name}` invokes function `{}`; say what it returns with \
                         `.invoke_returns({name:?}, ..)` or `.invoke_fails({name:?}, ..)`",
                        operation["opts"]["function_id"].as_str().unwrap_or_default(),
                    ),
                };
                self.resume(self.clock, id, memo);
            }
            unknown => panic!("the endpoint answered with the unknown operation `{unknown}`"),
        }
    }

    fn resume(&mut self, due: Duration, id: String, memo: Value) {
        self.push(due, Kind::Resume(id, memo));
    }

    fn complete(&mut self, id: String, memo: Value) {
        self.remember(id, memo);
        self.push(self.clock, Kind::Discover);
    }

    fn remember(&mut self, id: String, memo: Value) {
        self.pending.remove(&id);
        if !self.memos.contains_key(&id) {
            self.stack.push(id.clone());
            self.memos.insert(id, memo);
        }
    }

    /// The step's id with the number of its repetition, which the wire has only hashed.
    fn learn(&mut self, hashed: &str, id: &str) -> String {
        const MAX_STEPS: usize = 1000;
        let numbered = || {
            let mut ids = (1..MAX_STEPS).map(|number| format!("{id}:{number}"));
            match hash(id) == hashed {
                true => id.to_owned(),
                false => {
                    ids.find(|numbered| hash(numbered) == hashed).unwrap_or_else(|| id.to_owned())
                }
            }
        };
        self.names.entry(hashed.to_owned()).or_insert_with(numbered).clone()
    }

    /// An operation in one line.
    fn note(&mut self, operation: &Value) -> String {
        let text = |field: &str| operation[field].as_str().unwrap_or_default();
        let name = match text("displayName") {
            "" => self.name(text("id")),
            id => self.learn(text("id"), id),
        };
        let mut note = format!("{} {name}", text("op"));
        for value in [operation.get("data"), operation.get("opts")].into_iter().flatten() {
            note += &format!(" {value}");
        }
        if let Some(message) = operation["error"]["message"].as_str() {
            note += &format!(" {message:?}");
        }
        note
    }

    /// What a duration or a time on the wire is on this clock.
    fn due(&self, text: &Value) -> Duration {
        let text = text.as_str().unwrap_or_default();
        if let Ok(duration) = humantime::parse_duration(text) {
            return self.clock + duration;
        }
        match humantime::parse_rfc3339(text) {
            Ok(time) => self.clock.max(time.duration_since(self.start).unwrap_or_default()),
            Err(_) => panic!(
                "the endpoint answered with `{text}`, which is neither a duration nor a time"
            ),
        }
    }
}

fn is_final(headers: &HeaderMap) -> bool {
    headers.get("x-inngest-no-retry").is_some_and(|value| value == "true")
}

fn delay(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
