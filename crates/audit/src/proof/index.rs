//! What is kept of a large tree, so that any of its leaves can be proven without all leaves at hand.

use crate::hash::Hash;
use crate::proof::ProofError;
use crate::proof::prover::{Sibling, siblings};
use crate::tree::{Tree, fold, root_of};

/// Level of the smallest subtrees that are kept.
const BLOCK_LEVEL: u32 = 8;

/// Leaves of a block: what a proof needs at hand of the leaves themselves. A tree of so many
/// blocks keeps 64 bytes for each.
pub const BLOCK_LEAVES: u64 = 1 << BLOCK_LEVEL;

/// The roots of all perfect subtrees of [`BLOCK_LEAVES`] leaves and more, as they are the tiles of a
/// tiled log (C2SP `tlog-tiles`): a quarter of a byte per leaf.
///
/// It proves leaves in this tree and in every tree that it once was.
///
/// ```
/// use fermata_audit::{Hash, TreeIndex, verify_inclusion};
///
/// let leaves = [Hash([0; 32]), Hash([1; 32]), Hash([2; 32])];
/// let mut index = TreeIndex::default();
/// leaves.iter().for_each(|leaf| index.push(*leaf));
///
/// let tree = index.tree_of(3, &leaves)?;
/// let path = tree.path(1, &leaves)?;
/// verify_inclusion(&leaves[1], 1, 3, &path, &tree.root())?;
/// # Ok::<(), fermata_audit::ProofError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct TreeIndex {
    tree: Tree,
    /// By level above that of blocks, from left to right.
    levels: Vec<Vec<Hash>>,
}

/// A tree that the index knows, of a certain size.
#[derive(Debug)]
pub struct TreeOfSize<'a> {
    index: &'a TreeIndex,
    size: u64,
    frontier: Vec<Hash>,
}

impl TreeIndex {
    /// Takes the next leaf.
    pub fn push(&mut self, leaf: Hash) {
        let levels = &mut self.levels;
        self.tree.push_noting(leaf, |level, _, root| {
            let Some(above) = level.checked_sub(BLOCK_LEVEL) else { return };
            // Subtrees of a level are completed from left to right, and at most 55 levels come so.
            if levels.len() <= above as usize {
                levels.resize_with(above as usize + 1, Vec::new);
            }
            if let Some(roots) = levels.get_mut(above as usize) {
                roots.push(root);
            }
        });
    }

    /// How many leaves it has taken.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The tree of the first `size` leaves. `last` are the leaves of its last block, of which there are
    /// none where blocks fill it.
    ///
    /// # Errors
    ///
    /// [`ProofError::TooFewLeaves`] if fewer have been taken, or `last` has another number.
    pub fn tree_of(&self, size: u64, last: &[Hash]) -> Result<TreeOfSize<'_>, ProofError> {
        let taken = self.size();
        if size > taken || last.len() as u64 != size % BLOCK_LEAVES {
            let leaves = (size - size % BLOCK_LEAVES).min(taken).saturating_add(last.len() as u64);
            return Err(ProofError::TooFewLeaves { size, leaves });
        }
        let mut frontier = Vec::new();
        let mut rest = last;
        for level in (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1) {
            // The subtree that ends where the bits from `level` up end.
            let number = (size >> level) - 1;
            let root = match level < BLOCK_LEVEL {
                true => rest.split_at_checked(1 << level).map(|(subtree, behind)| {
                    rest = behind;
                    root_of(subtree)
                }),
                false => self.root(level, number),
            };
            frontier.push(root.ok_or(ProofError::TooFewLeaves { size, leaves: taken })?);
        }
        Ok(TreeOfSize { index: self, size, frontier })
    }

    fn root(&self, level: u32, number: u64) -> Option<Hash> {
        let roots = self.levels.get(level.checked_sub(BLOCK_LEVEL)? as usize)?;
        roots.get(usize::try_from(number).ok()?).copied()
    }
}

impl TreeOfSize<'_> {
    /// Its root, to be compared with what was signed.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(&self.frontier).unwrap_or_else(|| Hash::of(&[]))
    }

    /// The hashes beside the way of leaf `index`, from its sibling to the root's child; `block` are
    /// the leaves of its block that are in this tree.
    ///
    /// # Errors
    ///
    /// [`ProofError::OutsideTree`] if the tree has no such leaf, [`ProofError::TooFewLeaves`] if `block`
    /// is not all of its block.
    pub fn path(&self, index: u64, block: &[Hash]) -> Result<Vec<Hash>, ProofError> {
        let size = self.size;
        if index >= size {
            return Err(ProofError::OutsideTree { index, size });
        }
        let first = index - index % BLOCK_LEAVES;
        let root_of_node = |sibling| match sibling {
            Sibling::Perfect(level, number) if level < BLOCK_LEVEL => {
                let from = usize::try_from((number << level).checked_sub(first)?).ok()?;
                block.get(from..from + (1 << level)).map(root_of)
            }
            Sibling::Perfect(level, number) => self.index.root(level, number),
            Sibling::Edge(level) => {
                let larger = (size >> level).count_ones() as usize;
                fold(self.frontier.get(larger..)?)
            }
        };
        let path = siblings(index, size).into_iter().map(root_of_node).collect::<Option<_>>();
        path.ok_or(ProofError::TooFewLeaves {
            size,
            leaves: first.saturating_add(block.len() as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proof::{reference, verify_inclusion};

    fn index_of(leaves: &[Hash]) -> TreeIndex {
        let mut index = TreeIndex::default();
        leaves.iter().for_each(|leaf| index.push(*leaf));
        index
    }

    /// The leaves of the block of `at` in a tree of `size`.
    fn block(leaves: &[Hash], at: u64, size: u64) -> &[Hash] {
        let first = at - at % BLOCK_LEAVES;
        &leaves[first as usize..(first + BLOCK_LEAVES).min(size) as usize]
    }

    fn last(leaves: &[Hash], size: u64) -> &[Hash] {
        &leaves[(size - size % BLOCK_LEAVES) as usize..size as usize]
    }

    proptest! {
        #[test]
        fn it_proves_what_the_whole_tree_proves_now_and_at_every_size_before(
            taken in 1_u64..2_200,
            size in any::<prop::sample::Index>(),
            asked in prop::collection::vec(any::<prop::sample::Index>(), 1..10),
        ) {
            let leaves = reference::leaves(taken);
            let index = index_of(&leaves);
            let size = size.index(leaves.len()) as u64 + 1;
            let before = &leaves[..size as usize];

            let tree = index.tree_of(size, last(&leaves, size))?;

            prop_assert_eq!(tree.root(), reference::root(before));
            for at in asked {
                let at = at.index(before.len()) as u64;
                let path = tree.path(at, block(&leaves, at, size))?;
                prop_assert_eq!(&path, &reference::path(at as usize, before));
                verify_inclusion(&leaves[at as usize], at, size, &path, &tree.root())?;
            }
        }

        #[test]
        fn leaves_that_are_not_at_hand_are_missed_and_never_guessed(
            taken in 1_u64..700,
            missing in 1_usize..300,
            at in any::<prop::sample::Index>(),
        ) {
            let leaves = reference::leaves(taken);
            let index = index_of(&leaves);
            let (size, at) = (taken, at.index(leaves.len()) as u64);
            let tree = index.tree_of(size, last(&leaves, size))?;
            let block = block(&leaves, at, size);

            let path = tree.path(at, &block[..block.len().saturating_sub(missing)]);

            // What is missing may lie in no sibling.
            prop_assert!(path.is_err() || path == Ok(reference::path(at as usize, &leaves)));
            prop_assert!(index.tree_of(size + 1, last(&leaves, size)).is_err());
        }
    }

    #[test]
    fn the_empty_tree_has_a_root_and_no_leaf() {
        let index = TreeIndex::default();
        let tree = index.tree_of(0, &[]).unwrap();

        assert_eq!(tree.root(), Hash::of(&[]));
        assert_eq!(tree.path(0, &[]), Err(ProofError::OutsideTree { index: 0, size: 0 }));
    }

    #[test]
    fn a_tree_keeps_two_hashes_for_each_block_and_none_for_a_leaf() {
        let index = index_of(&reference::leaves(64 * BLOCK_LEAVES + 255));

        let kept: usize = index.levels.iter().map(Vec::len).sum();

        assert_eq!(kept, 64 + 32 + 16 + 8 + 4 + 2 + 1);
    }
}
