use proptest::prelude::*;

use super::*;
use crate::key::Signer;
use crate::proof::{Inclusion, Prover};

const ORIGIN: &str = "example.org/audit/3";

fn signer() -> Signer {
    Signer::from_seed("example.org/audit", [1; 32]).unwrap()
}

fn header(index: u64) -> Vec<u8> {
    format!("header {index} \u{fc}").into_bytes()
}

fn opening(index: u64) -> Opening {
    Opening { salt: [7; 16], payload: format!("payload {index}").into_bytes() }
}

/// The receipt of record `index` in a log of `size` records.
fn receipt(index: u64, size: u64, opened: bool) -> Receipt {
    let mut prover = Prover::new(size);
    let committed = |index| {
        let Opening { salt, payload } = opening(index);
        commitment(&salt, &payload)
    };
    for other in 0..size {
        let leaf = leaf_hash(&header(other), &committed(other));
        match other == index {
            true => prover.push_asked(leaf).unwrap(),
            false => prover.push(leaf).unwrap(),
        }
    }
    let mut proofs = prover.finish().unwrap();
    let Inclusion { index, leaf, path } = proofs.inclusions.remove(0);
    let checkpoint = Checkpoint::new(ORIGIN, size, proofs.root, 9).unwrap().sign(&signer());
    Receipt {
        partition: "3".to_owned(),
        origin: ORIGIN.to_owned(),
        index,
        header: header(index),
        commitment: committed(index),
        leaf,
        path,
        checkpoint,
        opening: opened.then(|| opening(index)),
    }
}

fn holds(text: &[u8]) -> bool {
    holds_by(&signer().verifier(), text)
}

fn holds_by(verifier: &Verifier, text: &[u8]) -> bool {
    let keys = std::slice::from_ref(verifier);
    Receipt::parse(text).and_then(|receipt| receipt.check(keys)).is_ok()
}

#[test]
fn the_form_is_frozen() {
    insta::assert_snapshot!(receipt(1, 3, true).to_json().unwrap());
}

#[test]
fn every_single_bit_of_a_receipt_counts() {
    let verifier = signer().verifier();
    for opened in [false, true] {
        let text = receipt(1, 3, opened).to_json().unwrap().into_bytes();
        for (at, bit) in (0..text.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut changed = text.clone();
            changed[at] ^= 1 << bit;
            assert!(!holds_by(&verifier, &changed), "{}", String::from_utf8_lossy(&changed));
        }
    }
}

#[test]
fn what_a_key_signed_for_another_log_or_partition_is_refused() {
    let mut other_log = receipt(1, 3, false);
    other_log.origin = "example.org/audit/4".to_owned();
    other_log.partition = "4".to_owned();
    let mut other_partition = receipt(1, 3, false);
    other_partition.partition = "4".to_owned();
    let stranger = Signer::from_seed("example.org/audit", [2; 32]).unwrap();
    let keys = [signer().verifier()];

    assert!(matches!(other_log.check(&keys), Err(ReceiptError::Origin { .. })));
    assert!(matches!(other_partition.check(&keys), Err(ReceiptError::Partition { .. })));
    let refused = receipt(1, 3, false).check(&[stranger.verifier()]);
    assert!(matches!(refused, Err(ReceiptError::Checkpoint(_))));
}

#[test]
fn another_root_is_refused_though_it_is_signed() {
    let mut forged = receipt(1, 3, false);
    let other = Checkpoint::new(ORIGIN, 3, Hash([5; 32]), 9).unwrap();
    forged.checkpoint = other.sign(&signer());

    let refused = forged.check(&[signer().verifier()]);

    assert!(matches!(refused, Err(ReceiptError::Proof(_))));
}

#[test]
fn another_format_an_unknown_member_and_too_much_are_refused() {
    let text = receipt(1, 3, false).to_json().unwrap();
    assert!(holds(text.as_bytes()));

    for other in [
        text.replace("receipt/1", "receipt/2"),
        text.replace("{\"format\"", "{\"more\":1,\"format\""),
        text.replace("\"partition\":\"3\"", "\"partition\":\"3\",\"partition\":\"3\""),
        text.replace("\"leaf\":\"", "\"leaf\":\"A"),
        format!("{text}{}", " ".repeat(RECEIPT_BYTES_MAX)),
        String::new(),
    ] {
        assert!(Receipt::parse(other.as_bytes()).is_err(), "{}", &other[..other.len().min(300)]);
    }
}

#[test]
fn a_payload_does_not_come_into_a_log_line() {
    assert!(!format!("{:?}", receipt(1, 3, true)).contains("112, 97, 121"));
}

/// A size, an index below it, and whether the receipt is opened.
fn shape() -> impl Strategy<Value = (u64, u64, bool)> {
    (1_u64..80).prop_flat_map(|size| (0..size, Just(size), any::<bool>()))
}

proptest! {
    #[test]
    fn every_receipt_reads_back_and_verifies((index, size, opened) in shape()) {
        let receipt = receipt(index, size, opened);

        let read = Receipt::parse(receipt.to_json()?.as_bytes())?;

        prop_assert_eq!(&read, &receipt);
        let checkpoint = read.check(&[signer().verifier()])?;
        prop_assert_eq!(checkpoint.size(), size);
    }

    /// Header, commitment, leaf, path, index, note, opening: each bit of each counts.
    #[test]
    fn a_receipt_with_any_changed_bit_is_refused(
        (index, size, opened) in shape(), at: prop::sample::Index, bit in 0..8_u32,
    ) {
        let mut text = receipt(index, size, opened).to_json()?.into_bytes();
        let at = at.index(text.len());

        text[at] ^= 1 << bit;

        prop_assert!(!holds(&text), "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn a_path_of_another_length_and_another_index_are_refused(
        (index, size, _) in shape(), other in 0_u64..100,
    ) {
        let keys = [signer().verifier()];
        let sound = receipt(index, size, false);
        let mut longer = sound.clone();
        longer.path.push(Hash([1; 32]));
        let mut shorter = sound.clone();
        let was_longer = shorter.path.pop().is_some();
        let moved = Receipt { index: other, ..sound };

        prop_assert!(longer.check(&keys).is_err());
        prop_assert!(!was_longer || shorter.check(&keys).is_err());
        prop_assert!(other == index || moved.check(&keys).is_err());
    }

    #[test]
    fn any_bytes_have_an_answer(bytes: Vec<u8>, text in "\\PC{0,60}") {
        prop_assert!(!holds(&bytes));
        prop_assert!(!holds(text.as_bytes()));
    }
}
