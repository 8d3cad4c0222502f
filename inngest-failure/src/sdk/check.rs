//! What can be known at start-up of handlers that are functions of the SDK.

use std::{any::type_name, collections::BTreeMap};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use slug::slugify;

use super::function::Function;
use crate::{
    dispatcher::Dispatcher,
    error::Problem,
    event::{CANCELLED, FAILED},
    registry::HandlerInfo,
    selector::{Selector, Target},
    server::check_triggers,
};

/// The functions that the handlers become in this app; or everything that is wrong with that, added to `problems`.
pub(super) fn functions(
    dispatcher: &Dispatcher,
    app: &str,
    problems: &mut Vec<Problem>,
) -> Vec<Function> {
    let mut functions = Vec::new();
    if app.is_empty() {
        problems.push(Problem {
            location: None,
            handler: None,
            fault: "the client's app id has no letter or digit that a slug could have".to_owned(),
            remedy: "give `Inngest::new(..)` an id of letters, digits and `-`".to_owned(),
        });
        return functions;
    }
    for (handler, info) in dispatcher.functions().iter().enumerate() {
        check_settings(info, dispatcher.takes_steps(handler), problems);
        check_triggers(info, problems);
        let (selector, failed_app) = dispatcher.target(handler);
        check_slugs(info, selector, failed_app, app, problems);

        let id = info.id.strip_prefix(app).and_then(|rest| rest.strip_prefix('-'));
        let id = id.unwrap_or(&info.id);
        for trigger in &info.triggers {
            // The SDK knows one trigger of a function.
            let is_second = trigger.event == CANCELLED;
            functions.push(Function {
                handler,
                id: if is_second { format!("{id}-cancelled") } else { id.to_owned() },
                name: match is_second {
                    true => format!("{} (cancelled)", info.name),
                    false => info.name.clone(),
                },
                event: if is_second { CANCELLED } else { FAILED },
                expression: trigger.expression.clone(),
            });
        }
    }
    check_ids(dispatcher, app, &functions, problems);
    functions
}

/// Whether the SDK, or this process in its place, can keep what the attribute says.
fn check_settings(info: &HandlerInfo, takes_steps: bool, problems: &mut Vec<Problem>) {
    const ELSEWHERE: &str = "serve the handler at a `serve::Endpoint`, where Inngest keeps it";
    if info.priority.is_some() {
        problems.push(info.problem(
            "its `priority` is for Inngest's queue, and the `inngest` crate does not tell Inngest of it".to_owned(),
            &format!("leave it out, or {ELSEWHERE}"),
        ));
    }
    if info.idempotency.is_some() {
        problems.push(info.problem(
            "its `idempotency` is Inngest's to keep, and the `inngest` crate does not tell Inngest of it, so that \
             repetitions would run"
                .to_owned(),
            &format!("leave it out and use `failure.idempotency_key(..)`, or {ELSEWHERE}"),
        ));
    }
    if info.throttle.is_some() && takes_steps {
        problems.push(info.problem(
            "it takes `Step` and has a `throttle`, but in a server of the `inngest` crate it is called for each step, \
             and not told which call is a run's first"
                .to_owned(),
            &format!("limit it with `concurrency`, or {ELSEWHERE}"),
        ));
    }
}

/// Whether the handler names functions of this app as the SDK names them: it makes slugs of app ids and function ids.
fn check_slugs(
    info: &HandlerInfo,
    selector: &Selector,
    failed_app: Option<&str>,
    app: &str,
    problems: &mut Vec<Problem>,
) {
    let mut refuse = |means: &str, remedy: String| {
        problems.push(info.problem(
            format!(
                "it is for `{means}`, but the `inngest` crate makes slugs of ids, so that no function of the app \
                 `{app}` is called so"
            ),
            &remedy,
        ));
    };
    // A handler for everything means only the app that it names itself.
    let failed_app = match &selector.target {
        Target::Named(_) => failed_app,
        Target::Every { app } | Target::Fallback { app } => app.as_deref(),
    };
    let elsewhere = "if it means another app, name that with `app = \"..\"`";
    match (&selector.target, failed_app) {
        // The app of this server, in letters that it does not have.
        (target, Some(failed_app)) if failed_app != app && slugify(failed_app) == app => {
            let means = match target {
                Target::Named(glob) => glob.to_string(),
                Target::Every { .. } | Target::Fallback { .. } => format!("{failed_app}-*"),
            };
            refuse(
                &means,
                format!(
                    "write the app as `{app}`, in the attribute or in the dispatcher's `.app(..)`"
                ),
            );
        }
        (Target::Named(glob), failed_app) => match (glob.exact(), failed_app) {
            (Some(id), failed_app) if failed_app.is_none_or(|failed| failed == app) => {
                let slug = slugify(id);
                let is_ours = failed_app.is_some() || slug.starts_with(&format!("{app}-"));
                if is_ours && slug != id {
                    refuse(id, format!("name the function `{slug}`; {elsewhere}"));
                }
            }
            (None, failed_app)
                if failed_app.map_or_else(
                    || glob.to_string().starts_with(&format!("{app}-")),
                    |failed| failed == app,
                ) =>
            {
                let text = glob.to_string();
                let misplaced =
                    |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || "-*".contains(c));
                if let Some(c) = text.chars().find(|c| misplaced(*c)) {
                    refuse(
                        &text,
                        format!(
                            "leave the {c:?} out of the pattern: slugs have lower-case letters, digits and `-`"
                        ),
                    );
                }
            }
            _ => {}
        },
        _ => {}
    }
}

/// Whether each function has an id of its own once the SDK has made a slug of it: it keeps one function of an id.
fn check_ids(
    dispatcher: &Dispatcher,
    app: &str,
    functions: &[Function],
    problems: &mut Vec<Problem>,
) {
    let info = |function: &Function| &dispatcher.functions()[function.handler];
    let mut by_slug: BTreeMap<String, Vec<&Function>> = BTreeMap::new();
    for function in functions {
        by_slug.entry(slugify(&function.id)).or_default().push(function);
    }
    for (slug, same) in by_slug {
        let first = info(same[0]);
        if slug.is_empty() {
            problems.push(first.problem(
                format!("its id {:?} has no letter or digit that a slug could have", first.id),
                "give it an `id = \"..\"` of letters, digits and `-`",
            ));
            continue;
        }
        let others: Vec<String> = same[1..]
            .iter()
            .map(|other| format!("`{}` ({})", info(other).rust_name, info(other).location))
            .collect();
        if !others.is_empty() {
            problems.push(first.problem(
                format!(
                    "the `inngest` crate calls it `{app}-{slug}`, and so it calls {}, of which only one would be \
                     served",
                    others.join(" and ")
                ),
                "give all but one an `id = \"..\"` that is another one as a slug",
            ));
        }
    }
}

/// Whether the server's data type can hold the data of failure events, which the SDK reads as it and gives on as it.
pub(super) fn check_data<T>(dispatcher: &Dispatcher, problems: &mut Vec<Problem>)
where
    T: Serialize + DeserializeOwned,
{
    let is_for = |name: &str| {
        let mut triggers = dispatcher.functions().iter().flat_map(|info| &info.triggers);
        triggers.any(|trigger| trigger.event == name)
    };
    let fault = [FAILED, CANCELLED]
        .into_iter()
        .filter(|name| is_for(name))
        .find_map(|name| data_fault::<T>(&sample(name == CANCELLED)));
    if let Some(fault) = fault {
        problems.push(Problem {
            location: None,
            handler: None,
            fault: format!(
                "the server's data type `{}` can't hold the data of a failure event: {fault}",
                type_name::<T>()
            ),
            remedy: "let it be `serde_json::Value`, `sdk::EventData<T>`, which takes the server's other functions with \
                     `sdk::adapt`, or an untagged enum that has a variant for any `serde_json::Value`"
                .to_owned(),
        });
    }
}

/// The data of a failure event with everything in it that the server sends.
fn sample(cancelled: bool) -> Value {
    let run_id = "01M82E82J0N0GBAMR1N91EZJJ6";
    let event = json!({
        "id": "01M82E7PPPG8YZKGBE5DGYPG24", "name": "shop/order.placed", "ts": 1_795_378_383_544_i64, "user": {},
        "data": { "order_id": "o-1", "amount_cents": 4990 },
    });
    let error = json!({
        "error": "invalid status code: 500", "name": "CardError", "message": "card declined", "stack": "at charge",
        "cause": { "name": "Error", "message": "no money" },
    });
    let mut data = json!({
        "function_id": "shop-checkout", "run_id": run_id, "event": event, "events": [event],
        "_inngest": { "status": if cancelled { "Cancelled" } else { "Failed" } },
    });
    if !cancelled {
        data["error"] = error;
        data["result"] = json!({ "name": "CardError", "message": "card declined", "code": "E42" });
    }
    data
}

fn data_fault<T: Serialize + DeserializeOwned>(sample: &Value) -> Option<String> {
    let data = match serde_json::from_value::<T>(sample.clone()) {
        Ok(data) => data,
        Err(error) => return Some(error.to_string()),
    };
    let kept = match serde_json::to_value(&data) {
        Ok(kept) => kept,
        Err(error) => return Some(format!("it can't be written as JSON again: {error}")),
    };
    let is_lost = |key: &&str| kept.get(key) != sample.get(key);
    if let Some(key) = ["function_id", "run_id", "error", "event"].iter().find(|key| is_lost(key)) {
        return Some(format!("it does not keep `{key}` as it came"));
    }
    let lost: Vec<&str> = ["events", "result", "_inngest"].into_iter().filter(is_lost).collect();
    if !lost.is_empty() {
        tracing::warn!(
            data = type_name::<T>(),
            ?lost,
            "the server's data type does not keep all of a failure event's data, which handlers then don't see",
        );
    }
    None
}
