//! Checkpoints that somebody kept outside the broker, against the log of today.
//!
//! Who holds the signing key and the streams can rewrite both, and sign anew. Not
//! what somebody else kept: an honest log goes on from every state that it ever
//! signed (RFC 6962, section 2.1.2), so its first entries still have that root.

use std::fmt;

use crate::checkpoint::Checkpoint;
use crate::count::{Counted, First};
use crate::hash::Hash;
use crate::tree::Tree;

/// Most kept checkpoints of one check: one a day for 27 years, in about 3 MiB.
pub const KEPT_MAX: usize = 10_000;

/// How the log of today is not one that goes on from a kept checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// At the kept size the log has another root.
    RootDiffers {
        /// Entries that were signed.
        size: u64,
        /// The root that they had.
        kept: Hash,
        /// The root that as many entries have today.
        computed: Hash,
    },
    /// The log has fewer entries than were signed.
    Shorter {
        /// Entries that were signed.
        size: u64,
        /// Entries that there are.
        leaves: u64,
    },
    /// The log has a checkpoint of the same size with another text.
    Contradicted {
        /// Entries that both cover.
        size: u64,
        /// Sequence of the message that holds the log's own.
        checkpoint: u64,
    },
}

impl fmt::Display for Departure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootDiffers { size, kept, computed } => write!(
                formatter,
                "{} root `{computed}`, but `{kept}` was signed: \
                 history was rewritten, or different histories were shown",
                First(*size, "entry has", "entries have")
            ),
            Self::Shorter { size, leaves } => write!(
                formatter,
                "{} signed, but audit ends after {leaves}: \
                 its end was cut off, or different histories were shown",
                Counted(*size, "entry was", "entries were")
            ),
            Self::Contradicted { size, checkpoint } => write!(
                formatter,
                "checkpoint {checkpoint} says something else of {}: \
                 both are signed, so different histories were shown",
                First(*size, "entry", "entries")
            ),
        }
    }
}

/// Kept checkpoints of one log, compared while the log's entries go by once.
#[derive(Debug, Default)]
pub struct KeptCheckpoints {
    tree: Tree,
    kept: Vec<Checkpoint>,
    /// Size and place of each, by size.
    by_size: Vec<(u64, usize)>,
    /// How many of these the tree has reached.
    reached: usize,
    departures: Vec<Option<Departure>>,
}

impl KeptCheckpoints {
    /// Begins with `kept`, whose signatures and origin the caller has checked.
    #[must_use]
    pub fn new(kept: Vec<Checkpoint>) -> Self {
        let departures = vec![None; kept.len()];
        let mut by_size: Vec<_> =
            kept.iter().enumerate().map(|(place, kept)| (kept.size(), place)).collect();
        by_size.sort_unstable();
        let mut checkpoints = Self { tree: Tree::new(), kept, by_size, reached: 0, departures };
        checkpoints.settle();
        checkpoints
    }

    /// Takes the leaf of the next entry, recomputed from header and commitment.
    pub fn entry(&mut self, leaf: Hash) {
        // Behind the largest of them nothing is left to compare.
        if self.reached < self.by_size.len() {
            self.tree.push(leaf);
            self.settle();
        }
    }

    /// Takes a checkpoint of the log itself, whose signature was checked: the
    /// sequence of its message, its size, and the note.
    pub fn signed(&mut self, sequence: u64, size: u64, note: &[u8]) {
        let from = self.by_size.partition_point(|(kept, _)| *kept < size);
        let same_size = self.by_size.iter().skip(from).take_while(|(kept, _)| *kept == size);
        for (_, place) in same_size {
            let body = self.kept.get(*place).map(Checkpoint::to_body).unwrap_or_default();
            let is_same = note.strip_prefix(body.as_bytes()).is_some_and(is_signatures);
            if let Some(departure) = self.departures.get_mut(*place).filter(|_| !is_same) {
                departure.get_or_insert(Departure::Contradicted { size, checkpoint: sequence });
            }
        }
    }

    /// What is wrong with each of the kept checkpoints, in the order in which they
    /// were given; nothing where the log goes on from it.
    #[must_use]
    pub fn finish(mut self) -> Vec<Option<Departure>> {
        let leaves = self.tree.size();
        for (size, place) in self.by_size.iter().copied().skip(self.reached) {
            if let Some(departure) = self.departures.get_mut(place) {
                *departure = Some(Departure::Shorter { size, leaves });
            }
        }
        self.departures
    }

    /// Compares those whose size the tree has.
    fn settle(&mut self) {
        let size = self.tree.size();
        while let Some((_, place)) =
            self.by_size.get(self.reached).filter(|(kept, _)| *kept <= size)
        {
            self.reached += 1;
            let computed = self.tree.root();
            let differs =
                self.kept.get(*place).map(Checkpoint::root).filter(|kept| *kept != computed);
            // What the entries say counts before what another checkpoint says.
            if let (Some(kept), Some(departure)) = (differs, self.departures.get_mut(*place)) {
                *departure = Some(Departure::RootDiffers { size, kept, computed });
            }
        }
    }
}

/// Whether this is what stands behind the text of a note.
fn is_signatures(rest: &[u8]) -> bool {
    rest.first() == Some(&b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::Signer;
    use crate::proof::reference;
    use crate::tree::root_of;

    fn signer() -> Signer {
        Signer::from_seed("log", [1; 32]).unwrap()
    }

    fn kept(leaves: &[Hash], size: usize) -> Checkpoint {
        let sequence = u64::from(size > 0);
        Checkpoint::new("log/0", size as u64, root_of(&leaves[..size]), sequence).unwrap()
    }

    fn compared(kept: Vec<Checkpoint>, leaves: &[Hash]) -> Vec<Option<Departure>> {
        let mut checkpoints = KeptCheckpoints::new(kept);
        leaves.iter().for_each(|leaf| checkpoints.entry(*leaf));
        checkpoints.finish()
    }

    #[test]
    fn another_signed_text_of_the_same_size_is_a_split_view() {
        let leaves = reference::leaves(3);
        let ours = kept(&leaves, 2);
        let same = ours.sign(&signer());
        let other = Checkpoint::new("log/0", 2, root_of(&leaves[..2]), 8).unwrap().sign(&signer());
        let mut checkpoints = KeptCheckpoints::new(vec![ours]);
        leaves.iter().for_each(|leaf| checkpoints.entry(*leaf));

        checkpoints.signed(4, 2, same.as_bytes());
        checkpoints.signed(5, 3, kept(&leaves, 3).sign(&signer()).as_bytes());
        assert_eq!(checkpoints.departures, [None]);
        checkpoints.signed(6, 2, other.as_bytes());

        let split = Departure::Contradicted { size: 2, checkpoint: 6 };
        assert_eq!(checkpoints.finish(), [Some(split)]);
    }

    proptest! {
        #[test]
        fn a_log_goes_on_from_all_that_it_ever_signed(
            size in 0_usize..200, sizes in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let leaves = reference::leaves(size as u64);
            let kept = sizes.iter().map(|at| kept(&leaves, at.index(size + 1))).collect();

            prop_assert!(compared(kept, &leaves).iter().all(Option::is_none));
        }

        #[test]
        fn a_changed_entry_departs_from_all_that_covered_it_and_from_nothing_else(
            size in 1_usize..200, changed: prop::sample::Index, bit: u8,
            sizes in prop::collection::vec(any::<prop::sample::Index>(), 1..9),
        ) {
            let mut leaves = reference::leaves(size as u64);
            let sizes: Vec<_> = sizes.iter().map(|at| at.index(size + 1)).collect();
            let kept = sizes.iter().map(|size| kept(&leaves, *size)).collect();
            let changed = changed.index(size);
            leaves[changed].0[usize::from(bit / 8)] ^= 1 << (bit % 8);

            let departures = compared(kept, &leaves);

            for (size, departure) in sizes.iter().zip(departures) {
                let covered = *size > changed;
                prop_assert_eq!(matches!(departure, Some(Departure::RootDiffers { .. })), covered);
                prop_assert_eq!(departure.is_some(), covered);
            }
        }

        #[test]
        fn a_log_that_was_cut_is_shorter_than_what_was_signed(
            size in 1_usize..200, cut: prop::sample::Index,
        ) {
            let leaves = reference::leaves(size as u64);
            let left = cut.index(size);

            let departures = compared(vec![kept(&leaves, size), kept(&leaves, left)], &leaves[..left]);

            let shorter = Departure::Shorter { size: size as u64, leaves: left as u64 };
            prop_assert_eq!(departures, [Some(shorter), None]);
        }
    }
}
