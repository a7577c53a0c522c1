//! From a journal record to its leaf. Frozen: `docs/audit-format.md`, section 1.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::hash::Hash;

/// Length of a record's salt, in bytes. 128 random bits make each commitment
/// unique and keep a guessed payload from being confirmed without the salt.
pub const SALT_BYTES: usize = 16;

/// First byte of an entry. Another layout takes another number.
pub const ENTRY_VERSION: u8 = 1;

/// Longest header, in bytes: its entry still fits the 65,535 bytes that a C2SP
/// tlog-tiles entry bundle can hold. A writer refuses a longer one
/// ([`check_header`]); [`leaf_hash`] itself is total.
pub const HEADER_BYTES_MAX: usize = 65_535 - 1 - 4 - 32;

/// A header that no entry can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a record header of {bytes} bytes exceeds {HEADER_BYTES_MAX}; move data to the payload")]
pub struct HeaderTooLong {
    /// Length of the refused header.
    pub bytes: usize,
}

/// Checks that `header` is within [`HEADER_BYTES_MAX`].
///
/// # Errors
///
/// [`HeaderTooLong`]; nothing is to be appended then.
pub fn check_header(header: &[u8]) -> Result<(), HeaderTooLong> {
    if header.len() > HEADER_BYTES_MAX {
        return Err(HeaderTooLong { bytes: header.len() });
    }
    Ok(())
}

/// Commits to `payload` under `salt`: HMAC-SHA-256 (RFC 2104) with the salt as key.
#[must_use]
pub fn commitment(salt: &[u8; SALT_BYTES], payload: &[u8]) -> [u8; 32] {
    // RFC 2104 pads a short key with zeros to the block: doing it here needs no
    // fallible constructor.
    let mut key = [0; 64];
    for (byte, salt) in key.iter_mut().zip(salt) {
        *byte = *salt;
    }
    let mut mac = Hmac::<Sha256>::new(&key.into());
    mac.update(payload);
    mac.finalize().into_bytes().into()
}

/// Hashes the entry of (`header`, `commitment`) as a leaf: RFC 6962, section 2.1,
/// SHA-256(0x00 ‖ entry). Does not allocate.
#[must_use]
pub fn leaf_hash(header: &[u8], commitment: &[u8; 32]) -> Hash {
    let [a, b, c, d] = header_length(header);
    Hash::of(&[&[0x00, ENTRY_VERSION, a, b, c, d], header, commitment])
}

/// Writes the entry of version 1: 0x01 ‖ header length (4 bytes, big-endian) ‖
/// header ‖ commitment.
#[must_use]
pub fn entry_bytes(header: &[u8], commitment: &[u8; 32]) -> Vec<u8> {
    [&[ENTRY_VERSION], header_length(header).as_slice(), header, commitment].concat()
}

/// A header past 4 GiB, which no writer makes, keeps the largest length: the
/// entry stays unambiguous, since the commitment's length is fixed.
fn header_length(header: &[u8]) -> [u8; 4] {
    u32::try_from(header.len()).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Golden bytes of version 1. They never change; computed independently.
    #[test]
    fn the_bytes_of_version_1_are_frozen() {
        let salt = *b"0123456789abcdef";
        let commitment = commitment(&salt, b"payload");

        insta::assert_snapshot!(Hash(commitment), @"46ff18fcd34b7c0d3ff9008026b8d5236c371f16f82656ddabc88b61d511aad5");
        insta::assert_snapshot!(leaf_hash(b"header", &commitment), @"5e5dfafc21d131b94b69a1687875e5aa0f88a47803253a6210b4f255cd2fd8a5");
        insta::assert_snapshot!(leaf_hash(b"", &[0; 32]), @"7c453989aaf3e2e7967a56cbb037dadcb02d129bac6f4404ae1f26ee4b9b7b6d");
    }

    #[test]
    fn a_header_past_the_limit_is_refused() {
        assert_eq!(check_header(&vec![0; HEADER_BYTES_MAX]), Ok(()));
        assert!(check_header(&vec![0; HEADER_BYTES_MAX + 1]).is_err());
        assert_eq!(entry_bytes(&vec![0; HEADER_BYTES_MAX], &[0; 32]).len(), 65_535);
    }

    proptest! {
        #[test]
        fn the_leaf_is_the_hash_of_the_entry(header: Vec<u8>, commitment: [u8; 32]) {
            let entry = entry_bytes(&header, &commitment);
            prop_assert_eq!(leaf_hash(&header, &commitment), Hash::of(&[&[0], &entry]));
            prop_assert_eq!(entry.len(), 37 + header.len());
        }

        /// The boundary between header and commitment cannot be moved.
        #[test]
        fn different_records_have_different_entries(
            one: (Vec<u8>, [u8; 32]),
            other: (Vec<u8>, [u8; 32]),
        ) {
            prop_assume!(one != other);
            prop_assert_ne!(entry_bytes(&one.0, &one.1), entry_bytes(&other.0, &other.1));
        }

        #[test]
        fn salt_and_payload_both_decide_the_commitment(
            salt: [u8; 16],
            payload in prop::collection::vec(any::<u8>(), 1..300),
            at: prop::sample::Index,
        ) {
            let (mut other_salt, mut other_payload) = (salt, payload.clone());
            other_salt[at.index(16)] ^= 1;
            other_payload[at.index(payload.len())] ^= 1;
            prop_assert_ne!(commitment(&salt, &payload), commitment(&other_salt, &payload));
            prop_assert_ne!(commitment(&salt, &payload), commitment(&salt, &other_payload));
        }
    }
}
