//! What would have taken a failure that nothing took.

use std::{collections::HashMap, sync::Mutex};

use crate::{
    event::{FailureEvent, FailureKind},
    selector::{Selector, Target},
    suggest::nearest,
};

/// The hints given so far: to find one takes a look at every handler, and unhandled failures come in
/// crowds.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// By function id and kind; emptied when it is full.
    given: Mutex<HashMap<(String, FailureKind), String>>,
}

impl Hints {
    pub(super) fn of(&self, event: &FailureEvent, selectors: &[Selector]) -> String {
        const MAX_GIVEN: usize = 256;
        const MAX_BYTES: usize = 256;
        if event.function_id().len() > MAX_BYTES {
            return "its function id is longer than any that Inngest gives".to_owned();
        }
        let key = (event.function_id().to_owned(), event.kind());
        // Whoever panicked while holding it left a map that is as good as before.
        let mut given = self.given.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(hint) = given.get(&key) {
            return hint.clone();
        }
        let hint = hint(event, selectors);
        if given.len() >= MAX_GIVEN {
            given.clear();
        }
        given.insert(key, hint.clone());
        hint
    }
}

fn hint(event: &FailureEvent, selectors: &[Selector]) -> String {
    let function_id = event.function_id();
    let covers = |selector: &&Selector| {
        !matches!(selector.target, Target::Every { .. }) && selector.covers(function_id)
    };
    match selectors.iter().filter(covers).min_by_key(|selector| !selector.names_functions()) {
        Some(selector) if event.kind() == FailureKind::Cancelled && !selector.cancelled => {
            return format!(
                "`{selector}` covers the function but not cancelled runs; add `cancelled` to it"
            );
        }
        Some(selector) => {
            return format!(
                "`{selector}` covers the function but not this error; add a handler for it"
            );
        }
        None => {}
    }
    let named: Vec<String> = selectors
        .iter()
        .filter_map(|selector| match &selector.target {
            Target::Named(glob) => Some(glob.to_string()),
            Target::Every { .. } | Target::Fallback { .. } => None,
        })
        .collect();
    match nearest(function_id, named.iter().map(String::as_str)) {
        Some(near) => format!("the nearest handler is for `{near}`"),
        None => "no handler is for anything like it; a `fallback` would take it".to_owned(),
    }
}
