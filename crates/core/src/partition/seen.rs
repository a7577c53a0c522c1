//! Which source positions have been decided: recognises plain redelivery.

use std::collections::BTreeMap;

use crate::identity::SourcePosition;

/// Words of one message's positions at the most: more than a batch can have, so
/// that no copy makes us take any amount of memory.
const WORDS_MAX: usize = 1 << 16;

/// The decided positions above a floor. The commands of everything at or below
/// the floor were stored before those of who tells it, so it alone answers for
/// them.
///
/// Holds one bit per event above the floor, which rises about once a second:
/// what arrives in that time, and what the intake stages hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenPositions {
    floor: u64,
    above: BTreeMap<u64, Vec<u64>>,
}

impl SeenPositions {
    /// Whether `position` was decided.
    #[must_use]
    pub fn contains(&self, position: SourcePosition) -> bool {
        if position.sequence <= self.floor {
            return true;
        }
        let (word, bit) = place(position.index);
        self.above
            .get(&position.sequence)
            .and_then(|words| words.get(word))
            .is_some_and(|bits| bits & bit != 0)
    }

    /// Marks `position` as decided.
    pub fn insert(&mut self, position: SourcePosition) {
        if position.sequence <= self.floor {
            return;
        }
        let (word, bit) = place(position.index);
        let words = self.above.entry(position.sequence).or_default();
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        if let Some(bits) = words.get_mut(word) {
            *bits |= bit;
        }
    }

    /// Raises the floor to `floor` and forgets what is at or below it.
    pub fn forget_to(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.above = self.above.split_off(&self.floor.saturating_add(1));
    }

    /// A copy: for each word of 64 places that has a decided one its sequence,
    /// its number, and its bits, the least place first.
    pub(super) fn freeze(&self) -> Vec<(u64, u32, u64)> {
        let words = self.above.iter().flat_map(|(sequence, words)| {
            (0..).zip(words).map(move |(number, bits)| (*sequence, number, *bits))
        });
        words.filter(|(_, _, bits)| *bits != 0).collect()
    }

    /// What a copy says above `floor`.
    pub(super) fn restore(floor: u64, words: &[(u64, u32, u64)]) -> Self {
        let mut above: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (sequence, number, bits) in words {
            let words = above.entry(*sequence).or_default();
            let number = *number as usize;
            if words.len() <= number && number < WORDS_MAX {
                words.resize(number + 1, 0);
            }
            if let Some(word) = words.get_mut(number) {
                *word = *bits;
            }
        }
        Self { floor, above }
    }

    /// Messages with decided positions above the floor.
    #[must_use]
    pub fn len(&self) -> usize {
        self.above.len()
    }

    /// Whether nothing is held above the floor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.above.is_empty()
    }
}

fn place(index: u32) -> (usize, u64) {
    ((index / 64) as usize, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_positions_with_a_floor(
            operations in prop::collection::vec((0_u64..20, 0_u32..200, any::<bool>()), 0..200),
        ) {
            let mut seen = SeenPositions::default();
            let mut model = BTreeSet::new();
            let mut floor = 0;
            for (sequence, index, raises) in operations {
                if raises {
                    floor = floor.max(sequence / 2);
                    seen.forget_to(sequence / 2);
                } else {
                    seen.insert(SourcePosition { sequence, index });
                    model.insert((sequence, index));
                }
            }
            for sequence in 0..20 {
                for index in 0..200 {
                    let expected = sequence <= floor || model.contains(&(sequence, index));
                    prop_assert_eq!(seen.contains(SourcePosition { sequence, index }), expected);
                }
            }
        }
    }
}
