//! The tamper-evident audit of one partition: leaf, Merkle tree, proofs,
//! signed checkpoints, and the check of all of them together.
//!
//! Leaf `i` is a function of journal record `i`: of its public header and a
//! keyed commitment to its payload, never of the payload itself, so that a
//! payload can be erased later and the tree still stands. The tree is hashed as
//! in RFC 6962; its size and root are signed as a C2SP checkpoint.
//!
//! Everything here is a pure function of its arguments: no I/O, no clock, no
//! randomness. The bytes are fixed for ever in `docs/audit-format.md`.
//!
//! ```
//! use fermata_audit::{Checkpoint, Signer, Tree, commitment, leaf_hash};
//!
//! let mut tree = Tree::new();
//! tree.push(leaf_hash(b"header", &commitment(&[7; 16], b"payload")));
//!
//! let signer = Signer::from_seed("example.org/audit", [1; 32])?;
//! let note = Checkpoint::new("example.org/audit/0", tree.size(), tree.root(), 1)?.sign(&signer);
//!
//! let opened = Checkpoint::open(note.as_bytes(), &[signer.verifier()])?;
//! assert_eq!(opened.root(), tree.root());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checkpoint;
mod count;
mod export;
mod hash;
mod kept;
mod key;
mod leaf;
mod loss;
mod note;
mod proof;
mod receipt;
mod tree;
mod verify;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use export::{EXPORT_FORMAT, export_checkpoint, export_entry, export_first_line};
pub use hash::{Hash, ParseHashError};
pub use kept::{Departure, KEPT_MAX, KeptCheckpoints};
pub use key::{KEY_ID_BYTES, KeyError, NAME_BYTES_MAX, Signer, Verifier};
pub use leaf::{
    ENTRY_VERSION, HEADER_BYTES_MAX, HeaderTooLong, SALT_BYTES, check_header, commitment,
    entry_bytes, leaf_hash,
};
pub use loss::{Loss, LossError, Subtrees};
pub use note::{NOTE_BYTES_MAX, NoteError, SIGNATURES_MAX, open_note, sign_note};
pub use proof::{
    BLOCK_LEAVES, Inclusion, PROOFS_MAX, ProofError, Proofs, Prover, TreeIndex, TreeOfSize,
    consistency_proof, inclusion_proof, verify_consistency, verify_inclusion,
};
pub use receipt::{Opening, RECEIPT_BYTES_MAX, RECEIPT_FORMAT, Receipt, ReceiptError};
pub use tree::{FrontierError, TREE_SIZE_MAX, Tree, root_of};
pub use verify::{
    AuditEntry, BufferFull, CHECKPOINTS_PENDING_MAX, CHECKPOINTS_REMEMBERED_MAX, FINDINGS_MAX,
    Finding, JournalLeaf, LOOK_AHEAD, LOOSE_MAX, NOTICES_MAX, Notice, PENDING_MAX, Part,
    PartitionVerifier, Report, Stream, Want,
};
