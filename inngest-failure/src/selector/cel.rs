//! The same rule for the server: Inngest's trigger expressions, in the Common Expression Language.
//!
//! Only what a real server was seen to accept in a trigger is used: `==`, `&&`, `||`, `!`,
//! `startsWith` and `matches`. Before it evaluates an expression the server takes the text literals out, each as it
//! stands between its quotes: an escape is not undone. So none is used where there is another way to write it.

use std::{collections::HashSet, fmt::Write};

use super::{Selector, Target};
use crate::event::FailureKind;

/// What starts a handler under Inngest: an event, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trigger {
    /// `inngest/function.failed` or `inngest/function.cancelled`.
    pub event: &'static str,
    /// The CEL expression that an event must fulfil; every event does if there is none.
    pub expression: Option<String>,
}

/// The triggers of the selector; `naming` are all selectors that name functions, which a fallback
/// leaves out.
pub(crate) fn triggers<'a>(
    selector: &Selector,
    naming: impl Iterator<Item = &'a Selector> + Clone,
) -> Vec<Trigger> {
    let kinds: &[FailureKind] = match selector.cancelled {
        true => &[FailureKind::Failed, FailureKind::Cancelled],
        false => &[FailureKind::Failed],
    };
    kinds
        .iter()
        .map(|&kind| Trigger {
            event: kind.event_name(),
            expression: expression(selector, naming.clone(), kind),
        })
        .collect()
}

fn expression<'a>(
    selector: &Selector,
    naming: impl Iterator<Item = &'a Selector>,
    kind: FailureKind,
) -> Option<String> {
    let mut terms = own_terms(selector);
    if matches!(selector.target, Target::Fallback { .. }) {
        let mut excepted = HashSet::new();
        // A handler that does not take cancelled runs leaves them to the fallback.
        let naming = naming.filter(|other| kind == FailureKind::Failed || other.cancelled);
        for other in naming {
            // Several handlers of one function are one exception.
            let term = format!("!({})", own_terms(other).join(" && "));
            if excepted.insert(term.clone()) {
                terms.push(term);
            }
        }
    }
    (!terms.is_empty()).then(|| terms.join(" && "))
}

/// What must hold of the failure itself, whatever other handlers there are.
fn own_terms(selector: &Selector) -> Vec<String> {
    const FUNCTION_ID: &str = "event.data.function_id";
    let mut terms = Vec::new();
    match &selector.target {
        Target::Named(glob) => terms.push(match (glob.exact(), glob.split()) {
            (_, Some((prefix, [], ""))) => starts_with(FUNCTION_ID, prefix),
            (None, _) => format!("{FUNCTION_ID}.matches({})", literal(&regex(glob.pieces()))),
            (Some(id), _) => format!("{FUNCTION_ID} == {}", literal(id)),
        }),
        Target::Every { app: Some(app) } | Target::Fallback { app: Some(app) } => {
            terms.push(starts_with(FUNCTION_ID, &format!("{app}-")));
        }
        Target::Every { app: None } | Target::Fallback { app: None } => {}
    }
    if let Some(error) = &selector.error {
        terms.push(format!("event.data.error.name == {}", literal(error)));
    }
    terms
}

fn starts_with(field: &str, prefix: &str) -> String {
    format!("{field}.startsWith({})", literal(prefix))
}

/// The pieces between the stars as a regular expression in RE2's syntax, which CEL prescribes.
fn regex(pieces: &[String]) -> String {
    let pieces: Vec<String> = pieces.iter().map(|piece| escape_regex(piece)).collect();
    // `s`: a star stands for newlines too.
    format!("(?s)^{}$", pieces.join(".*"))
}

fn escape_regex(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // A class of one, for want of an escape.
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '{' | '$' => escaped.extend(['[', c, ']']),
            '\\' | '^' | '[' => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A CEL expression that means `text`, whatever is in it: one literal, or several joined with `+` where it holds both
/// kinds of quotes.
fn literal(text: &str) -> String {
    let mut literals = Vec::new();
    let mut rest = text;
    while !rest.is_empty() || literals.is_empty() {
        let quote = if rest.starts_with('\'') { '"' } else { '\'' };
        let (piece, after) = rest.split_at(rest.find(quote).unwrap_or(rest.len()));
        literals.push(quoted(piece, quote));
        rest = after;
    }
    literals.join(" + ")
}

fn quoted(text: &str, quote: char) -> String {
    let mut literal = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(literal, "\\u{:04x}", u32::from(c));
            }
            c => literal.push(c),
        }
    }
    literal.push(quote);
    literal
}

/// Whether the server evaluates the expression as it is meant: it has no escape, and nothing that looks like the
/// variables by which the server replaces literals.
#[cfg(any(feature = "serve", feature = "sdk"))]
pub(crate) fn is_understood(expression: &str) -> bool {
    !expression.contains('\\') && !expression.contains("vars.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::Glob;

    fn selector(target: Target) -> Selector {
        Selector { target, error: None, cancelled: false }
    }

    fn named(app: Option<&str>, function: &str) -> Selector {
        selector(Target::Named(Glob::new(app, function)))
    }

    #[track_caller]
    fn check(selector: &Selector, naming: &[Selector], expected: Option<&str>) {
        let triggers = triggers(selector, naming.iter());
        assert_eq!(triggers[0].expression.as_deref(), expected);
    }

    #[test]
    fn expressions_read_as_those_of_other_sdks() {
        check(
            &named(Some("shop"), "checkout"),
            &[],
            Some("event.data.function_id == 'shop-checkout'"),
        );
        check(
            &Selector { error: Some("CardError".into()), ..named(None, "shop-checkout") },
            &[],
            Some(
                "event.data.function_id == 'shop-checkout' && event.data.error.name == 'CardError'",
            ),
        );
        check(&named(Some("shop"), "c*"), &[], Some("event.data.function_id.startsWith('shop-c')"));
        check(
            &named(Some("shop"), "c*.x"),
            &[],
            Some("event.data.function_id.matches('(?s)^shop-c.*[.]x$')"),
        );
        check(&selector(Target::Every { app: None }), &[], None);
        check(
            &selector(Target::Every { app: Some("shop".into()) }),
            &[],
            Some("event.data.function_id.startsWith('shop-')"),
        );
    }

    #[test]
    fn a_fallback_is_the_negation_of_all_that_name_functions() {
        let fallback = selector(Target::Fallback { app: None });
        let error = Selector { error: Some("E".into()), ..named(None, "b") };
        check(&fallback, &[], None);
        check(
            &fallback,
            &[named(None, "a"), error],
            Some(
                "!(event.data.function_id == 'a') && \
                 !(event.data.function_id == 'b' && event.data.error.name == 'E')",
            ),
        );
    }

    #[test]
    fn a_cancelled_run_is_left_to_a_fallback_by_handlers_that_do_not_take_it() {
        let fallback = Selector { cancelled: true, ..selector(Target::Fallback { app: None }) };
        let naming = [named(None, "a"), Selector { cancelled: true, ..named(None, "b") }];
        let triggers = triggers(&fallback, naming.iter());
        assert_eq!(triggers[1].event, "inngest/function.cancelled");
        assert_eq!(triggers[1].expression.as_deref(), Some("!(event.data.function_id == 'b')"));
    }

    #[test]
    fn whatever_an_id_holds_is_data() {
        assert_eq!(literal(""), "''");
        assert_eq!(literal("it's"), "'it' + \"'s\"");
        assert_eq!(literal("'"), "\"'\"");
        assert_eq!(literal("say \"no\""), "'say \"no\"'");
        assert_eq!(literal("a'b\"c'"), "'a' + \"'b\" + '\"c' + \"'\"");
        assert_eq!(literal(r"b\c"), r"'b\\c'");
        assert_eq!(literal("a\nb\u{0}c\u{7f}"), r"'a\nb\u0000c\u007f'");
        assert_eq!(literal("zażółć 🚀"), "'zażółć 🚀'");
    }

    #[test]
    fn a_pattern_is_escaped_without_escapes() {
        assert_eq!(escape_regex("a.b+c*d?(e)|f]{g}$"), "a[.]b[+]c[*]d[?][(]e[)][|]f][{]g}[$]");
        assert_eq!(escape_regex(r"[^\"), r"\[\^\\");
    }
}
