//! Texts that are left where they stand.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;

/// A JSON string: a piece of the event's text, unless it has escapes.
///
/// A type of its own, since serde borrows in an `Option` only what is one.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl<'a> Text<'a> {
    /// A JSON string's content; of any other JSON, its text.
    pub(super) fn of_any(json: &'a RawValue) -> Self {
        serde_json::from_str(json.get()).unwrap_or(Self(Cow::Borrowed(json.get())))
    }

    /// Itself, if there is something in it.
    pub(super) fn non_empty(self) -> Option<Self> {
        (!self.0.is_empty()).then_some(self)
    }

    pub(super) fn into_string(self) -> String {
        self.0.into_owned()
    }
}

/// The fields of any JSON object; of two of one name the last. `None` of anything else.
pub(super) fn fields(json: &str) -> Option<HashMap<String, &RawValue>> {
    // A map is not read from anything but an object.
    serde_json::from_str(json).ok()
}

/// A [`Text`] by its place in the event's text, which can be kept beside it.
#[derive(Debug)]
pub(super) enum Placed {
    At(Range<usize>),
    Unescaped(String),
}

impl Placed {
    pub(super) fn new(text: &str, part: Text<'_>) -> Self {
        match part.0 {
            Cow::Borrowed(part) => Self::At(place(text, part)),
            Cow::Owned(part) => Self::Unescaped(part),
        }
    }

    pub(super) fn get<'a>(&'a self, text: &'a str) -> &'a str {
        match self {
            Self::At(place) => &text[place.clone()],
            Self::Unescaped(part) => part,
        }
    }
}

/// Where `part`, which was borrowed from `text`, lies in it.
pub(crate) fn place(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}
