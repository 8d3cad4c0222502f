//! How many runs may start in a period.

use std::{fmt, time::Duration};

/// At most `limit` runs in each `period`.
///
/// Its `Display` is as in the attribute: `10/1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// How many, at least one.
    pub limit: u32,
    /// In how long: whole seconds, at least one.
    pub period: Duration,
}

impl Rate {
    /// The period in the largest unit that it is a whole number of: `1m`, `90s`.
    pub(crate) fn period(&self) -> String {
        let seconds = self.period.as_secs();
        let units = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "m")];
        let unit = units.into_iter().find(|(size, _)| seconds.is_multiple_of(*size));
        let (size, unit) = unit.unwrap_or((1, "s"));
        format!("{}{unit}", seconds / size)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.limit, self.period())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_shown_as_it_is_written() {
        let shown =
            |limit, seconds| Rate { limit, period: Duration::from_secs(seconds) }.to_string();
        assert_eq!(shown(10, 60), "10/1m");
        assert_eq!(shown(1, 90), "1/90s");
        assert_eq!(shown(1, 24 * 60 * 60), "1/1d");
        assert_eq!(shown(3, 2 * 60 * 60), "3/2h");
    }
}
