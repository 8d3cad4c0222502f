//! The matcher and the CEL expression of a selector mean the same: shown with a CEL interpreter that
//! is not ours, on generated and on recorded failures.
//!
//! `PROPTEST_CASES=25600 cargo test -p inngest-failure --release equivalence` tries a hundred times as
//! many.

use std::{collections::BTreeSet, fs, path::Path};

use cel::{Context, Program, Value};
use proptest::prelude::*;
use serde_json::json;

use super::{Glob, Index, Selector, Subject, Target, triggers};
use crate::event::{FailureEvent, FailureKind};

/// Ids, and parts of ids, that would do harm where they are not taken as data.
const NASTY: &[&str] = &[
    "shop",
    "checkout",
    "shop-checkout",
    "check",
    "",
    "-",
    "a'b",
    "\"q\"",
    "c\\d",
    "\\",
    "e\nf",
    "\r\n",
    "\u{0}",
    "\u{7f}\u{85}\u{2028}",
    "zażółć 🚀",
    "' || true || '",
    "') || ('' == '",
    "event.data",
    ".",
    "(?i)",
    "[a-z]+",
    "$^",
    "{1}",
    "\\d",
    "\\u0041",
    "//",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(NASTY).prop_map(str::to_owned),
        1 => "\\PC{0,6}",
        1 => any::<String>(),
    ]
}

/// A `function` argument: words between stars.
fn function() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => word(),
        3 => prop::collection::vec(word(), 2..4).prop_map(|words| words.join("*")),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    let app = || prop::option::of(word());
    prop_oneof![
        6 => (app(), function()).prop_map(|(app, function)| {
            Target::Named(Glob::new(app.as_deref(), &function))
        }),
        1 => app().prop_map(|app| Target::Every { app }),
        2 => app().prop_map(|app| Target::Fallback { app }),
    ]
}

fn selector() -> impl Strategy<Value = Selector> {
    // An error and cancelled runs exclude each other, as in the attribute.
    let filters = prop_oneof![
        3 => Just((None, false)),
        2 => word().prop_map(|error| (Some(error), false)),
        1 => Just((None, true)),
    ];
    (target(), filters).prop_map(|(target, (error, cancelled))| Selector {
        target,
        error,
        cancelled,
    })
}

#[derive(Clone, Debug)]
struct Failed {
    kind: FailureKind,
    function_id: String,
    error_name: String,
}

/// A failure that has something to do with one of the selectors, or nothing with any.
fn failed(selectors: Vec<Selector>) -> impl Strategy<Value = (Vec<Selector>, Failed)> {
    let near = (prop::sample::select(selectors.clone()), prop::collection::vec(word(), 3))
        .prop_map(|(selector, fill)| match &selector.target {
            Target::Named(glob) => {
                let mut id = String::new();
                for (i, piece) in glob.pieces().iter().enumerate() {
                    if i > 0 {
                        id.push_str(fill.get(i).map_or("", String::as_str));
                    }
                    id.push_str(piece);
                }
                id
            }
            Target::Every { app } | Target::Fallback { app } => {
                format!("{}-{}", app.as_deref().unwrap_or("any"), fill[0])
            }
        });
    let function_id = prop_oneof![4 => near, 1 => word(), 1 => "\\PC{0,12}"];
    let errors: Vec<String> = selectors.iter().filter_map(|one| one.error.clone()).collect();
    let error_name = match errors.is_empty() {
        true => word().boxed(),
        false => prop_oneof![prop::sample::select(errors), word()].boxed(),
    };
    let kind = prop_oneof![3 => Just(FailureKind::Failed), 1 => Just(FailureKind::Cancelled)];
    (Just(selectors), kind, function_id, error_name).prop_map(
        |(selectors, kind, function_id, error_name)| {
            (selectors, Failed { kind, function_id, error_name })
        },
    )
}

/// Which selectors the server would start, by evaluating their expressions.
fn by_expression(selectors: &[Selector], event: &serde_json::Value) -> BTreeSet<usize> {
    let mut context = Context::default();
    context.add_variable("event", event).unwrap();
    let naming = selectors.iter().filter(|selector| selector.names_functions());
    let starts = |selector: &Selector| {
        triggers(selector, naming.clone())
            .into_iter()
            .filter(|trigger| trigger.event == event["name"])
            .any(|trigger| match trigger.expression {
                None => true,
                Some(expression) => {
                    let program = Program::compile(&expression)
                        .unwrap_or_else(|error| panic!("{expression}: {error}"));
                    match program.execute(&context) {
                        Ok(Value::Bool(holds)) => holds,
                        other => panic!("{expression}: {other:?}"),
                    }
                }
            })
    };
    (0..selectors.len()).filter(|&i| starts(&selectors[i])).collect()
}

fn by_matcher(selectors: &[Selector], subject: Subject<'_>) -> BTreeSet<usize> {
    let selection = Index::new(selectors.to_vec()).select(subject);
    let naming_or_fallback = |&i: &usize| !matches!(selectors[i].target, Target::Every { .. });
    assert_eq!(selection.unhandled, !selection.handlers.iter().any(naming_or_fallback));
    selection.handlers.into_iter().collect()
}

proptest! {
    #[test]
    fn on_generated_failures(
        (selectors, failed) in prop::collection::vec(selector(), 1..6).prop_flat_map(failed)
    ) {
        let event = match failed.kind {
            FailureKind::Failed => json!({
                "name": "inngest/function.failed",
                "data": { "function_id": failed.function_id, "error": { "name": failed.error_name } },
            }),
            FailureKind::Cancelled => json!({
                "name": "inngest/function.cancelled",
                "data": { "function_id": failed.function_id },
            }),
        };
        let subject = Subject {
            kind: failed.kind,
            function_id: &failed.function_id,
            error_name: (failed.kind == FailureKind::Failed).then_some(&failed.error_name),
        };
        prop_assert_eq!(by_matcher(&selectors, subject), by_expression(&selectors, &event));
    }
}

/// Every recorded failure against selectors of every kind.
#[test]
fn on_recorded_failures() {
    let named = |function: &str| Selector {
        target: Target::Named(Glob::new(None, function)),
        error: None,
        cancelled: false,
    };
    let fallback = Selector { target: Target::Fallback { app: None }, ..named("") };
    let selectors = [
        named("cap4-plain-error"),
        named("cap4-*"),
        Selector { cancelled: true, ..named("cap*-cancel*") },
        Selector { error: Some("CustomError".to_owned()), ..named("*-custom-*") },
        Selector { error: Some("Exception".to_owned()), ..named("*") },
        Selector { target: Target::Every { app: None }, ..named("") },
        Selector { target: Target::Every { app: Some("cap3".to_owned()) }, ..named("") },
        fallback.clone(),
        Selector { cancelled: true, ..fallback },
    ];
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let mut taken = BTreeSet::new();
    let mut recorded = 0;
    for folder in ["function_failed", "function_cancelled"] {
        for file in fs::read_dir(fixtures.join(folder)).unwrap() {
            let call: serde_json::Value =
                serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap();
            let event = FailureEvent::try_from(call["event"].clone()).unwrap();
            let matched = by_matcher(&selectors, Subject::from(&event));
            assert_eq!(
                matched,
                by_expression(&selectors, &call["event"]),
                "{}",
                event.function_id()
            );
            taken.extend(matched);
            recorded += 1;
        }
    }
    assert_eq!(recorded, 32);
    assert_eq!(
        taken.len(),
        selectors.len(),
        "a selector that takes nothing shows nothing: {taken:?}"
    );
}
