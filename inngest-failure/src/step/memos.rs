//! What the server remembers of a run's steps.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use bytestring::ByteString;
use serde_json::value::RawValue;

use super::{memo, pass::Outcome};
use crate::event::place;

/// The memoised steps of a call, each left in the call's body.
#[derive(Default)]
pub(crate) struct Memos {
    body: ByteString,
    /// By their hashed ids.
    places: HashMap<String, Range<usize>>,
}

impl Memos {
    /// The steps in the object at this place of the body.
    pub(crate) fn read(body: ByteString, steps: Range<usize>) -> serde_json::Result<Self> {
        let memos: Option<HashMap<Cow<'_, str>, &RawValue>> = serde_json::from_str(&body[steps])?;
        let places = memos
            .unwrap_or_default()
            .into_iter()
            .map(|(hashed, memo)| (hashed.into_owned(), place(&body, memo.get())))
            .collect();
        Ok(Self { body, places })
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = &String> {
        self.places.keys()
    }

    pub(super) fn contains(&self, hashed: &str) -> bool {
        self.places.contains_key(hashed)
    }

    /// What a step ended with.
    pub(super) fn outcome(&self, hashed: &str) -> Outcome {
        let place = self.places.get(hashed);
        memo::outcome(place.map_or("null", |place| &self.body[place.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_is_found_in_the_body() {
        let body: ByteString = r#"{"steps":{"a":{"data":[1]},"b":null}}"#.into();
        let steps = 9..body.len() - 1;
        let memos = Memos::read(body, steps).unwrap();
        assert_eq!(memos.outcome("a"), Ok("[1]".to_owned()));
        assert_eq!(memos.outcome("b"), Ok("null".to_owned()));
        assert!(!memos.contains("c"));
    }
}
