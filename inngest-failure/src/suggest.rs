//! What was probably meant.

/// The candidate that is most like `name`, if any is like it at all.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    const ALIKE: f64 = 0.6;
    candidates
        .into_iter()
        // Each letter more or less is one that differs.
        .filter(|candidate| {
            let (short, long) = (name.len().min(candidate.len()), name.len().max(candidate.len()));
            short as f64 >= ALIKE * long as f64
        })
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_most_alike_is_suggested_and_nothing_strange() {
        let known = ["shop-checkout", "shop-refund", "billing-invoice"];
        assert_eq!(nearest("shop-chekout", known), Some("shop-checkout"));
        assert_eq!(nearest("zzz", known), None);
    }
}
