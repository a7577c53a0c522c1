//! Inclusion proofs of any leaves of a tree, from one pass over all its leaves.

use std::collections::HashMap;

use crate::hash::Hash;
use crate::proof::ProofError;
use crate::tree::{Tree, fold};

/// Most leaves that are proven in one pass: every record of a run with some
/// thousand steps, in about 30 MiB where the tree has a thousand million leaves.
pub const PROOFS_MAX: usize = 10_000;

/// Makes the proofs of the leaves that are asked for, while all leaves of a tree
/// of known size go by once.
///
/// Besides the frontier it keeps one hash for each node that lies beside a way
/// from an asked leaf to the root: memory grows with the number of asked leaves,
/// and with the size of the tree only by its logarithm.
///
/// ```
/// use fermata_audit::{Hash, Prover, verify_inclusion};
///
/// let mut prover = Prover::new(3);
/// prover.push(Hash([0; 32]))?;
/// prover.push_asked(Hash([1; 32]))?;
/// prover.push(Hash([2; 32]))?;
///
/// let proofs = prover.finish()?;
/// let proof = &proofs.inclusions[0];
/// verify_inclusion(&proof.leaf, proof.index, 3, &proof.path, &proofs.root)?;
/// # Ok::<(), fermata_audit::ProofError>(())
/// ```
#[derive(Debug)]
pub struct Prover {
    size: u64,
    tree: Tree,
    asked: Vec<(u64, Hash)>,
    /// Nodes beside the ways of asked leaves, by level and number; without a hash
    /// until the tree has grown over them.
    nodes: HashMap<(u32, u64), Option<Hash>>,
}

/// What one pass has proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proofs {
    /// Root of the whole tree: to be compared with what was signed.
    pub root: Hash,
    /// The asked leaves, by index.
    pub inclusions: Vec<Inclusion>,
}

/// A leaf and the way from it to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    /// Index of the leaf.
    pub index: u64,
    /// The leaf.
    pub leaf: Hash,
    /// Hashes beside its way, from its sibling to the root's child; at most 63.
    pub path: Vec<Hash>,
}

/// A node beside the way from a leaf to the root.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sibling {
    /// The root of a perfect subtree: its level, and its number in that level.
    Perfect(u32, u64),
    /// The right edge of the tree above this level, where it is not perfect.
    Edge(u32),
}

impl Prover {
    /// Begins a pass over the leaves of a tree of `size` leaves.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size, tree: Tree::new(), asked: Vec::new(), nodes: HashMap::new() }
    }

    /// Takes the next leaf.
    ///
    /// # Errors
    ///
    /// [`ProofError::OutsideTree`] if the tree has all its leaves.
    pub fn push(&mut self, leaf: Hash) -> Result<(), ProofError> {
        let (index, size) = (self.tree.size(), self.size);
        if index >= size {
            return Err(ProofError::OutsideTree { index, size });
        }
        let nodes = &mut self.nodes;
        self.tree.push_noting(leaf, |level, number, root| {
            if let Some(node) = nodes.get_mut(&(level, number)) {
                *node = Some(root);
            }
        });
        Ok(())
    }

    /// Takes the next leaf, which is to be proven.
    ///
    /// # Errors
    ///
    /// [`ProofError::OutsideTree`] if the tree has all its leaves,
    /// [`ProofError::TooManyAsked`] past [`PROOFS_MAX`].
    pub fn push_asked(&mut self, leaf: Hash) -> Result<(), ProofError> {
        let index = self.tree.size();
        if index < self.size {
            if self.asked.len() >= PROOFS_MAX {
                return Err(ProofError::TooManyAsked);
            }
            self.asked.push((index, leaf));
            for sibling in siblings(index, self.size) {
                if let Sibling::Perfect(level, number) = sibling {
                    // What lies to the left is complete: a part of the frontier.
                    let known = (number < index >> level).then(|| self.complete(level)).flatten();
                    self.nodes.entry((level, number)).or_insert(known);
                }
            }
        }
        self.push(leaf)
    }

    /// The subtree of `level` in the frontier.
    fn complete(&self, level: u32) -> Option<Hash> {
        let larger = (self.tree.size() >> level >> 1).count_ones();
        // At most 64: fits every usize.
        self.tree.frontier().get(larger as usize).copied()
    }

    /// Ends the pass.
    ///
    /// # Errors
    ///
    /// [`ProofError::TooFewLeaves`] if not all leaves have come.
    pub fn finish(self) -> Result<Proofs, ProofError> {
        let (size, leaves) = (self.size, self.tree.size());
        let too_few = ProofError::TooFewLeaves { size, leaves };
        if leaves < size {
            return Err(too_few);
        }
        let root_of = |sibling| match sibling {
            Sibling::Perfect(level, number) => self.nodes.get(&(level, number)).copied().flatten(),
            Sibling::Edge(level) => {
                let larger = (size >> level).count_ones() as usize;
                fold(self.tree.frontier().get(larger..)?)
            }
        };
        let mut inclusions = Vec::with_capacity(self.asked.len());
        for &(index, leaf) in &self.asked {
            let path = siblings(index, size).into_iter().map(root_of).collect::<Option<_>>();
            inclusions.push(Inclusion { index, leaf, path: path.ok_or(too_few)? });
        }
        Ok(Proofs { root: self.tree.root(), inclusions })
    }
}

/// The nodes beside the way from leaf `index` to the root of a tree of `size`
/// leaves, which is larger, from the leaf's level up.
pub(super) fn siblings(index: u64, size: u64) -> Vec<Sibling> {
    let mut siblings = Vec::new();
    let (mut level, mut node, mut last) = (0, index, size.saturating_sub(1));
    while last > 0 {
        let sibling = node ^ 1;
        if sibling < size >> level {
            siblings.push(Sibling::Perfect(level, sibling));
        } else if sibling == last {
            siblings.push(Sibling::Edge(level));
        }
        (level, node, last) = (level + 1, node >> 1, last >> 1);
    }
    siblings
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::proof::{inclusion_proof, reference, verify_inclusion};
    use crate::tree::root_of;

    /// One pass over `leaves`, asking for those at `asked`.
    fn pass(leaves: &[Hash], asked: &BTreeSet<u64>) -> Proofs {
        let mut prover = Prover::new(leaves.len() as u64);
        for (index, leaf) in (0..).zip(leaves) {
            match asked.contains(&index) {
                true => prover.push_asked(*leaf).unwrap(),
                false => prover.push(*leaf).unwrap(),
            }
        }
        prover.finish().unwrap()
    }

    #[test]
    fn one_pass_proves_every_leaf_of_every_tree_up_to_130_leaves() {
        let all = reference::leaves(130);
        for size in 0..=all.len() {
            let leaves = &all[..size];
            let proofs = pass(leaves, &(0..size as u64).collect());

            assert_eq!(proofs.root, root_of(leaves));
            assert_eq!(proofs.inclusions.len(), size);
            for (index, proof) in proofs.inclusions.iter().enumerate() {
                assert_eq!(proof.path, reference::path(index, leaves), "{index} of {size}");
            }
        }
    }

    #[test]
    fn a_pass_takes_neither_more_nor_fewer_leaves_than_the_tree_has() {
        let mut prover = Prover::new(1);
        assert_eq!(prover.push(Hash([1; 32])), Ok(()));
        assert_eq!(
            prover.push_asked(Hash([2; 32])),
            Err(ProofError::OutsideTree { index: 1, size: 1 })
        );
        assert!(prover.finish().unwrap().inclusions.is_empty());

        let mut prover = Prover::new(2);
        prover.push_asked(Hash([1; 32])).unwrap();
        assert_eq!(prover.finish(), Err(ProofError::TooFewLeaves { size: 2, leaves: 1 }));
    }

    #[test]
    fn more_leaves_than_fit_the_memory_are_not_proven_in_one_pass() {
        let mut prover = Prover::new(PROOFS_MAX as u64 + 2);
        for _ in 0..PROOFS_MAX {
            prover.push_asked(Hash([1; 32])).unwrap();
        }

        assert_eq!(prover.push_asked(Hash([1; 32])), Err(ProofError::TooManyAsked));
        assert_eq!(prover.push(Hash([1; 32])), Ok(()));
    }

    proptest! {
        #[test]
        fn one_pass_gives_the_proofs_that_the_whole_tree_gives(
            size in 1_u64..700,
            asked in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        ) {
            let leaves = reference::leaves(size);
            let asked: BTreeSet<_> =
                asked.iter().map(|at| at.index(leaves.len()) as u64).collect();

            let proofs = pass(&leaves, &asked);

            prop_assert_eq!(proofs.inclusions.len(), asked.len());
            for Inclusion { index, leaf, path } in proofs.inclusions {
                prop_assert_eq!(&path, &inclusion_proof(&leaves, index, size)?);
                verify_inclusion(&leaf, index, size, &path, &proofs.root)?;
            }
        }
    }
}
