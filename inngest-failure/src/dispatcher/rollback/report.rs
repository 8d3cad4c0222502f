//! What the operator reads of a rollback.

use serde_json::{Value, json};

use super::{Done, Reached, failed};
use crate::{
    dispatcher::shown, event::FailureError, extract::Context, registry::CallError, trace::Planned,
};

/// What the operator reads: what was undone, in order, what was not there, what failed.
pub(super) fn report(cx: &Context, reached: &Reached<'_>) -> Result<Value, CallError> {
    let Reached { plan, done, left } = reached;
    let entry = |done: &Done<'_>, key: &str, value: Value| {
        let mut entry = json!({ "step": done.planned.step, key: value });
        if done.planned.index > 0 {
            entry["index"] = done.planned.index.into();
        }
        entry
    };
    let undone: Vec<Value> = done
        .iter()
        .filter_map(|done| Some(entry(done, "result", done.result.as_ref().ok()?.clone())))
        .collect();
    let failures: Vec<(&Done<'_>, &FailureError)> =
        done.iter().filter_map(|done| Some((done, done.result.as_ref().err()?))).collect();
    if failures.is_empty() {
        let mut report = json!({ "undone": undone, "not_completed": plan.not_completed });
        if !plan.in_flight.is_empty() {
            report["in_flight"] = json!(plan.in_flight);
        }
        if plan.undo.is_empty() {
            report["note"] = "the failed run had completed no step that has an undo".into();
        }
        return Ok(report);
    }
    let names = |planned: &mut dyn Iterator<Item = &Planned>| {
        let names: Vec<String> = planned
            .map(|planned| match planned.index {
                0 => format!("`{}`", planned.step),
                index => format!("`{}` ({index})", planned.step),
            })
            .collect();
        names.join(", ")
    };
    let mut message = format!(
        "{} of {} undos of run `{}` failed for good: ",
        failures.len(),
        plan.undo.len(),
        cx.event().run_id()
    );
    for (i, (done, error)) in failures.iter().enumerate() {
        tracing::error!(
            handler_id = done.undo.map(|undo| undo.context.id.as_str()),
            function_id = shown(cx.event().function_id()),
            failed_run_id = shown(cx.event().run_id()),
            step = done.planned.step,
            index = done.planned.index,
            error = error.to_string(),
            "undo failed for good",
        );
        let separator = if i == 0 { "" } else { "; " };
        let name = names(&mut std::iter::once(done.planned));
        message += &format!("{separator}{name}: {error}");
    }
    let undone =
        names(&mut done.iter().filter(|done| done.result.is_ok()).map(|done| done.planned));
    for (what, names) in [
        ("undone", undone),
        ("left", names(&mut left.iter())),
        (
            "not completed",
            plan.not_completed
                .iter()
                .map(|step| format!("`{step}`"))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    ] {
        if !names.is_empty() {
            message += &format!(" | {what}: {names}");
        }
    }
    Err(failed(message))
}
