//! Inclusion and consistency proofs of RFC 6962, section 2.1 (verification as in
//! RFC 9162, sections 2.1.3.2 and 2.1.4.2).
//!
//! A proof binds to a root, and the root to its size only by the checkpoint that
//! signs both: verify against the size and the root of one checkpoint.

mod index;
mod prover;

use thiserror::Error;

pub use index::{BLOCK_LEAVES, TreeIndex, TreeOfSize};
pub use prover::{Inclusion, PROOFS_MAX, Proofs, Prover};

use crate::hash::Hash;
use crate::tree::{Tree, node_hash, root_of};

/// Why a proof could not be made or does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The leaf lies outside the tree.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    OutsideTree {
        /// Asked leaf.
        index: u64,
        /// Size of the tree.
        size: u64,
    },
    /// The tree is larger than the leaves at hand.
    #[error("a tree of {size} leaves cannot be built from {leaves}")]
    TooFewLeaves {
        /// Asked size.
        size: u64,
        /// Leaves at hand.
        leaves: u64,
    },
    /// A log only grows.
    #[error("a tree of {old} leaves is no predecessor of one of {new}")]
    Shrinks {
        /// Size of the older tree.
        old: u64,
        /// Size of the newer tree.
        new: u64,
    },
    /// The proof has more or fewer hashes than the sizes call for.
    #[error("a proof of {found} hashes has the wrong length")]
    Length {
        /// Hashes in the proof.
        found: usize,
    },
    /// The proof leads to another root.
    #[error("the proof leads to root `{computed}`, not to `{expected}`")]
    RootDiffers {
        /// Root that was to be proven.
        expected: Hash,
        /// Root that the proof gives.
        computed: Hash,
    },
    /// More leaves than [`PROOFS_MAX`] are to be proven in one pass.
    #[error("more than {PROOFS_MAX} leaves cannot be proven in one pass")]
    TooManyAsked,
}

/// Proves that leaf `index` is in the tree of the first `size` of `leaves`.
///
/// The hashes go from the leaf's sibling to the root's child; at most 63. Hashes
/// the whole tree once.
///
/// # Errors
///
/// [`ProofError`] if the tree is larger than `leaves` or the leaf outside it.
pub fn inclusion_proof(leaves: &[Hash], index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
    let mut range = prefix(leaves, size)?;
    if index >= size {
        return Err(ProofError::OutsideTree { index, size });
    }
    // Below `size`, which is at most `leaves.len()`.
    let mut index = index as usize;
    let mut proof = Vec::new();
    while range.len() > 1 {
        let half = split_point(range.len());
        let (left, right) = range.split_at(half);
        if index < half {
            proof.push(root_of(right));
            range = left;
        } else {
            proof.push(root_of(left));
            range = right;
            index -= half;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proves that the tree of the first `new` of `leaves` begins with the tree of
/// the first `old`. The proof from 0, and between equal sizes, is empty.
///
/// # Errors
///
/// [`ProofError`] if `old` exceeds `new`, or `new` the number of `leaves`.
pub fn consistency_proof(leaves: &[Hash], old: u64, new: u64) -> Result<Vec<Hash>, ProofError> {
    let mut range = prefix(leaves, new)?;
    if old > new {
        return Err(ProofError::Shrinks { old, new });
    }
    let mut proof = Vec::new();
    if old == 0 {
        return Ok(proof);
    }
    // At most `new`, which is at most `leaves.len()`.
    let mut old = old as usize;
    // Whether what is left is the old tree itself, whose root the verifier has.
    let mut whole = true;
    while old < range.len() {
        let half = split_point(range.len());
        let (left, right) = range.split_at(half);
        if old <= half {
            proof.push(root_of(right));
            range = left;
        } else {
            proof.push(root_of(left));
            range = right;
            old -= half;
            whole = false;
        }
    }
    if !whole {
        proof.push(root_of(range));
    }
    proof.reverse();
    Ok(proof)
}

/// Verifies that `leaf` is at `index` in the tree of `size` leaves under `root`.
///
/// # Errors
///
/// [`ProofError`] if `proof` does not show it. Total: any input has an answer.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::OutsideTree { index, size });
    }
    let mut node = index;
    let mut last = size - 1;
    let mut computed = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length { found: proof.len() });
        }
        if node & 1 == 1 || node == last {
            computed = node_hash(sibling, &computed);
            skip_lone_levels(&mut node, &mut last);
        } else {
            computed = node_hash(&computed, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::Length { found: proof.len() });
    }
    same_root(root, computed)
}

/// Verifies that the tree of `new` leaves under `new_root` begins with the tree
/// of `old` leaves under `old_root`.
///
/// # Errors
///
/// [`ProofError`] if `proof` does not show it. Total: any input has an answer.
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Shrinks { old, new });
    }
    if old == 0 || old == new {
        if !proof.is_empty() {
            return Err(ProofError::Length { found: proof.len() });
        }
        let expected = if old == new { *new_root } else { Tree::new().root() };
        return same_root(&expected, *old_root);
    }
    let wrong_length = ProofError::Length { found: proof.len() };
    let mut node = old - 1;
    let mut last = new - 1;
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    // An old tree that is perfect is itself the first subtree.
    let (mut from_old, siblings) = if old.is_power_of_two() {
        (*old_root, proof)
    } else {
        let (first, rest) = proof.split_first().ok_or(wrong_length)?;
        (*first, rest)
    };
    let mut from_new = from_old;
    for sibling in siblings {
        if last == 0 {
            return Err(wrong_length);
        }
        if node & 1 == 1 || node == last {
            from_old = node_hash(sibling, &from_old);
            from_new = node_hash(sibling, &from_new);
            skip_lone_levels(&mut node, &mut last);
        } else {
            from_new = node_hash(&from_new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    same_root(old_root, from_old)?;
    same_root(new_root, from_new)
}

/// Goes up past the levels where the node is last and has no sibling.
fn skip_lone_levels(node: &mut u64, last: &mut u64) {
    while *node & 1 == 0 && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}

fn same_root(expected: &Hash, computed: Hash) -> Result<(), ProofError> {
    if *expected == computed {
        return Ok(());
    }
    Err(ProofError::RootDiffers { expected: *expected, computed })
}

fn prefix(leaves: &[Hash], size: u64) -> Result<&[Hash], ProofError> {
    usize::try_from(size)
        .ok()
        .and_then(|size| leaves.get(..size))
        .ok_or(ProofError::TooFewLeaves { size, leaves: leaves.len() as u64 })
}

/// Largest power of two below `length`, which is at least 2.
fn split_point(length: usize) -> usize {
    length.next_power_of_two() / 2
}

#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;
