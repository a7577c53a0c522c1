//! Did you mean …?

/// Longest word that is looked up, in characters; longer ones are no typing errors.
const WORD_CHARACTERS_MAX: usize = 64;
/// Most candidates that one word of a document is compared with: a document may have many words.
const CANDIDATES_MAX: usize = 1_000;

/// The candidate that `word` was probably meant to be, among the first 1,000.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    closest_of_all(word, candidates.into_iter().take(CANDIDATES_MAX))
}

/// The same among all of them, for one word that a person typed: a wrong name of thousands is worse than
/// some milliseconds.
pub fn closest_of_all<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let length = word.chars().count();
    if length > WORD_CHARACTERS_MAX {
        return None;
    }
    let tolerated = if length <= 4 { 1 } else { 2 };
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count() <= WORD_CHARACTERS_MAX)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerated)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A hint that names the closest candidate.
pub(crate) fn hint<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    closest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// Insertions, deletions, replacements and swaps of neighbours between two
/// words (optimal string alignment), one row of the table at a time.
fn distance(one: &str, two: &str) -> usize {
    let (one, two): (Vec<char>, Vec<char>) = (one.chars().collect(), two.chars().collect());
    let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=two.len()).collect();
    for (line, left) in one.iter().enumerate() {
        let mut row = vec![line + 1];
        for (column, right) in two.iter().enumerate() {
            let replaced = at(&last, column) + usize::from(left != right);
            let inserted = at(&row, column) + 1;
            let deleted = at(&last, column + 1) + 1;
            let swaps = line > 0
                && column > 0
                && one.get(line - 1) == Some(right)
                && two.get(column - 1) == Some(left);
            let swapped = if swaps { at(&before_last, column - 1) + 1 } else { usize::MAX };
            row.push(replaced.min(inserted).min(deleted).min(swapped));
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_is_recognised() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("paht", "path"), 1);
        assert_eq!(closest("depend_on", ["when", "depends_on"]), Some("depends_on"));
        assert_eq!(closest("banana", ["when", "depends_on"]), None);
    }

    #[test]
    fn what_a_person_typed_is_looked_for_among_thousands() {
        let names = (0..6_000).map(|number| format!("orders-of-shop-{number:04}"));
        let names = names.collect::<Vec<_>>();
        let all = || names.iter().map(String::as_str);

        // Two slips are as many as are tolerated: no other number is near.
        let typed = "ordes-of-shp-5999";

        assert_eq!(closest_of_all(typed, all()), Some("orders-of-shop-5999"));
        assert_eq!(closest(typed, all()), None);
    }
}
