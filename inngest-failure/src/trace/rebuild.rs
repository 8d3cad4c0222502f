//! The failure event that Inngest had sent of a run, from the run and its trace.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::read;
use crate::{
    api::runs::Run,
    dispatcher::shown,
    error::ParseError,
    event::{FailureEvent, FailureKind},
};

/// The failure event of this run, whose trace is the API's answer to `GET /runs/{run_id}/trace?includeOutput=true`.
///
/// It is what Inngest had sent, but for what neither of them holds:
///
/// - `ts`: Inngest has the time at which it wrote the event, here it is that at which the run ended, up to some
///   milliseconds earlier.
/// - `data.error.error`, the server's own summary of the error, which says nothing of the cause. It is left out, unless the
///   error had one itself, as those have that stand for a proxy's answer.
/// - `data.error.message` of an answer that is a bare text and that the server did not take for the message: here it is that
///   text. [`FailureEvent::error`] sees the same in both.
/// - `meta`, if the server adds it.
///
/// # Errors
///
/// [`RebuildError`] if the run has no such event, or the trace does not hold what is in it.
pub(crate) fn failure_event(run: &Run, trace: &[u8]) -> Result<FailureEvent, RebuildError> {
    rebuild(run, trace).map_err(|fault| RebuildError { run_id: shown(&run.id).to_owned(), fault })
}

fn rebuild(run: &Run, trace: &[u8]) -> Result<FailureEvent, Fault> {
    let kind = run.kind().ok_or(Fault::NoFailure)?;
    let Trace { data: TraceData { run_id, root_span: root } } = read_trace(trace)?;
    if run_id != run.id {
        return Err(Fault::OtherRun);
    }
    let events = root.input.and_then(|input| field(input, "data")).ok_or(Fault::NoEvents)?;
    let list: Vec<Fields<'_>> = serde_json::from_str(events.get()).map_err(|_| Fault::NoEvents)?;
    if list.is_empty() {
        return Err(Fault::NoEvents);
    }
    let (event, correlation_id) = reported(list).ok_or(Fault::NeverSent)?;
    let (status, result) = match kind {
        FailureKind::Failed => ("Failed", root.output.map(unwrapped)),
        // What a cancelled run had returned is nothing.
        FailureKind::Cancelled => ("Cancelled", None),
    };
    let ended_at = run.ended_at.or_else(|| read::time(root.ended_at.as_deref()));
    let wire = Event {
        data: Data {
            inngest: Status { status },
            correlation_id,
            error: (kind == FailureKind::Failed).then(|| WireError::of(result)),
            event,
            events,
            function_id: run.composite_id(),
            result,
            run_id: &run.id,
        },
        // So that a dispatch of both is one: current servers do the same.
        id: &run.id,
        name: kind.event_name(),
        ts: ended_at.map(millis),
        user: Empty {},
    };
    let json = serde_json::to_vec(&wire).expect("what was read as JSON can be written as it");
    FailureEvent::from_slice(&json).map_err(Fault::Parse)
}

fn read_trace(json: &[u8]) -> Result<Trace<'_>, Fault> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let trace = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| Fault::Parse(ParseError::trace(&error)))?;
    deserializer.end().map_err(|error| Fault::Parse(ParseError::not_json(&error)))?;
    Ok(trace)
}

/// Which of the events that had started the run its failure event is about, as it stands there: the first, or one that
/// invoked the run. None if they all are about the end of another run, of which Inngest sends no failure event: so that a
/// failure handler that fails does not call itself.
fn reported(events: Vec<Fields<'_>>) -> Option<(Fields<'_>, Option<String>)> {
    const ENDS: [&str; 2] = ["inngest/function.failed", "inngest/function.finished"];
    for (index, mut event) in events.into_iter().enumerate() {
        let name = event.get("name").and_then(|name| text(name));
        if name.is_some_and(|name| ENDS.contains(&name.as_str())) {
            continue;
        }
        let invoke = event.get("data").and_then(|data| field(data, "_inngest"));
        let correlation_id = invoke.and_then(|invoke| field(invoke, "correlation_id"));
        let correlation_id = correlation_id.and_then(text);
        if index > 0 && correlation_id.is_none() {
            continue;
        }
        // Alone it has what the list leaves out.
        for name in ["data", "user"] {
            let value = event.entry(name.to_owned()).or_insert(RawValue::NULL);
            if value.get() == "null" {
                *value = empty();
            }
        }
        return Some((event, correlation_id));
    }
    None
}

/// The run's output as its SDK had answered it: the API wraps what is no object, as `{"data": "a text"}`. An error is no
/// object with that key alone.
fn unwrapped(output: &RawValue) -> &RawValue {
    match serde_json::from_str::<Fields<'_>>(output.get()) {
        Ok(fields) if fields.len() == 1 => fields.get("data").copied().unwrap_or(output),
        _ => output,
    }
}

impl<'a> WireError<'a> {
    /// What the server makes of the SDK's answer.
    fn of(result: Option<&'a RawValue>) -> Self {
        let fields: Option<Fields<'a>> =
            result.and_then(|result| serde_json::from_str(result.get()).ok());
        let Some(fields) = fields else {
            let message = result.filter(|result| result.get() != "null").map(as_text);
            let message = message.filter(|text| !text.is_empty());
            return Self { name: "Error".to_owned(), message, ..Self::default() };
        };
        let field = |name| fields.get(name).copied().filter(|value| value.get() != "null");
        // One that is empty tells nothing, and counts as none.
        let string = |name| field(name).map(as_text).filter(|text| !text.is_empty());
        let message = match fields.contains_key("message") {
            true => string("message"),
            // What a person needs stands deeper down, or it is all that there is.
            false => result.map(as_text),
        };
        Self {
            cause: field("cause"),
            error: string("error"),
            message,
            name: string("name").unwrap_or_else(|| "Error".to_owned()),
            stack: string("stack"),
        }
    }
}

/// A JSON string's content; of any other JSON, its text.
fn as_text(json: &RawValue) -> String {
    text(json).unwrap_or_else(|| json.get().to_owned())
}

fn text(json: &RawValue) -> Option<String> {
    serde_json::from_str(json.get()).ok()
}

fn field<'a>(json: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    serde_json::from_str::<Fields<'a>>(json.get()).ok()?.get(name).copied()
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A JSON object, whose values stay as they are.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Deserialize)]
struct Trace<'a> {
    #[serde(borrow)]
    data: TraceData<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TraceData<'a> {
    run_id: String,
    #[serde(borrow)]
    root_span: Root<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Root<'a> {
    #[serde(default)]
    ended_at: Option<String>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Event<'a> {
    data: Data<'a>,
    id: &'a str,
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<u64>,
    user: Empty,
}

#[derive(Serialize)]
struct Data<'a> {
    #[serde(rename = "_inngest")]
    inngest: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<WireError<'a>>,
    event: Fields<'a>,
    events: &'a RawValue,
    function_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    run_id: &'a str,
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
}

#[derive(Default, Serialize)]
struct WireError<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<String>,
}

#[derive(Serialize)]
struct Empty {}

/// `{}`.
fn empty<'a>() -> &'a RawValue {
    serde_json::from_str("{}").expect("it is JSON")
}

/// Why there is no failure event of a run.
#[derive(Debug)]
pub(crate) struct RebuildError {
    run_id: String,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    /// Inngest sends none of such a run.
    NeverSent,
    NoFailure,
    OtherRun,
    NoEvents,
    /// The trace is none, or the failure event would be too large.
    Parse(ParseError),
}

impl RebuildError {
    /// Whether there never was one: the end of another run had started this one, as it starts a failure handler.
    pub(crate) fn is_never_sent(&self) -> bool {
        matches!(self.fault, Fault::NeverSent)
    }
}

impl fmt::Display for RebuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no failure event of run `{}`: ", self.run_id)?;
        f.write_str(match &self.fault {
            Fault::NeverSent => {
                "the end of another run had started it, and of such a run Inngest sends none; pass it over"
            }
            Fault::NoFailure => "it has neither failed nor been cancelled; pass it over",
            Fault::OtherRun => "the trace is that of another run; see that nothing stands between here and the API",
            Fault::NoEvents => {
                "the trace does not hold the events that had started it; take them from the dashboard"
            }
            Fault::Parse(error) => return write!(f, "{error}"),
        })
    }
}

impl Error for RebuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.fault {
            // Its message is in this one.
            Fault::Parse(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use serde_json::{Value, json};

    use super::*;

    /// The recordings of a folder, by name.
    fn recordings(folder: &str) -> Vec<(String, Value)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(folder);
        let mut files: Vec<(String, Value)> = fs::read_dir(folder)
            .unwrap()
            .map(|file| {
                let path = file.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
            })
            .collect();
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        files
    }

    /// The run as the list would have had it, in the shape that the API documents.
    fn run_of(failure: &Value, ended_at: &str) -> Run {
        let (app, function) =
            failure["data"]["function_id"].as_str().unwrap().split_once('-').unwrap();
        let is_failed = failure["name"] == "inngest/function.failed";
        let event_ids: Vec<&Value> = failure["data"]["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| &event["id"])
            .collect();
        serde_json::from_value(json!({
            "id": failure["data"]["run_id"],
            "status": if is_failed { "FAILED" } else { "CANCELLED" },
            "app": { "id": app },
            "function": { "id": function, "name": "A function" },
            "queuedAt": ended_at,
            "startedAt": ended_at,
            "endedAt": ended_at,
            "trigger": { "eventIds": event_ids },
        }))
        .unwrap()
    }

    /// A trace as the server makes one: without steps, its output wrapped unless it is an object.
    fn trace_of(failure: &Value, ended_at: &str, output: Option<&Value>) -> Vec<u8> {
        let mut root = json!({
            "id": "0", "name": "Run", "status": "FAILED", "endedAt": ended_at,
            "input": { "data": failure["data"]["events"] },
        });
        if let Some(output) = output {
            root["output"] = output.clone();
        }
        let run_id = &failure["data"]["run_id"];
        json!({ "data": { "runId": run_id, "rootSpan": root } }).to_string().into_bytes()
    }

    /// Where the two differ.
    fn differences(a: &Value, b: &Value) -> BTreeSet<String> {
        fn walk(path: &str, a: &Value, b: &Value, found: &mut BTreeSet<String>) {
            let (Value::Object(of_a), Value::Object(of_b)) = (a, b) else {
                if a != b {
                    found.insert(path.to_owned());
                }
                return;
            };
            for key in of_a.keys().chain(of_b.keys()) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (of_a.get(key), of_b.get(key)) {
                    (Some(a), Some(b)) => walk(&path, a, b, found),
                    _ => drop(found.insert(path)),
                }
            }
        }
        let mut found = BTreeSet::new();
        walk("", a, b, &mut found);
        found
    }

    /// What the two events differ in, which nobody who handles them may see.
    #[track_caller]
    fn compare(name: &str, recorded: &Value, rebuilt: &FailureEvent) -> BTreeSet<String> {
        let event = FailureEvent::try_from(recorded.clone()).unwrap();
        assert_eq!(rebuilt.kind(), event.kind(), "{name}");
        assert_eq!(rebuilt.id(), event.id(), "{name}");
        assert_eq!(rebuilt.wire_error_name(), event.wire_error_name(), "{name}");
        let (mut ours, mut theirs) = (&rebuilt.error(), &event.error());
        assert_eq!(ours, theirs, "{name}");
        loop {
            assert_eq!(ours.code(), theirs.code(), "{name}");
            match (&ours.cause, &theirs.cause) {
                (Some(a), Some(b)) => (ours, theirs) = (a, b),
                _ => break,
            }
        }
        let (ours, theirs) = (rebuilt.parse::<Value>().unwrap(), event.parse::<Value>().unwrap());
        assert_eq!(ours.function_id, theirs.function_id, "{name}");
        assert_eq!(ours.run_id, theirs.run_id, "{name}");
        assert_eq!(ours.event, theirs.event, "{name}");
        assert_eq!(ours.correlation_id, theirs.correlation_id, "{name}");
        let all = |failure: &crate::Failure| -> Vec<_> {
            failure.events.iter().map(Result::unwrap).collect()
        };
        assert_eq!(all(&ours), all(&theirs), "{name}");
        let late = theirs.failed_at.duration_since(ours.failed_at).unwrap();
        assert!(late < Duration::from_millis(100), "{name}: {late:?}");
        differences(&serde_json::to_value(rebuilt).unwrap(), recorded)
    }

    fn set(paths: &[&str]) -> BTreeSet<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn every_recorded_trace_gives_the_recorded_failure_event() {
        let recordings = recordings("traces");
        assert_eq!(recordings.len(), 9);
        for (name, recording) in recordings {
            let (failure, trace) = (&recording["failure"], &recording["trace"]);
            let ended_at = trace["data"]["rootSpan"]["endedAt"].as_str().unwrap();
            let run = run_of(failure, ended_at);
            let rebuilt = failure_event(&run, trace.to_string().as_bytes()).unwrap();
            // The server's own time, and its own summary of the error: neither run nor trace has them.
            let mut differences = compare(&name, failure, &rebuilt);
            differences.remove("ts");
            assert_eq!(differences, set(&["data.error.error"]), "{name}");
            assert_eq!(Some(rebuilt.failed_at()), run.ended_at, "{name}");
            // The list may leave the time out.
            let run = Run { ended_at: None, ..run };
            let again = failure_event(&run, trace.to_string().as_bytes()).unwrap();
            assert_eq!(again.raw().get(), rebuilt.raw().get(), "{name}");
        }
    }

    /// Of these no trace was recorded. They have answers of every kind.
    #[test]
    fn every_recorded_failure_event_is_rebuilt_from_the_answer_in_it() {
        let (failed, cancelled) = (recordings("function_failed"), recordings("function_cancelled"));
        assert_eq!((failed.len(), cancelled.len()), (29, 3));
        for (name, mut call) in failed.into_iter().chain(cancelled) {
            let failure = call["event"].take();
            let time =
                SystemTime::UNIX_EPOCH + Duration::from_millis(failure["ts"].as_u64().unwrap());
            let ended_at = humantime::format_rfc3339_millis(time).to_string();
            let expected = match name.as_str() {
                _ if failure["name"] == "inngest/function.cancelled" => set(&[]),
                // They are the server's own errors.
                "http-500-html" | "http-500-text" => set(&[]),
                // The server took no notice of the text.
                "string-answer.rust-0.1.1" => set(&["data.error.error", "data.error.message"]),
                _ => set(&["data.error.error"]),
            };
            let result = failure["data"].get("result");
            let wrapped =
                result.filter(|result| !result.is_object()).map(|text| json!({ "data": text }));
            for output in [result, wrapped.as_ref().or(result)] {
                let trace = trace_of(&failure, &ended_at, output);
                let rebuilt = failure_event(&run_of(&failure, &ended_at), &trace).unwrap();
                assert_eq!(compare(&name, &failure, &rebuilt), expected, "{name}");
            }
        }
    }

    const RUN: &str = "01M82E82J0N0GBAMR1N91EZJJ6";

    fn run(status: &str) -> Run {
        let run = json!({ "id": RUN, "status": status, "app": { "id": "shop" }, "function": { "id": "pay" } });
        serde_json::from_value(run).unwrap()
    }

    fn trace(events: &Value, output: &Value) -> Vec<u8> {
        let failure = json!({ "data": { "run_id": RUN, "events": events } });
        trace_of(&failure, "", Some(output))
    }

    #[track_caller]
    fn error_of(output: &Value) -> (String, String) {
        let trace = trace(&json!([{ "name": "a" }]), output);
        let error = failure_event(&run("FAILED"), &trace).unwrap().error();
        (error.name, error.message)
    }

    #[test]
    fn an_answer_of_any_shape_gives_the_message_that_a_person_needs() {
        let of = |output| error_of(&output).1;
        assert_eq!(of(json!("kaboom")), "kaboom");
        assert_eq!(of(json!({ "data": "kaboom" })), "kaboom");
        assert_eq!(of(json!({ "data": 7 })), "7");
        assert_eq!(of(json!({ "error": { "message": "deep", "name": "E" } })), "deep");
        assert_eq!(of(json!({ "data": r#"{"error":{"message":"deep"}}"# })), "deep");
        assert_eq!(of(json!({ "error": "short" })), "short");
        assert_eq!(of(json!({ "reason": 7 })), r#"{"reason":7}"#);
        assert_eq!(of(json!({ "message": ["a"] })), r#"["a"]"#);
        let nothing = "the failure event says nothing of the error";
        for output in [json!(null), json!({ "data": null }), json!(""), json!({ "message": "" })] {
            assert_eq!(of(output), nothing);
        }
        let named = error_of(
            &json!({ "name": "CardError", "message": "declined", "stack": "", "cause": null }),
        );
        assert_eq!(named, ("CardError".to_owned(), "declined".to_owned()));
    }

    #[test]
    fn the_event_that_it_is_about_is_the_first_or_one_that_invoked_the_run() {
        let invoked = json!({ "name": "inngest/function.invoked", "data": { "_inngest": { "correlation_id": "r.s" } } });
        let about = |events: Value| {
            let event = failure_event(&run("FAILED"), &trace(&events, &json!("x")))?;
            let failure = event.parse::<Value>().unwrap();
            assert_eq!(failure.events.len(), events.as_array().unwrap().len());
            Ok::<_, RebuildError>((failure.event.name, failure.correlation_id))
        };
        assert_eq!(
            about(json!([{ "name": "a" }, { "name": "b" }])).unwrap(),
            ("a".to_owned(), None)
        );
        let end = json!({ "name": "inngest/function.failed", "data": {} });
        let expected = ("inngest/function.invoked".to_owned(), Some("r.s".to_owned()));
        assert_eq!(about(json!([end, invoked])).unwrap(), expected);
        for events in [
            json!([end]),
            json!([end, { "name": "a" }]),
            json!([{ "name": "inngest/function.finished" }]),
        ] {
            let error = about(events).unwrap_err();
            assert!(error.is_never_sent());
            let expected = format!(
                "there is no failure event of run `{RUN}`: the end of another run had started it, and of such a run Inngest \
                 sends none; pass it over"
            );
            assert_eq!(error.to_string(), expected);
        }
        // The end of a cancelled run is reported further.
        assert!(about(json!([{ "name": "inngest/function.cancelled" }])).is_ok());
    }

    #[test]
    fn what_makes_no_failure_event_is_an_error() {
        let events = json!([{ "name": "a" }]);
        let good = trace(&events, &json!({ "message": "secret" }));
        let of = |status: &str, trace: &[u8]| {
            let error = failure_event(&run(status), trace).unwrap_err();
            assert!(!error.is_never_sent());
            let text = error.to_string();
            text.strip_prefix(&format!("there is no failure event of run `{RUN}`: "))
                .unwrap()
                .to_owned()
        };
        for status in ["COMPLETED", "RUNNING", "", "NEW"] {
            assert_eq!(of(status, &good), "it has neither failed nor been cancelled; pass it over");
        }
        let other = String::from_utf8(good.clone()).unwrap().replace(RUN, "01M8");
        assert_eq!(
            of("FAILED", other.as_bytes()),
            "the trace is that of another run; see that nothing stands between here and the API"
        );
        let none =
            "the trace does not hold the events that had started it; take them from the dashboard";
        for events in [
            json!(null),
            json!([]),
            json!("secret"),
            json!(["secret"]),
            json!({ "name": "secret" }),
        ] {
            assert_eq!(of("FAILED", &trace(&events, &json!("x"))), none);
        }
        assert_eq!(of("FAILED", b"<html>secret"), "not JSON: expected value at line 1 column 1");
        assert_eq!(of("FAILED", b"{}"), "not a run's trace: missing field `data`");
        assert_eq!(
            of("FAILED", br#"{"data":{"runId":"r","rootSpan":"secret"}}"#),
            "not a run's trace: at `data.rootSpan`: invalid type: string, expected struct Root"
        );
        let mut twice = good.clone();
        twice.extend_from_slice(&good);
        assert!(of("FAILED", &twice).starts_with("not JSON: trailing characters"));
        let huge = json!([{ "name": "a", "data": "x".repeat(FailureEvent::MAX_BYTES) }]);
        assert!(of("CANCELLED", &trace(&huge, &json!("x"))).starts_with("the event is "));
    }
}
