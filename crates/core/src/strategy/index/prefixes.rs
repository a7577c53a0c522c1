//! Which of many texts a text begins with.

use super::pile::{Pile, Together};

/// A trie laid out in order: each text knows the longest other one that it
/// begins with. All that a text begins with are then one chain, whose end is
/// found by halving.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    /// Ascending once frozen.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    ranks: Vec<u32>,
    /// Place of the longest other entry that is a beginning of this one.
    shorter: Option<usize>,
}

impl Prefixes {
    pub fn insert(&mut self, text: Box<[u8]>, rank: u32) {
        self.entries.push(Entry { text, ranks: vec![rank], shorter: None });
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn freeze(&mut self) {
        self.entries.sort_by(|one, two| one.text.cmp(&two.text));
        self.entries.dedup_by(|later, kept| {
            let same = later.text == kept.text;
            if same {
                kept.ranks.append(&mut later.ranks);
            }
            same
        });
        // In ascending order the beginnings of an entry stand before it, and
        // those of its predecessor are the only ones that can be its own.
        for place in 1..self.entries.len() {
            let Some(text) = self.entries.get(place).map(|entry| &entry.text) else { continue };
            let shorter = self.chain(Some(place - 1), text).next().map(|(place, _)| place);
            if let Some(entry) = self.entries.get_mut(place) {
                entry.shorter = shorter;
            }
        }
    }

    /// Adds the ranks of all texts that `text` begins with.
    pub fn collect(&self, text: &[u8], found: &mut Vec<u32>) {
        let after = self.entries.partition_point(|entry| *entry.text <= *text);
        for (_, entry) in self.chain(after.checked_sub(1), text) {
            found.extend(&entry.ranks);
        }
    }

    /// What one text can begin with at most.
    pub fn heaviest(&self, weight: &impl Fn(u32) -> u64) -> Pile {
        let ranks = |place: &usize| self.entries.get(*place).map_or(&[][..], |entry| &entry.ranks);
        let (mut together, mut most, mut heaviest) = (Together::default(), 0, None);
        let mut chain: Vec<usize> = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            while chain.last() != entry.shorter.as_ref() {
                let Some(left) = chain.pop() else { break };
                ranks(&left).iter().for_each(|rank| together.remove(*rank, weight));
            }
            chain.push(place);
            entry.ranks.iter().for_each(|rank| together.add(*rank, weight));
            if together.weight > most {
                (most, heaviest) = (together.weight, Some((place, entry)));
            }
        }
        let Some((place, entry)) = heaviest else { return Pile::default() };
        let chain = self.chain(Some(place), &entry.text);
        let ranks = chain.flat_map(|(_, entry)| entry.ranks.iter().copied()).collect();
        Pile { weight: most, ranks }
    }

    /// From `place` along shorter and shorter entries, those that `text` begins with.
    fn chain(&self, place: Option<usize>, text: &[u8]) -> impl Iterator<Item = (usize, &Entry)> {
        let entry = |place: usize| self.entries.get(place).map(|entry| (place, entry));
        std::iter::successors(place.and_then(entry), move |(_, longer)| {
            longer.shorter.and_then(entry)
        })
        .filter(move |(_, candidate)| text.starts_with(&candidate.text))
    }
}
