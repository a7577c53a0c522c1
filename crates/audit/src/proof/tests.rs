use proptest::prelude::*;

use super::reference::{self, VECTOR_ROOTS, leaves, path, root, subproof, vector_leaves};
use super::*;

/// Paths and proofs published with the Certificate Transparency vectors.
#[test]
fn the_published_proofs_of_the_certificate_transparency_tree_come_out() {
    let leaves = vector_leaves();
    let texts = |proof: Vec<Hash>| proof.iter().map(Hash::to_string).collect::<Vec<_>>();

    assert_eq!(
        texts(inclusion_proof(&leaves, 0, 8).unwrap()),
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]
    );
    assert_eq!(
        texts(inclusion_proof(&leaves, 2, 3).unwrap()),
        ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]
    );
    assert_eq!(
        texts(consistency_proof(&leaves, 6, 8).unwrap()),
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    for size in 0..=8 {
        assert_eq!(root(&leaves[..size]).to_string(), VECTOR_ROOTS[size]);
    }
}

#[test]
fn every_inclusion_up_to_70_leaves_proves_and_equals_the_definition() {
    let leaves = leaves(70);
    for size in 1..=leaves.len() {
        let tree = &leaves[..size];
        let root = root(tree);
        for index in 0..size {
            let proof = inclusion_proof(&leaves, index as u64, size as u64).unwrap();
            assert_eq!(proof, path(index, tree));
            verify_inclusion(&leaves[index], index as u64, size as u64, &proof, &root).unwrap();
        }
    }
}

#[test]
fn every_consistency_up_to_130_leaves_proves_and_equals_the_definition() {
    let leaves = leaves(130);
    let roots: Vec<_> = (0..=leaves.len()).map(|size| root_of(&leaves[..size])).collect();
    for new in 0..=leaves.len() {
        for old in 0..=new {
            let proof = consistency_proof(&leaves, old as u64, new as u64).unwrap();
            if old > 0 {
                assert_eq!(proof, subproof(old, &leaves[..new], true), "{old} to {new}");
            }
            verify_consistency(old as u64, new as u64, &roots[old], &roots[new], &proof)
                .unwrap_or_else(|error| panic!("{old} to {new}: {error}"));
        }
    }
}

#[test]
fn what_lies_outside_the_tree_is_refused() {
    let leaves = leaves(5);
    let root = root_of(&leaves);

    assert!(inclusion_proof(&leaves, 5, 5).is_err());
    assert!(inclusion_proof(&leaves, 0, 6).is_err());
    assert!(inclusion_proof(&[], 0, 0).is_err());
    assert!(consistency_proof(&leaves, 3, 2).is_err());
    assert!(consistency_proof(&leaves, 3, 6).is_err());
    assert!(verify_inclusion(&leaves[0], 0, 0, &[], &root).is_err());
    assert!(verify_consistency(3, 2, &root, &root, &[]).is_err());
    assert!(verify_consistency(0, 5, &root, &root, &[]).is_err(), "only the empty root begins all");
}

/// A tree, a leaf in it, another size, and where to flip a bit.
fn case() -> impl Strategy<Value = (u64, u64, u64, prop::sample::Index, u8)> {
    (2_u64..200).prop_flat_map(|size| {
        (Just(size), 0..size, 1_u64..200, any::<prop::sample::Index>(), any::<u8>())
    })
}

fn flip(hash: &mut Hash, bit: u8) {
    hash.0[usize::from(bit / 8)] ^= 1 << (bit % 8);
}

proptest! {
    #[test]
    fn a_changed_inclusion_fails((size, index, other, at, bit) in case()) {
        let all = leaves(200);
        let root_at = |size: u64| root_of(&all[..size as usize]);
        let proof = inclusion_proof(&all, index, size)?;
        let (leaf, root) = (all[index as usize], root_at(size));
        let holds = |leaf: &Hash, index, size, proof: &[Hash], root: &Hash| {
            verify_inclusion(leaf, index, size, proof, root).is_ok()
        };
        prop_assert!(holds(&leaf, index, size, &proof, &root));

        let mut flipped = proof.clone();
        flip(&mut flipped[at.index(proof.len())], bit);
        prop_assert!(!holds(&leaf, index, size, &flipped, &root));
        let (mut other_leaf, mut other_root) = (leaf, root);
        flip(&mut other_leaf, bit);
        flip(&mut other_root, bit);
        prop_assert!(!holds(&other_leaf, index, size, &proof, &root));
        prop_assert!(!holds(&leaf, index, size, &proof, &other_root));

        prop_assert!(other == index || !holds(&leaf, other, size, &proof, &root));
        prop_assert!(other == size || !holds(&leaf, index, other, &proof, &root_at(other)));
        prop_assert!(!holds(&leaf, index, size, &proof[1..], &root));
        let longer = [proof.as_slice(), &[leaf]].concat();
        prop_assert!(!holds(&leaf, index, size, &longer, &root));
    }

    #[test]
    fn a_changed_consistency_fails((new, index, other, at, bit) in case()) {
        let all = leaves(200);
        let root_at = |size: u64| root_of(&all[..size as usize]);
        let old = index.max(1);
        let proof = consistency_proof(&all, old, new)?;
        let (old_root, new_root) = (root_at(old), root_at(new));
        let holds = |old, new, old_root: &Hash, new_root: &Hash, proof: &[Hash]| {
            verify_consistency(old, new, old_root, new_root, proof).is_ok()
        };
        prop_assert!(holds(old, new, &old_root, &new_root, &proof));

        let mut flipped = proof.clone();
        flip(&mut flipped[at.index(proof.len())], bit);
        prop_assert!(!holds(old, new, &old_root, &new_root, &flipped));
        let (mut other_old, mut other_new) = (old_root, new_root);
        flip(&mut other_old, bit);
        flip(&mut other_new, bit);
        prop_assert!(!holds(old, new, &other_old, &new_root, &proof));
        prop_assert!(!holds(old, new, &old_root, &other_new, &proof));

        prop_assert!(other == old || !holds(other, new, &root_at(other), &new_root, &proof));
        prop_assert!(other == new || !holds(old, other, &old_root, &root_at(other), &proof));
        prop_assert!(!holds(old, new, &old_root, &new_root, &proof[1..]));
        let longer = [proof.as_slice(), &[old_root]].concat();
        prop_assert!(!holds(old, new, &old_root, &new_root, &longer));
    }

    /// Whatever arrives, there is an answer.
    #[test]
    fn verification_is_total(
        (one, other) in (prop_oneof![any::<u64>(), 0_u64..9], prop_oneof![any::<u64>(), 0_u64..9]),
        count in 0_u64..70,
    ) {
        let proof = reference::leaves(count);
        let hash = Hash([3; 32]);
        prop_assert!(verify_inclusion(&hash, one, other, &proof, &Hash([4; 32])).is_err());
        prop_assert!(verify_consistency(one, other, &hash, &Hash([4; 32]), &proof).is_err());
    }
}
