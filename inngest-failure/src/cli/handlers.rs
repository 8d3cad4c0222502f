//! `handlers`.

use serde::Serialize;

use super::{Fatal, Outcome, args, output};
use crate::{dispatcher::DispatcherBuilder, rate::Rate, registry::HandlerInfo};

pub(super) fn run(builder: DispatcherBuilder, args: &args::Handlers) -> Result<Outcome, Fatal> {
    let dispatcher = builder.build()?;
    let handlers = dispatcher.handlers();
    let text = if args.json { json(handlers)? } else { table(handlers) };
    output::print(&text)?;
    Ok(Outcome::Well)
}

fn table(handlers: &[HandlerInfo]) -> String {
    let mut table =
        output::table(["handler", "function", "takes", "retries", "limits", "at", "description"]);
    for info in handlers {
        table.add_row([
            info.id.clone(),
            info.rust_name.to_owned(),
            info.selector.clone(),
            info.retries.to_string(),
            limits(info),
            info.location.to_string(),
            info.description.lines().next().unwrap_or_default().trim().to_owned(),
        ]);
    }
    // The Rust function and its place, and how often it is tried: `--json` tells of them.
    output::hide_if_narrow(&mut table, &[1, 3, 5]);
    format!("{table}\n")
}

/// What holds a handler's runs back, in the attribute's words.
fn limits(info: &HandlerInfo) -> String {
    let limits = [
        info.timeout.map(|timeout| format!("timeout {}", humantime::format_duration(timeout))),
        info.concurrency.map(|limit| format!("concurrency {limit}")),
        info.throttle.map(|rate| format!("throttle {}", text(rate))),
        info.rate_limit.map(|rate| format!("rate_limit {}", text(rate))),
        info.priority.map(|seconds| format!("priority {seconds}")),
        info.idempotency.map(|expression| format!("idempotency {expression}")),
    ];
    limits.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn text(rate: Rate) -> String {
    format!("{}/{}", rate.limit, humantime::format_duration(rate.period))
}

/// A handler as JSON.
#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    name: &'a str,
    step: Option<&'a str>,
    selector: &'a str,
    triggers: Vec<Trigger<'a>>,
    retries: u32,
    timeout_ms: Option<u128>,
    concurrency: Option<u32>,
    throttle: Option<String>,
    rate_limit: Option<String>,
    priority: Option<i32>,
    idempotency: Option<&'a str>,
    rust_name: &'a str,
    file: &'a str,
    line: u32,
    description: &'a str,
}

#[derive(Serialize)]
struct Trigger<'a> {
    event: &'a str,
    expression: Option<&'a str>,
}

fn json(handlers: &[HandlerInfo]) -> Result<String, Fatal> {
    let listed: Vec<Listed<'_>> = handlers
        .iter()
        .map(|info| Listed {
            id: &info.id,
            name: &info.name,
            step: info.step,
            selector: &info.selector,
            triggers: info
                .triggers
                .iter()
                .map(|trigger| Trigger {
                    event: trigger.event,
                    expression: trigger.expression.as_deref(),
                })
                .collect(),
            retries: info.retries,
            timeout_ms: info.timeout.map(|timeout| timeout.as_millis()),
            concurrency: info.concurrency,
            throttle: info.throttle.map(text),
            rate_limit: info.rate_limit.map(text),
            priority: info.priority,
            idempotency: info.idempotency,
            rust_name: info.rust_name,
            file: info.location.file,
            line: info.location.line,
            description: info.description,
        })
        .collect();
    Ok(serde_json::to_string_pretty(&listed)? + "\n")
}
