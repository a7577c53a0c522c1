//! Did you mean …?

use std::collections::BTreeSet;
use std::fmt::Display;

/// Longest word that is looked up, in characters; longer ones are no typing errors.
const WORD_CHARACTERS_MAX: usize = 64;
/// Most candidates that one word of a document is compared with: a document may have many words.
const CANDIDATES_MAX: usize = 1_000;
/// Most candidates that are named where several are equally near: with more, none of them is a guess.
const NAMED_MAX: usize = 3;

/// The question which of the candidates `word` was probably meant to be: the nearest ones, of all, for one word
/// that a person typed. A wrong name of thousands is worse than some milliseconds.
pub fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    meant(nearest(word, candidates))
}

/// The question whether one of these was meant; nothing when there are none.
pub fn meant(named: impl IntoIterator<Item = impl Display>) -> Option<String> {
    let mut named: Vec<_> = named.into_iter().map(|name| format!("`{name}`")).collect();
    let last = named.pop()?;
    if named.is_empty() {
        return Some(format!("did you mean {last}?"));
    }
    Some(format!("did you mean {} or {last}?", named.join(", ")))
}

/// The candidates to which `word` is nearest, and equally near, in the order of the alphabet; the first three
/// where there are more, and none where none is near.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Vec<&'c str> {
    let length = word.chars().count();
    if length > WORD_CHARACTERS_MAX {
        return Vec::new();
    }
    let mut tolerated = if length <= 4 { 1 } else { 2 };
    let mut near = BTreeSet::new();
    for candidate in candidates {
        if candidate.chars().count() > WORD_CHARACTERS_MAX {
            continue;
        }
        let distance = distance(word, candidate);
        if distance < tolerated {
            near.clear();
        }
        if distance <= tolerated {
            tolerated = distance;
            near.insert(candidate);
        }
        if near.len() > NAMED_MAX {
            near.pop_last();
        }
    }
    near.into_iter().collect()
}

/// A hint for a word of a document, which is compared with the first 1,000 candidates.
pub(crate) fn hint<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<String> {
    did_you_mean(word, candidates.into_iter().take(CANDIDATES_MAX))
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
        assert_eq!(nearest("depend_on", ["when", "depends_on"]), ["depends_on"]);
        assert!(nearest("banana", ["when", "depends_on"]).is_empty());
    }

    #[test]
    fn of_several_that_are_equally_near_none_is_told_as_if_it_were_the_one() {
        let asked = |word, candidates: &[&'static str]| {
            did_you_mean(word, candidates.iter().copied()).unwrap_or_default()
        };

        let two = ["orders-us", "bills", "orders-eu", "orders-eu"];
        assert_eq!(asked("orders-xu", &two), "did you mean `orders-eu`?");
        assert_eq!(asked("orders-xx", &two), "did you mean `orders-eu` or `orders-us`?");
        let many = ["shop-4", "shop-3", "shop-2", "shop-1", "shop-0"];
        assert_eq!(asked("shop-9", &many), "did you mean `shop-0`, `shop-1` or `shop-2`?");
        // One that is nearer than they is the one.
        let nearer = [&many[..], &["shops-9"], &many].concat();
        assert_eq!(asked("shops-8", &nearer), "did you mean `shops-9`?");
        assert_eq!(asked("cart", &many), "");
    }

    #[test]
    fn what_a_person_typed_is_looked_for_among_thousands() {
        let names = (0..6_000).map(|number| format!("orders-of-shop-{number:04}"));
        let names = names.collect::<Vec<_>>();
        let all = || names.iter().map(String::as_str);
        // Two slips are as many as are tolerated: no other number is near.
        let typed = "ordes-of-shp-5999";

        assert_eq!(nearest(typed, all()), ["orders-of-shop-5999"]);
        assert_eq!(hint(typed, all()), None);
    }
}
