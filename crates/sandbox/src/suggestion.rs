//! The known word that was probably meant by an unknown one. It only suggests; nothing is ever accepted in its place.

/// The word in `known` that is nearest to `word`, if it is near at all.
pub(crate) fn nearest(word: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let distances = known.into_iter().map(|known| (strsim::damerau_levenshtein(known, &word), known));
    distances.min().filter(|(distance, known)| *distance <= known.len() / 3 + 1).map(|(_, known)| known)
}

/// The suggestion as the tail of a sentence.
pub(crate) fn hint(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(" (did you mean `{nearest}`?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        let known = ["mailbox", "tenant", "rate"];
        assert_eq!(nearest("mailbxo", known), Some("mailbox"));
        assert_eq!(nearest("Rate", known), Some("rate"));
        assert_eq!(nearest("frobnicate", known), None);
        assert_eq!(hint(nearest("tenat", known)), " (did you mean `tenant`?)");
        assert_eq!(hint(None), "");
    }
}
