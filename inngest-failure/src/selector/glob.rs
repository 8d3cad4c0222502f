//! A function id, or a pattern of function ids in which `*` is any run of characters.

use std::fmt;

/// The literal pieces between the stars: one for an exact id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    pieces: Vec<String>,
}

impl Glob {
    /// `function` is relative to `app`, whose id is data even if it holds a `*`.
    pub(crate) fn new(app: Option<&str>, function: &str) -> Self {
        let mut pieces: Vec<String> = function.split('*').map(str::to_owned).collect();
        // Two stars in a row are one.
        let last = pieces.len() - 1;
        let mut position = 0;
        pieces.retain(|piece| {
            let inner = position != 0 && position != last;
            position += 1;
            !inner || !piece.is_empty()
        });
        if let Some(app) = app {
            pieces[0] = format!("{app}-{}", pieces[0]);
        }
        Self { pieces }
    }

    /// The id, if there is no star in it.
    pub(crate) fn exact(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [id] => Some(id),
            _ => None,
        }
    }

    pub(super) fn pieces(&self) -> &[String] {
        &self.pieces
    }

    /// What stands before the first star, between the stars, and after the last one.
    ///
    /// An exact id has no star: it is not split.
    pub(super) fn split(&self) -> Option<(&str, &[String], &str)> {
        match self.pieces.as_slice() {
            [first, middle @ .., last] => Some((first, middle, last)),
            _ => None,
        }
    }

    pub(crate) fn matches(&self, id: &str) -> bool {
        let Some((prefix, middle, suffix)) = self.split() else {
            return self.exact() == Some(id);
        };
        let Some(mut rest) = id.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix))
        else {
            return false;
        };
        // The leftmost place for each piece leaves the most room for those that follow.
        middle.iter().all(|piece| match rest.split_once(piece.as_str()) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, piece) in self.pieces.iter().enumerate() {
            if i > 0 {
                f.write_str("*")?;
            }
            f.write_str(piece)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob = Glob::new(None, pattern);
        for id in yes {
            assert!(glob.matches(id), "`{pattern}` should match `{id}`");
        }
        for id in no {
            assert!(!glob.matches(id), "`{pattern}` should not match `{id}`");
        }
    }

    #[test]
    fn exact_ids_match_themselves_alone() {
        check(
            "shop-checkout",
            &["shop-checkout"],
            &["shop-checkout2", "shop-check", "", "SHOP-checkout"],
        );
    }

    #[test]
    fn a_star_is_any_run_of_characters() {
        check("shop-*", &["shop-", "shop-a", "shop-a\nb"], &["shop", "eshop-a"]);
        check("*-report", &["a-report", "-report"], &["report", "a-report-b"]);
        check("a*b*c", &["abc", "aXbYc", "abbcc", "a*b*c"], &["ab", "acb", "abcd"]);
        check("a**b", &["ab", "aXb"], &["a", "ba"]);
    }

    #[test]
    fn prefix_and_suffix_do_not_overlap() {
        check("aba*ba", &["ababa", "abaXba"], &["aba"]);
        check("a*a", &["aa"], &["a"]);
    }

    #[test]
    fn a_middle_piece_is_not_found_in_the_suffix() {
        check("a*xy*y", &["axyy"], &["axy"]);
    }

    #[test]
    fn the_app_is_data() {
        let glob = Glob::new(Some("a*"), "b*");
        assert!(glob.matches("a*-bc"));
        assert!(!glob.matches("aX-bc"));
        assert_eq!(Glob::new(Some("a*"), "b").exact(), Some("a*-b"));
    }
}
