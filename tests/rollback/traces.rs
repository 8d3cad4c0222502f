//! Every recorded trace, read.

use inngest_failure::{RunTrace, StepStatus};
use serde_json::{Value, json};
use tests::{fixture, recordings};

pub(crate) fn recorded(name: &str) -> (Value, RunTrace) {
    let mut file: Value = serde_json::from_slice(&fixture(&format!("traces/{name}.json"))).unwrap();
    let trace = RunTrace::from_slice(file["trace"].to_string().as_bytes()).unwrap();
    (file["failure"].take(), trace)
}

/// The completed steps with what they returned, as the server shows it, and the step that failed the run.
fn check<const N: usize>(name: &str, completed: [(&str, Value); N], failed: Option<&str>) {
    let (failure, trace) = recorded(name);
    assert_eq!(trace.run_id(), failure["data"]["run_id"], "{name}");
    let of_trace: Vec<(&str, Value)> = trace
        .steps()
        .iter()
        .filter(|step| step.status == StepStatus::Completed)
        .map(|step| (step.name.as_str(), serde_json::from_str(step.raw_output().get()).unwrap()))
        .collect();
    assert_eq!(of_trace, completed, "{name}");
    assert_eq!(trace.failed_step().map(|step| step.name.as_str()), failed, "{name}");
    let ended: Vec<_> = trace.steps().iter().map(|step| step.ended_at.unwrap()).collect();
    assert!(ended.is_sorted(), "{name}");
}

#[test]
fn every_recorded_trace_tells_what_had_completed_and_what_failed() {
    let reserved = json!({ "qty": 2, "reservation": "r-1" });
    let charged = json!({ "amount_cents": 4200, "charge_id": "ch_42" });
    check(
        "tr3.loop",
        [("item", json!({ "i": 0 })), ("item", json!({ "i": 1 })), ("item", json!({ "i": 2 }))],
        None,
    );
    check("tr3.no-steps", [], None);
    for serial in ["tr3.serial", "tr4.serial"] {
        let completed = [
            ("reserve-stock", reserved.clone()),
            ("charge-card", charged.clone()),
            ("cool-down", json!(null)),
        ];
        check(serial, completed, Some("ship"));
    }
    check("tr4.caught", [("recovered", json!({ "data": "yes" }))], None);
    check(
        "tr4.kinds",
        [
            ("announce", json!({ "ids": ["01M82KHGN7CM20XDE4M40S5RGM"] })),
            ("call-child", json!({ "child": "ok", "n": 7 })),
            ("wait-ok", json!(null)),
            ("after", json!({ "w": null })),
        ],
        None,
    );
    check(
        "tr4.odd-names",
        [
            ("Charge Card: \"visa\" / ünïcode", json!({ "data": 1 })),
            ("A display name", json!({ "data": "named" })),
        ],
        None,
    );
    check(
        "tr4.parallel",
        [
            ("a", json!({ "data": "A" })),
            ("c", json!({ "data": [1, 2, 3] })),
            ("b", json!({ "b": 1 })),
            ("then", json!({ "data": null })),
        ],
        None,
    );
    check("tr4.retried-step", [("flaky", json!({ "attempt": 1, "ok": true }))], Some("dead"));
    assert_eq!(recordings(&["traces"]).len(), 9);
}

#[test]
fn a_step_is_found_by_its_id_and_read_as_a_type() {
    let (_, trace) = recorded("tr4.parallel");
    let output = |id: &str| trace.completed(id).next().unwrap();
    assert_eq!(output("a").output::<String>().unwrap(), "A");
    assert_eq!(output("c").output::<Vec<u8>>().unwrap(), [1, 2, 3]);
    output("then").output::<()>().unwrap();
    assert_eq!(output("then").output::<Option<u8>>().unwrap(), None);
    let error = output("c").output::<String>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "what step `c` of the failed run had returned does not fit `alloc::string::String`: invalid type: sequence, \
         expected a string; let the type take what the step returns"
    );
    assert!(trace.completed("no such").next().is_none());

    // A loop: each use by its number.
    let (_, trace) = recorded("tr3.loop");
    let items: Vec<Value> =
        trace.completed("item").map(|step| step.output::<Value>().unwrap()["i"].clone()).collect();
    assert_eq!(items, [0, 1, 2]);

    // The id is the code's, whatever the display name says.
    let (_, trace) = recorded("tr4.odd-names");
    assert_eq!(trace.completed("Charge Card: \"visa\" / ünïcode").count(), 1);
    let (_, trace) = recorded("tr4.retried-step");
    let flaky: Vec<_> = trace.steps().iter().filter(|step| step.name == "flaky").collect();
    assert_eq!(flaky.len(), 1);
    let dead = trace.failed_step().unwrap();
    assert_eq!(dead.error.as_ref().unwrap().message, "dead");
}

#[test]
fn what_is_no_trace_is_refused() {
    for (json, message) in [
        ("", "not JSON: EOF while parsing a value at line 1 column 0"),
        ("[]", "not a run's trace: invalid length 0, expected struct Answer with 1 element"),
        ("{}", "not a run's trace: missing field `data`"),
        (r#"{"data":{"runId":"r"}}"#, "not a run's trace: at `data`: missing field `rootSpan`"),
        (
            r#"{"data":{"runId":7,"rootSpan":{}}}"#,
            "not a run's trace: at `data.runId`: invalid type: integer",
        ),
    ] {
        let error = RunTrace::from_slice(json.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(message), "{json}: {error}");
    }
}
