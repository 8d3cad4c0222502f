//! What Inngest's server demands of a function, and how it reads an answer.

use std::time::Duration;

use crate::{error::Problem, registry::HandlerInfo, selector::is_understood};

/// What the server allows a whole call.
pub(crate) const MAX_CALL_BYTES: usize = 4 * 1024 * 1024;

/// The longest expression that the server's parser takes, in code points: the default of cel-go.
const MAX_EXPRESSION: usize = 100_000;

/// Whether the server can evaluate the handler's triggers as they are meant.
pub(crate) fn check_triggers(handler: &HandlerInfo, problems: &mut Vec<Problem>) {
    let mut refuse = |fault, remedy: &str| problems.push(handler.problem(fault, remedy));
    let expressions =
        || handler.triggers.iter().filter_map(|trigger| trigger.expression.as_deref());
    if !expressions().all(is_understood) {
        refuse(
            "its trigger's expression can't be written so that Inngest evaluates it as it is meant: a backslash, a \
             control character, `vars.`, or a `^` or `[` in a pattern is in it"
                .to_owned(),
            "leave that out of the `function`, `app` and `error` of every handler that it names: write a pattern with \
             `*` in its place",
        );
    }
    let longest = expressions().map(|expression| expression.chars().count()).max().unwrap_or(0);
    if longest > MAX_EXPRESSION {
        refuse(
            format!(
                "its trigger's expression is {longest} characters long, and Inngest takes {MAX_EXPRESSION}: a \
                 fallback names every function that has a handler"
            ),
            "name functions by patterns, which are one exception each, or take `function = \"*\"` instead of \
             `fallback`",
        );
    }
}

/// A delay as a `retry-after`: whole seconds, none of them too early. A longer text would be taken for a date.
pub(crate) fn retry_after(delay: Duration) -> u64 {
    const MAX_SECONDS: u64 = 9_999_999;
    let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
    seconds.min(MAX_SECONDS)
}
