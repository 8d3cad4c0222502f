//! Finding the handlers of a failure at a cost that does not grow with their number.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::{Selector, Subject, Target};

/// All selectors, by what a function id can be looked up with. Handlers are numbers: the position
/// of their selector.
#[derive(Debug, Default)]
pub(crate) struct Index {
    selectors: Vec<Selector>,
    exact: HashMap<String, Vec<usize>>,
    patterns: Patterns,
    every: Vec<usize>,
    fallbacks: Vec<usize>,
}

/// The handlers of one failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// In ascending order.
    pub(crate) handlers: SmallVec<[usize; 4]>,
    /// Neither a handler that names the function nor a fallback takes the failure.
    pub(crate) unhandled: bool,
}

impl Index {
    pub(crate) fn new(selectors: Vec<Selector>) -> Self {
        let mut index = Self::default();
        for (i, selector) in selectors.iter().enumerate() {
            match &selector.target {
                Target::Named(glob) => match (glob.exact(), glob.split()) {
                    (Some(id), _) => index.exact.entry(id.to_owned()).or_default().push(i),
                    (None, Some((prefix, _, suffix))) => index.patterns.insert(prefix, suffix, i),
                    (None, None) => unreachable!("a glob is one piece or several"),
                },
                Target::Every { .. } => index.every.push(i),
                Target::Fallback { .. } => index.fallbacks.push(i),
            }
        }
        index.selectors = selectors;
        index
    }

    pub(crate) fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    pub(crate) fn select(&self, subject: Subject<'_>) -> Selection {
        let takes = |&i: &usize| self.selectors[i].matches(subject);
        let admits = |&i: &usize| self.selectors[i].admits(subject);
        let mut handlers = SmallVec::new();

        let exact = self.exact.get(subject.function_id).map_or(&[][..], Vec::as_slice);
        handlers.extend(exact.iter().copied().filter(admits));
        self.patterns.candidates(subject.function_id, |candidates| {
            handlers.extend(candidates.iter().copied().filter(takes));
        });
        if handlers.is_empty() {
            handlers.extend(self.fallbacks.iter().copied().filter(takes));
        }
        let unhandled = handlers.is_empty();
        handlers.extend(self.every.iter().copied().filter(takes));
        handlers.sort_unstable();
        Selection { handlers, unhandled }
    }
}

/// Patterns by what stands before their first star, then by what stands after their last one.
///
/// A look-up tries each length that a prefix has, and then each that a suffix below it has: the
/// number of different lengths counts, not the number of patterns. Those that share both are then tried
/// one after the other.
#[derive(Debug, Default)]
struct Patterns {
    by_prefix: ByAffix<ByAffix<Vec<usize>>>,
}

#[derive(Debug)]
struct ByAffix<V> {
    /// In ascending order.
    lengths: Vec<usize>,
    values: HashMap<String, V>,
}

impl<V> Default for ByAffix<V> {
    fn default() -> Self {
        Self { lengths: Vec::new(), values: HashMap::new() }
    }
}

impl<V: Default> ByAffix<V> {
    fn entry(&mut self, affix: &str) -> &mut V {
        if let Err(position) = self.lengths.binary_search(&affix.len()) {
            self.lengths.insert(position, affix.len());
        }
        self.values.entry(affix.to_owned()).or_default()
    }

    /// The values under `affix(length)` for each length, as long as there is one.
    fn find<'a>(
        &'a self,
        affix: impl Fn(usize) -> Option<&'a str>,
    ) -> impl Iterator<Item = (usize, &'a V)> {
        self.lengths
            .iter()
            .filter_map(move |&length| Some((length, self.values.get(affix(length)?)?)))
    }
}

impl Patterns {
    fn insert(&mut self, prefix: &str, suffix: &str, i: usize) {
        self.by_prefix.entry(prefix).entry(suffix).push(i);
    }

    /// Hands over every pattern that `id` begins and ends like, and perhaps matches.
    fn candidates<'a>(&'a self, id: &'a str, mut found: impl FnMut(&'a [usize])) {
        for (length, by_suffix) in self.by_prefix.find(|length| id.get(..length)) {
            let rest = &id[length..];
            let suffix = |length| rest.get(rest.len().checked_sub(length)?..);
            for (_, patterns) in by_suffix.find(suffix) {
                found(patterns);
            }
        }
    }
}
