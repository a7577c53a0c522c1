//! The Merkle tree of RFC 6962, section 2.1 (also RFC 9162, section 2.1), kept
//! as its frontier: the roots of the perfect subtrees from left to right.

use thiserror::Error;

use crate::hash::Hash;

/// Most leaves of a tree: other verifiers hold sizes as signed 64-bit numbers.
/// A larger size is refused wherever one is read; no log can grow to it.
pub const TREE_SIZE_MAX: u64 = i64::MAX as u64;

/// A growing tree in O(log n) memory: one hash per set bit of its size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// Roots of perfect subtrees, the largest (leftmost) first.
    frontier: Vec<Hash>,
}

/// Why a frontier does not make a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrontierError {
    /// A size has one subtree per set bit.
    #[error("a tree of {size} leaves has {expected} frontier hashes, not {found}")]
    Length {
        /// The given size.
        size: u64,
        /// Hashes that this size needs.
        expected: usize,
        /// Hashes that were given.
        found: usize,
    },
    /// The size exceeds [`TREE_SIZE_MAX`].
    #[error("a tree of {size} leaves exceeds {TREE_SIZE_MAX}")]
    TooLarge {
        /// The given size.
        size: u64,
    },
}

impl Tree {
    /// Makes the empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the tree again from what [`Tree::size`] and [`Tree::frontier`] said.
    ///
    /// The frontier is only checked for its shape: compare [`Tree::root`] with a
    /// signed checkpoint before trusting it.
    ///
    /// # Errors
    ///
    /// [`FrontierError`] if no tree of `size` leaves has such a frontier.
    pub fn from_frontier(size: u64, frontier: Vec<Hash>) -> Result<Self, FrontierError> {
        if size > TREE_SIZE_MAX {
            return Err(FrontierError::TooLarge { size });
        }
        // At most 64: fits every usize.
        let expected = size.count_ones() as usize;
        if frontier.len() != expected {
            return Err(FrontierError::Length { size, expected, found: frontier.len() });
        }
        Ok(Self { size, frontier })
    }

    /// Appends a leaf. Amortised two hashes; allocates at most a few times in a
    /// tree's life.
    pub fn push(&mut self, leaf: Hash) {
        self.push_noting(leaf, |_, _, _| {});
    }

    /// Appends a leaf and tells of each perfect subtree that it completes, the leaf
    /// itself first: its level, its number among those of the level, its root.
    pub(crate) fn push_noting(&mut self, leaf: Hash, mut note: impl FnMut(u32, u64, Hash)) {
        let (mut level, mut number, mut node) = (0, self.size, leaf);
        note(level, number, node);
        while number & 1 == 1 {
            let Some(left) = self.frontier.pop() else { break };
            (level, number, node) = (level + 1, number >> 1, node_hash(&left, &node));
            note(level, number, node);
        }
        self.frontier.push(node);
        self.size = self.size.saturating_add(1);
    }

    /// Appends a perfect subtree of 2^`height` leaves, of which only the root is
    /// known. Returns whether it can stand here: the size must be a multiple of
    /// its leaves, and the tree not grow over [`TREE_SIZE_MAX`].
    #[must_use]
    pub(crate) fn push_subtree(&mut self, height: u32, root: Hash) -> bool {
        let leaves = 1_u64.checked_shl(height).unwrap_or(0);
        let size = self.size.checked_add(leaves).filter(|size| *size <= TREE_SIZE_MAX);
        let (Some(size), true) = (size, leaves > 0 && self.size.is_multiple_of(leaves)) else {
            return false;
        };
        let mut node = root;
        let mut before = self.size >> height;
        while before & 1 == 1 {
            let Some(left) = self.frontier.pop() else { break };
            node = node_hash(&left, &node);
            before >>= 1;
        }
        self.frontier.push(node);
        self.size = size;
        true
    }

    /// Returns the number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the roots of the perfect subtrees, the largest first.
    #[must_use]
    pub fn frontier(&self) -> &[Hash] {
        &self.frontier
    }

    /// Computes the root; of the empty tree, the SHA-256 of nothing.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(&self.frontier).unwrap_or_else(|| Hash::of(&[]))
    }
}

/// Joins neighbouring subtrees, the largest first, as at the right edge of a tree.
pub(crate) fn fold(subtrees: &[Hash]) -> Option<Hash> {
    let (last, others) = subtrees.split_last()?;
    Some(others.iter().rfold(*last, |right, left| node_hash(left, &right)))
}

impl Extend<Hash> for Tree {
    fn extend<Leaves: IntoIterator<Item = Hash>>(&mut self, leaves: Leaves) {
        leaves.into_iter().for_each(|leaf| self.push(leaf));
    }
}

/// Computes the root over `leaves`.
#[must_use]
pub fn root_of(leaves: &[Hash]) -> Hash {
    let mut tree = Tree::new();
    tree.extend(leaves.iter().copied());
    tree.root()
}

/// Hashes two children: SHA-256(0x01 ‖ left ‖ right).
pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash::of(&[&[0x01], &left.0, &right.0])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proof::reference;

    #[test]
    fn the_roots_are_those_of_the_certificate_transparency_vectors() {
        let leaves = reference::vector_leaves();
        for (size, root) in reference::VECTOR_ROOTS.iter().enumerate() {
            assert_eq!(root_of(&leaves[..size]).to_string(), *root, "size {size}");
        }
    }

    #[test]
    fn a_frontier_of_another_shape_is_refused() {
        assert_eq!(Tree::from_frontier(0, vec![]), Ok(Tree::new()));
        assert!(Tree::from_frontier(3, vec![Hash([0; 32])]).is_err());
        assert!(Tree::from_frontier(4, vec![Hash([0; 32]); 2]).is_err());
        assert!(Tree::from_frontier(u64::MAX, vec![Hash([0; 32]); 64]).is_err());
    }

    proptest! {
        #[test]
        fn the_incremental_root_is_the_recursive_one(size in 0_u64..600) {
            let leaves = reference::leaves(size);
            prop_assert_eq!(root_of(&leaves), reference::root(&leaves));
        }

        #[test]
        fn a_tree_goes_on_from_its_frontier(size in 0_u64..600, more in 0_u64..40) {
            let leaves = reference::leaves(size + more);
            let (head, tail) = leaves.split_at(size as usize);
            let mut tree = Tree::new();
            tree.extend(head.iter().copied());

            let mut tree = Tree::from_frontier(tree.size(), tree.frontier().to_vec())?;
            tree.extend(tail.iter().copied());

            prop_assert_eq!(tree.root(), root_of(&leaves));
            prop_assert_eq!(tree.size(), size + more);
        }
    }
}
