//! Which letters are meant.

use std::io;

use super::name;
use crate::{
    cli::{Fatal, args},
    dead_letter::{DeadLetter, JsonLines},
};

/// Which letters are meant.
pub(super) enum Wanted<'a> {
    Named(&'a [String]),
    OfHandler(&'a str),
    All,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(which: &'a args::Which) -> Self {
        match &which.handler {
            Some(handler) => Self::OfHandler(handler),
            None if which.all => Self::All,
            None => Self::Named(&which.which),
        }
    }

    /// The place of the name that means the letter, if names are given.
    fn name_of(&self, letter: &DeadLetter) -> Option<usize> {
        let Self::Named(names) = self else { return None };
        let name = name(letter);
        let means =
            |wanted: &String| !wanted.is_empty() && name.starts_with(&wanted.to_ascii_lowercase());
        names.iter().position(means)
    }

    pub(super) fn means(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::OfHandler(handler) => letter.handler_id == *handler,
            Self::Named(_) => self.name_of(letter).is_some(),
        }
    }

    /// How many letters are meant. Each that is named is there, once.
    pub(super) fn check(&self, file: &JsonLines) -> Result<u64, Fatal> {
        let mut number = 0;
        let mut hits = match self {
            Self::Named(names) => vec![0; names.len()],
            _ => Vec::new(),
        };
        for letter in self.letters(file)? {
            number += 1;
            if let Some(name) = self.name_of(&letter?) {
                hits[name] += 1;
            }
        }
        let Self::Named(names) = self else { return Ok(number) };
        for (name, hits) in names.iter().zip(hits) {
            match hits {
                1 => {}
                0 => {
                    return Err(Fatal::new(format!(
                        "there is no dead letter `{name}` in `{}`; `dead-letters list` shows those that there are",
                        file.path().display()
                    )));
                }
                _ => {
                    return Err(Fatal::new(format!(
                        "`{name}` is the beginning of {hits} dead letters' names; give more of it"
                    )));
                }
            }
        }
        Ok(number)
    }

    /// The letters that are meant, in the order of the file, each read when it is its turn.
    pub(super) fn letters(
        &self,
        file: &JsonLines,
    ) -> Result<impl Iterator<Item = io::Result<DeadLetter>>, Fatal> {
        let is_meant = |letter: &io::Result<DeadLetter>| {
            letter.as_ref().map_or(true, |letter| self.means(letter))
        };
        Ok(file.letters()?.filter(is_meant))
    }
}
