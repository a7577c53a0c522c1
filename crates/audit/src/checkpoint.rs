//! A log's signed state, as in C2SP tlog-checkpoint with one extension line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::hash::Hash;
use crate::key::{KeyError, Signer, Verifier, check_name};
use crate::note::{NoteError, open_note, signed};
use crate::tree::{TREE_SIZE_MAX, Tree};

/// What our extension line begins with.
const JOURNAL: &str = "journal ";

/// The state of a partition's log: so many leaves under this root, the last of
/// them from the journal message with this sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: Hash,
    journal_sequence: u64,
}

/// Why a note is not a checkpoint to believe.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// The note around it is not to be believed.
    #[error("the checkpoint's note is refused")]
    Note(#[from] NoteError),
    /// The origin is not a log's name.
    #[error("the checkpoint's origin is refused")]
    Origin(#[source] KeyError),
    /// Not the four lines origin, size, root, `journal <sequence>`.
    #[error("the checkpoint is not the four lines origin, size, root, `journal <sequence>`")]
    Lines,
    /// A number with a sign, a leading zero, or too large.
    #[error("the checkpoint's {field} is not a plain decimal number of at most {TREE_SIZE_MAX}")]
    Number {
        /// `size` or `journal sequence`.
        field: &'static str,
    },
    /// The root is not 32 bytes in canonical base64.
    #[error("the checkpoint's root is not 32 bytes in base64")]
    Root,
    /// An empty tree has the empty root and no journal sequence; any other has one.
    #[error("size {size}, root and journal sequence {journal_sequence} do not belong together")]
    Inconsistent {
        /// The stated tree size.
        size: u64,
        /// The stated journal sequence.
        journal_sequence: u64,
    },
}

impl Checkpoint {
    /// Makes the checkpoint of a tree. `journal_sequence` is the stream sequence
    /// of the journal message that holds the last leaf's record, 0 only for the
    /// empty tree.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if the parts are not those of one log state.
    pub fn new(
        origin: &str,
        size: u64,
        root: Hash,
        journal_sequence: u64,
    ) -> Result<Self, CheckpointError> {
        check_name(origin).map_err(CheckpointError::Origin)?;
        for (field, number) in [("size", size), ("journal sequence", journal_sequence)] {
            if number > TREE_SIZE_MAX {
                return Err(CheckpointError::Number { field });
            }
        }
        let root_fits = size > 0 || root == Tree::new().root();
        if !root_fits || (size == 0) != (journal_sequence == 0) {
            return Err(CheckpointError::Inconsistent { size, journal_sequence });
        }
        Ok(Self { origin: origin.to_owned(), size, root, journal_sequence })
    }

    /// Returns the name of the log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the root at that size.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.root
    }

    /// Returns the stream sequence of the journal message with the last leaf's
    /// record; 0 if there is no leaf.
    #[must_use]
    pub fn journal_sequence(&self) -> u64 {
        self.journal_sequence
    }

    /// Writes the text that is signed: four lines, each ended by a newline.
    #[must_use]
    pub fn to_body(&self) -> String {
        let Self { origin, size, root, journal_sequence } = self;
        let root = STANDARD.encode(root.as_bytes());
        format!("{origin}\n{size}\n{root}\n{JOURNAL}{journal_sequence}\n")
    }

    /// Signs it: the complete note, at most about 1 KiB.
    #[must_use]
    pub fn sign(&self, signer: &Signer) -> String {
        signed(&self.to_body(), &[signer])
    }

    /// Opens a note and reads the checkpoint in it. Whether it is of the log that
    /// is meant, the caller sees by [`Checkpoint::origin`].
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]; nothing of the note is to be believed then.
    pub fn open(note: &[u8], verifiers: &[Verifier]) -> Result<Self, CheckpointError> {
        Self::parse_body(open_note(note, verifiers)?)
    }

    fn parse_body(body: &str) -> Result<Self, CheckpointError> {
        let lines: Vec<_> =
            body.strip_suffix('\n').ok_or(CheckpointError::Lines)?.split('\n').collect();
        let [origin, size, root, extension] = lines.as_slice() else {
            return Err(CheckpointError::Lines);
        };
        let sequence = extension.strip_prefix(JOURNAL).ok_or(CheckpointError::Lines)?;
        let root = STANDARD.decode(root).map_err(|_| CheckpointError::Root)?;
        let root = Hash(root.try_into().map_err(|_| CheckpointError::Root)?);
        let size = parse_number("size", size)?;
        Self::new(origin, size, root, parse_number("journal sequence", sequence)?)
    }
}

/// Reads an ASCII decimal number that is written in its one form.
fn parse_number(field: &'static str, text: &str) -> Result<u64, CheckpointError> {
    let canonical =
        text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let number = text.parse().ok().filter(|_| canonical);
    number.ok_or(CheckpointError::Number { field })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer() -> Signer {
        Signer::from_seed("example.org/audit", [1; 32]).unwrap()
    }

    fn open(body: &str) -> Result<Checkpoint, CheckpointError> {
        let signer = signer();
        Checkpoint::open(signed(body, &[&signer]).as_bytes(), &[signer.verifier()])
    }

    #[test]
    fn the_signed_form_is_frozen() {
        let checkpoint = Checkpoint::new("example.org/audit/3", 7, Hash([0xab; 32]), 42).unwrap();

        insta::assert_snapshot!(signer().vkey(), @"example.org/audit+c5fdacc0+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c");
        insta::assert_snapshot!(checkpoint.sign(&signer()), @"
        example.org/audit/3
        7
        q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=
        journal 42

        — example.org/audit xf2swKFzalGsFfDVj4YXh3lWA3PjTAgO4N0HoQNNerLn2/zO97lkI9L4VZ23M3vbf13GCX8gqNs8TRlUNg7KguvjGAU=
        ");
    }

    #[test]
    fn other_bodies_are_refused_though_signed() {
        let root = STANDARD.encode([1; 32]);
        let empty = STANDARD.encode(Tree::new().root().as_bytes());
        let good = format!("log\n7\n{root}\njournal 9\n");
        assert!(open(&good).is_ok());
        assert!(open(&format!("log\n0\n{empty}\njournal 0\n")).is_ok());

        for body in [
            good.replace("7", "07"),
            good.replace("7", "+7"),
            good.replace("7", "-7"),
            good.replace("7", ""),
            good.replace("7", "٧"),
            good.replace("7", "9223372036854775808"),
            good.replace("journal 9", "journal 09"),
            good.replace("journal 9", "journal  9"),
            good.replace("journal 9", "journal"),
            good.replace("journal 9", "journal 0"),
            good.replace("journal 9", "Journal 9"),
            good.replace("journal 9", "journal 9\nmore"),
            good.replace("journal 9\n", ""),
            good.replace("log", ""),
            good.replace("log", "my log"),
            good.replace("log\n", "log\n\n"),
            good.replace('=', ""),
            good.replace("E=", "F="),
            format!("log\n7\n{}\njournal 9\n", STANDARD.encode([1; 31])),
            format!("log\n0\n{root}\njournal 0\n"),
            format!("log\n0\n{empty}\njournal 1\n"),
        ] {
            assert!(open(&body).is_err(), "`{body}` was taken");
        }
    }

    proptest! {
        #[test]
        fn every_checkpoint_opens_as_what_was_signed(
            size in 1..=TREE_SIZE_MAX, root: [u8; 32], sequence in 1..=TREE_SIZE_MAX,
        ) {
            let checkpoint = Checkpoint::new("log/1", size, Hash(root), sequence)?;
            prop_assert_eq!(open(&checkpoint.to_body())?, checkpoint);
        }

        #[test]
        fn any_signed_text_has_an_answer(body in "\\PC{0,20}\n(\\PC{0,20}\n){0,4}") {
            prop_assert!(open(&body).is_err());
        }
    }
}
