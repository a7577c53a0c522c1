//! Going on behind leaves whose records are lost.
//!
//! A journal that lost its end holds fewer records than were signed. Whoever
//! accepts that names the leaves that go without their records, as the roots of
//! the perfect subtrees over them (a *compact range*), and the checkpoint that
//! covers them. Appended to the tree over the records that are left, the
//! subtrees must give the signed root: so nobody can name other leaves, and what
//! is left is shown to be the beginning of what was signed.

use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::Hash;
use crate::key::Verifier;
use crate::tree::{TREE_SIZE_MAX, Tree};

/// Leaves whose records are lost, and what vouches for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss<'bytes> {
    /// Index of the first of them: so many records are left.
    pub from: u64,
    /// Leaves that the checkpoint covers.
    pub signed: u64,
    /// Index behind the last of them. Those from `signed` on were published and not signed.
    pub next: u64,
    /// The checkpoint, a signed note.
    pub checkpoint: &'bytes [u8],
    /// Roots of the subtrees over the leaves up to `signed`, then of those up to
    /// `next`, as [`Subtrees`] makes them.
    pub subtrees: &'bytes [Hash],
}

/// Why a loss is not one that can be gone on behind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LossError {
    /// Nothing is lost, or more was signed than there is.
    #[error("from {from} to {next} with {signed} signed is no loss")]
    Sizes {
        /// The first lost index.
        from: u64,
        /// Leaves that were signed.
        signed: u64,
        /// The index behind the last.
        next: u64,
    },
    /// It does not begin where the records end.
    #[error("the loss begins at record {from}, and {found} records are left")]
    Elsewhere {
        /// The first lost index.
        from: u64,
        /// Records that are left.
        found: u64,
    },
    /// Its checkpoint is none of this log's.
    #[error("the checkpoint is refused")]
    Checkpoint(#[from] CheckpointError),
    /// Its checkpoint is another one than it says.
    #[error("the checkpoint is of `{origin}` at size {size}")]
    OtherCheckpoint {
        /// The log that it names.
        origin: String,
        /// Its size.
        size: u64,
    },
    /// There are other subtrees than such a range has.
    #[error("the lost leaves are {expected} subtrees, not {found}")]
    Subtrees {
        /// How many there must be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The records that are left and the lost leaves do not give the signed root.
    #[error("the leaves do not give the root that was signed for {signed} of them")]
    RootMismatch {
        /// Leaves that were signed.
        signed: u64,
    },
}

impl Loss<'_> {
    /// The tree over the records that are left, `tree`, gone on to behind the lost
    /// leaves. `origin` names the log and `verifiers` sign its checkpoints.
    ///
    /// # Errors
    ///
    /// [`LossError`] unless everything fits and the signed root comes out.
    pub fn extend(
        &self,
        tree: &Tree,
        origin: &str,
        verifiers: &[Verifier],
    ) -> Result<Tree, LossError> {
        let Self { from, signed, next, checkpoint, subtrees } = *self;
        if from >= signed || signed > next || next > TREE_SIZE_MAX {
            return Err(LossError::Sizes { from, signed, next });
        }
        if tree.size() != from {
            return Err(LossError::Elsewhere { from, found: tree.size() });
        }
        let checkpoint = Checkpoint::open(checkpoint, verifiers)?;
        if checkpoint.origin() != origin || checkpoint.size() != signed {
            let (origin, size) = (checkpoint.origin().to_owned(), checkpoint.size());
            return Err(LossError::OtherCheckpoint { origin, size });
        }
        let heights = [heights(from, signed), heights(signed, next)];
        let expected = heights.iter().map(Vec::len).sum();
        if subtrees.len() != expected {
            return Err(LossError::Subtrees { expected, found: subtrees.len() });
        }
        let mut tree = tree.clone();
        let mut roots = subtrees.iter();
        let [to_signed, to_next] = heights;
        let unsigned = LossError::RootMismatch { signed };
        if !append(&mut tree, &to_signed, &mut roots) || tree.root() != checkpoint.root() {
            return Err(unsigned);
        }
        if append(&mut tree, &to_next, &mut roots) { Ok(tree) } else { Err(unsigned) }
    }
}

fn append<'a>(
    tree: &mut Tree,
    heights: &[u32],
    roots: &mut impl Iterator<Item = &'a Hash>,
) -> bool {
    heights.iter().zip(roots).all(|(height, root)| tree.push_subtree(*height, *root))
}

/// Heights of the largest perfect subtrees that make up the leaves `from..to`.
fn heights(from: u64, to: u64) -> Vec<u32> {
    let mut heights = Vec::new();
    let mut position = from;
    while position < to {
        let height = position.trailing_zeros().min((to - position).ilog2());
        heights.push(height);
        position += 1 << height;
    }
    heights
}

/// Collects the roots of the perfect subtrees over a range of leaves.
#[derive(Debug, Clone)]
pub struct Subtrees {
    heights: std::vec::IntoIter<u32>,
    open: Tree,
    height: Option<u32>,
    roots: Vec<Hash>,
}

impl Subtrees {
    /// Those over the leaves `from` to `to`, exclusive: at most 126.
    #[must_use]
    pub fn over(from: u64, to: u64) -> Self {
        let mut heights = heights(from, to.min(TREE_SIZE_MAX)).into_iter();
        let height = heights.next();
        Self { heights, open: Tree::new(), height, roots: Vec::new() }
    }

    /// How many more there are to come.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.heights.len() + usize::from(self.height.is_some())
    }

    /// Takes the next leaf; one behind the range changes nothing.
    pub fn push(&mut self, leaf: Hash) {
        let Some(height) = self.height else { return };
        self.open.push(leaf);
        if self.open.size() == 1 << height {
            self.roots.push(self.open.root());
            self.open = Tree::new();
            self.height = self.heights.next();
        }
    }

    /// Their roots in order; nothing when leaves are missing.
    #[must_use]
    pub fn finish(self) -> Option<Vec<Hash>> {
        self.height.is_none().then_some(self.roots)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::Signer;
    use crate::proof::reference;
    use crate::tree::root_of;

    const ORIGIN: &str = "example.org/audit/0";

    fn signer() -> Signer {
        Signer::from_seed("example.org/audit", [7; 32]).unwrap()
    }

    fn subtrees(leaves: &[Hash], from: u64, signed: u64, next: u64) -> Vec<Hash> {
        let of = |from: u64, to: u64| {
            let mut subtrees = Subtrees::over(from, to);
            leaves[from as usize..to as usize].iter().for_each(|leaf| subtrees.push(*leaf));
            subtrees.finish().unwrap()
        };
        [of(from, signed), of(signed, next)].concat()
    }

    fn note(leaves: &[Hash], origin: &str) -> String {
        let size = leaves.len() as u64;
        Checkpoint::new(origin, size, root_of(leaves), 9).unwrap().sign(&signer())
    }

    fn tree(leaves: &[Hash]) -> Tree {
        let mut tree = Tree::new();
        tree.extend(leaves.iter().copied());
        tree
    }

    /// Three ends of a log, the first before the second.
    fn ends() -> impl Strategy<Value = (u64, u64, u64)> {
        (0_u64..300, 1_u64..300, 0_u64..40)
            .prop_map(|(from, lost, unsigned)| (from, from + lost, from + lost + unsigned))
    }

    proptest! {
        #[test]
        fn the_tree_behind_a_loss_is_that_of_all_leaves((from, signed, next) in ends()) {
            let leaves = reference::leaves(next);
            let checkpoint = note(&leaves[..signed as usize], ORIGIN);
            let subtrees = subtrees(&leaves, from, signed, next);
            prop_assert!(subtrees.len() <= 126);
            let checkpoint = checkpoint.as_bytes();
            let loss = Loss { from, signed, next, checkpoint, subtrees: &subtrees };

            let gone_on = loss.extend(&tree(&leaves[..from as usize]), ORIGIN, &[signer().verifier()]);

            prop_assert_eq!(gone_on, Ok(tree(&leaves)));
        }

        #[test]
        fn whatever_is_changed_up_to_the_signed_end_is_refused(
            (from, signed, next) in ends(),
            at: prop::sample::Index,
            bit: u8,
        ) {
            let mut leaves = reference::leaves(next);
            let checkpoint = note(&leaves[..signed as usize], ORIGIN);
            let at = at.index(signed as usize);
            leaves[at].0[usize::from(bit / 8)] ^= 1 << (bit % 8);
            let subtrees = subtrees(&leaves, from, signed, next);
            let checkpoint = checkpoint.as_bytes();
            let loss = Loss { from, signed, next, checkpoint, subtrees: &subtrees };

            let refused = loss.extend(&tree(&leaves[..from as usize]), ORIGIN, &[signer().verifier()]);

            prop_assert_eq!(refused, Err(LossError::RootMismatch { signed }));
        }
    }

    #[test]
    fn a_loss_that_does_not_fit_is_refused() {
        let leaves = reference::leaves(12);
        let (own, other) = (note(&leaves[..9], ORIGIN), note(&leaves[..9], "example.org/other"));
        let roots = subtrees(&leaves, 4, 9, 12);
        let sound =
            Loss { from: 4, signed: 9, next: 12, checkpoint: own.as_bytes(), subtrees: &roots };
        let left = tree(&leaves[..4]);
        let extend = |loss: Loss<'_>, left: &Tree| {
            loss.extend(left, ORIGIN, &[signer().verifier()]).map(|tree| tree.size())
        };

        assert_eq!(extend(sound, &left), Ok(12));
        assert!(matches!(extend(Loss { from: 9, ..sound }, &left), Err(LossError::Sizes { .. })));
        assert!(matches!(extend(Loss { next: 8, ..sound }, &left), Err(LossError::Sizes { .. })));
        assert!(matches!(extend(sound, &tree(&leaves[..5])), Err(LossError::Elsewhere { .. })));
        let forged = Loss { checkpoint: other.as_bytes(), ..sound };
        assert!(matches!(extend(forged, &left), Err(LossError::OtherCheckpoint { .. })));
        let smaller = Loss { signed: 8, ..sound };
        assert!(matches!(extend(smaller, &left), Err(LossError::OtherCheckpoint { .. })));
        let fewer = Loss { subtrees: &roots[1..], ..sound };
        assert!(matches!(extend(fewer, &left), Err(LossError::Subtrees { .. })));
        let unsigned = Loss { checkpoint: b"nothing", ..sound };
        assert!(matches!(extend(unsigned, &left), Err(LossError::Checkpoint(_))));
    }

    #[test]
    fn leaves_that_are_missing_make_no_subtrees() {
        let mut subtrees = Subtrees::over(3, 8);
        reference::leaves(4).into_iter().for_each(|leaf| subtrees.push(leaf));

        assert_eq!(subtrees.finish(), None);
    }
}
