//! A receipt: all that shows, without the log, that it holds one record.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::hash::{Hash, ParseHashError, digit};
use crate::key::Verifier;
use crate::leaf::{SALT_BYTES, commitment, leaf_hash};
use crate::proof::{ProofError, verify_inclusion};

/// Name and version of the form of receipts.
pub const RECEIPT_FORMAT: &str = "fermata-audit-receipt/1";

/// Longest receipt, in bytes: over that of the largest record, opened. A longer
/// one is refused unread.
pub const RECEIPT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One record's entry, its way to a root, and the checkpoint that signs this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The partition: what the origin ends in.
    pub partition: String,
    /// Name of the partition's log.
    pub origin: String,
    /// Index of the record, and of its leaf.
    pub index: u64,
    /// Public header of the record, as stored.
    pub header: Vec<u8>,
    /// Commitment to salt and payload.
    pub commitment: [u8; 32],
    /// Leaf hash of header and commitment.
    pub leaf: Hash,
    /// Hashes beside the way from the leaf to the root, from its sibling up.
    pub path: Vec<Hash>,
    /// The signed checkpoint, as a note.
    pub checkpoint: String,
    /// What the commitment was made from, for whoever may see it.
    pub opening: Option<Opening>,
}

/// What opens a commitment.
#[derive(Clone, PartialEq, Eq)]
pub struct Opening {
    /// The record's salt.
    pub salt: [u8; SALT_BYTES],
    /// The record's payload, as stored.
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Opening {
    /// Never shows the payload, which may be personal.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Opening").field("bytes", &self.payload.len()).finish()
    }
}

/// Why a receipt cannot be read or does not hold.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Longer than [`RECEIPT_BYTES_MAX`].
    #[error("a receipt of {bytes} bytes exceeds {RECEIPT_BYTES_MAX}")]
    TooLarge {
        /// Length of what was refused.
        bytes: usize,
    },
    /// Not JSON with exactly the members of a receipt.
    #[error("the text is not a receipt")]
    Form(#[from] serde_json::Error),
    /// Another format, or a later version.
    #[error("the format is not `{RECEIPT_FORMAT}`")]
    Format,
    /// A member is not lower-case hexadecimal digits of its length.
    #[error("`{member}` is not {bytes} bytes in lower-case hexadecimal digits")]
    Hexadecimal {
        /// The member.
        member: &'static str,
        /// How long it has to be, in words.
        bytes: &'static str,
    },
    /// The leaf or a hash of the path is none.
    #[error("a hash cannot be read")]
    Hash(#[from] ParseHashError),
    /// The checkpoint is not signed by a key that is trusted, or is none.
    #[error("the checkpoint is not to be believed")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint is of another log.
    #[error("the checkpoint is of log `{signed}`, the receipt of `{stated}`")]
    Origin {
        /// The log that the checkpoint names.
        signed: String,
        /// The log that the receipt names.
        stated: String,
    },
    /// The log is that of another partition.
    #[error("log `{origin}` is not that of partition `{partition}`")]
    Partition {
        /// The log.
        origin: String,
        /// The partition that the receipt names.
        partition: String,
    },
    /// The leaf is not that of header and commitment.
    #[error("the leaf of header and commitment is `{computed}`, not `{stated}`")]
    Leaf {
        /// The leaf that the receipt names.
        stated: Hash,
        /// The leaf that follows.
        computed: Hash,
    },
    /// The leaf is not in the signed tree at this index.
    #[error("the proof does not show the leaf in the signed tree")]
    Proof(#[from] ProofError),
    /// Salt and payload are not what was committed to.
    #[error("salt and payload are not what the commitment was made from")]
    Opening,
}

/// The text form: member by member, in this order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: String,
    partition: String,
    origin: String,
    index: u64,
    header: String,
    commitment: String,
    leaf: String,
    path: Vec<String>,
    checkpoint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opened: Option<WrittenOpening>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenOpening {
    salt: String,
    payload: String,
}

impl Receipt {
    /// Writes it as one JSON object on one line, without the newline.
    ///
    /// # Errors
    ///
    /// Never for what can be held in memory; the serialiser's type says otherwise.
    pub fn to_json(&self) -> Result<String, ReceiptError> {
        let opened = self.opening.as_ref().map(|opening| WrittenOpening {
            salt: hexadecimal(&opening.salt),
            payload: hexadecimal(&opening.payload),
        });
        let written = Written {
            format: RECEIPT_FORMAT.to_owned(),
            partition: self.partition.clone(),
            origin: self.origin.clone(),
            index: self.index,
            header: hexadecimal(&self.header),
            commitment: hexadecimal(&self.commitment),
            leaf: self.leaf.to_string(),
            path: self.path.iter().map(Hash::to_string).collect(),
            checkpoint: self.checkpoint.clone(),
            opened,
        };
        Ok(serde_json::to_string(&written)?)
    }

    /// Reads a receipt; nothing of it is to be believed before [`Receipt::check`].
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] if it is none. Total: any bytes have an answer.
    pub fn parse(text: &[u8]) -> Result<Self, ReceiptError> {
        if text.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptError::TooLarge { bytes: text.len() });
        }
        let written: Written = serde_json::from_slice(text)?;
        if written.format != RECEIPT_FORMAT {
            return Err(ReceiptError::Format);
        }
        let opening = |opened: WrittenOpening| {
            let salt = bytes("salt", "16", &opened.salt)?.try_into();
            let salt = salt.map_err(|_| wrong_hexadecimal("salt", "16"))?;
            Ok::<_, ReceiptError>(Opening {
                salt,
                payload: bytes("payload", "any", &opened.payload)?,
            })
        };
        Ok(Self {
            header: bytes("header", "any", &written.header)?,
            commitment: written.commitment.parse::<Hash>()?.0,
            leaf: written.leaf.parse()?,
            path: written.path.iter().map(|hash| hash.parse()).collect::<Result<_, _>>()?,
            opening: written.opened.map(opening).transpose()?,
            partition: written.partition,
            origin: written.origin,
            index: written.index,
            checkpoint: written.checkpoint,
        })
    }

    /// Checks everything that the receipt says against a key that is trusted, and
    /// returns the checkpoint that it was proven by.
    ///
    /// It shows that the log whose checkpoints the key signs holds this header and
    /// this commitment at this index; and, opened, which payload. That nobody was
    /// shown another log, checkpoints that others have kept show.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`]; nothing of the receipt is to be believed then.
    pub fn check(&self, verifiers: &[Verifier]) -> Result<Checkpoint, ReceiptError> {
        let checkpoint = Checkpoint::open(self.checkpoint.as_bytes(), verifiers)?;
        let (origin, partition) = (&self.origin, &self.partition);
        if checkpoint.origin() != origin {
            let signed = checkpoint.origin().to_owned();
            return Err(ReceiptError::Origin { signed, stated: origin.clone() });
        }
        if origin.rsplit_once('/').is_none_or(|(_, last)| last != partition) {
            let (origin, partition) = (origin.clone(), partition.clone());
            return Err(ReceiptError::Partition { origin, partition });
        }
        let computed = leaf_hash(&self.header, &self.commitment);
        if computed != self.leaf {
            return Err(ReceiptError::Leaf { stated: self.leaf, computed });
        }
        let (size, root) = (checkpoint.size(), checkpoint.root());
        verify_inclusion(&self.leaf, self.index, size, &self.path, &root)?;
        let opens =
            |opening: &Opening| commitment(&opening.salt, &opening.payload) == self.commitment;
        if self.opening.as_ref().is_some_and(|opening| !opens(opening)) {
            return Err(ReceiptError::Opening);
        }
        Ok(checkpoint)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn wrong_hexadecimal(member: &'static str, bytes: &'static str) -> ReceiptError {
    ReceiptError::Hexadecimal { member, bytes }
}

/// Reads lower-case hexadecimal digits; how many, the caller checks.
fn bytes(member: &'static str, length: &'static str, text: &str) -> Result<Vec<u8>, ReceiptError> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(wrong_hexadecimal(member, length));
    }
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    pairs.iter().map(byte).collect::<Option<_>>().ok_or(wrong_hexadecimal(member, length))
}

#[cfg(test)]
mod tests;
