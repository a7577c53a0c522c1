//! Ids that were nearly typed right.

use fermata_core::identity::RunId;

/// Digits that may be wrong.
const DIGITS_OFF_MAX: usize = 3;

/// Ids that are suggested.
const SUGGESTIONS_MAX: usize = 3;

/// The ids nearest to one that is looked for.
#[derive(Debug, Clone)]
pub struct NearIds {
    wanted: [u8; 16],
    found: Vec<(usize, RunId)>,
}

impl NearIds {
    /// None yet.
    #[must_use]
    pub fn of(wanted: RunId) -> Self {
        Self { wanted: *wanted.as_uuid().as_bytes(), found: Vec::new() }
    }

    /// Keeps `other` if it is among the nearest.
    pub fn look_at(&mut self, other: RunId) {
        let digits = |wanted: u8, found: u8| {
            let differ = wanted ^ found;
            usize::from(differ & 0xf0 != 0) + usize::from(differ & 0x0f != 0)
        };
        let bytes = *other.as_uuid().as_bytes();
        let off = self.wanted.iter().zip(bytes).map(|(wanted, found)| digits(*wanted, found)).sum();
        if off > DIGITS_OFF_MAX {
            return;
        }
        self.found.push((off, other));
        self.found.sort();
        self.found.truncate(SUGGESTIONS_MAX);
    }

    /// The nearest first.
    #[must_use]
    pub fn found(self) -> Vec<RunId> {
        self.found.into_iter().map(|(_, run)| run).collect()
    }
}

/// The question whether one of these was meant; nothing when there are none.
#[must_use]
pub fn did_you_mean(near: &[RunId]) -> Option<String> {
    fermata_definitions::meant(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> RunId {
        text.parse().unwrap()
    }

    #[test]
    fn ids_that_are_a_few_digits_off_are_suggested_the_nearest_first() {
        let mut near = NearIds::of(id("0003c0de-0000-8000-8000-000000000000"));
        let two_off = id("0003c0de-0000-8000-8000-000000000012");
        let one_off = id("0003c0de-0000-8000-8000-000000000010");
        for other in [two_off, one_off, id("0003ffff-0000-8000-8000-000000000010")] {
            near.look_at(other);
        }

        let found = near.found();

        assert_eq!(found, [one_off, two_off]);
        let question = did_you_mean(&found).unwrap();
        assert!(question.contains(&one_off.to_string()), "{question}");
        assert_eq!(did_you_mean(&[]), None);
    }
}
