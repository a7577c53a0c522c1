//! How many there are of something, in words.

use std::fmt;

/// `1 entry` or `2 entries`: a count with its noun, and what of the sentence changes with it.
pub(crate) struct Counted(pub(crate) u64, pub(crate) &'static str, pub(crate) &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, one, many) = self;
        write!(formatter, "{count} {}", if *count == 1 { one } else { many })
    }
}

/// `the first entry` or `the first 2 entries`, with what follows.
pub(crate) struct First(pub(crate) u64, pub(crate) &'static str, pub(crate) &'static str);

impl fmt::Display for First {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(1, one, _) => write!(formatter, "the first {one}"),
            Self(count, _, many) => write!(formatter, "the first {count} {many}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Departure, Finding};

    #[test]
    fn one_thing_is_not_told_as_several() {
        let told = [0, 1, 2].map(|count| Counted(count, "entry", "entries").to_string());
        let first = [1, 2].map(|count| First(count, "entry has", "entries have").to_string());

        assert_eq!(told, ["0 entries", "1 entry", "2 entries"]);
        assert_eq!(first, ["the first entry has", "the first 2 entries have"]);
        let behind = Finding::CheckpointBehind { size: 0, leaves: 1 }.to_string();
        assert_eq!(behind, "the last checkpoint covers 0 of 1 entry");
        let nothing = Finding::NothingSigned { notes: 1, leaves: 1 }.to_string();
        let told = "no checkpoint of this log by the key is among 1 note; 1 entry is not signed";
        assert_eq!(nothing, told);
        let shorter = Departure::Shorter { size: 1, leaves: 0 }.to_string();
        assert!(shorter.starts_with("1 entry was signed, but audit ends after 0:"), "{shorter}");
    }
}
