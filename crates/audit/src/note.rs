//! Signed notes as in C2SP signed-note: a text, a blank line, signature lines.

use std::str;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::key::{KEY_ID_BYTES, Signer, Verifier, check_name};

/// Largest note, in bytes: some hundred times our checkpoints. A larger one is
/// refused unread.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;

/// Most signatures of a note: the number that C2SP signed-note requires every
/// reader to accept. A note with more is refused.
pub const SIGNATURES_MAX: usize = 16;

/// What a signature line begins with: em dash and space.
const SIGNATURE_START: &str = "— ";

/// Why a note is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoteError {
    /// Larger than [`NOTE_BYTES_MAX`].
    #[error("a note of {bytes} bytes exceeds {NOTE_BYTES_MAX}")]
    TooLarge {
        /// Length of the note.
        bytes: usize,
    },
    /// More signatures than [`SIGNATURES_MAX`].
    #[error("a note has more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// Not UTF-8.
    #[error("the note is not UTF-8")]
    NotUtf8,
    /// A control character other than newline, a carriage return included.
    #[error("the note has the control character {character:#04x}")]
    ControlCharacter {
        /// The character's code.
        character: u32,
    },
    /// The parts are not text, blank line, signature lines, each ended by newline.
    #[error("the note is not a text, a blank line and signature lines, each ended by a newline")]
    Form,
    /// A signature line is not `— name base64`, canonically encoded.
    #[error("signature line {line} is not `— name base64`")]
    SignatureLine {
        /// Number of the line among the signature lines, from 1.
        line: usize,
    },
    /// Two different known keys share name and id.
    #[error("two known keys are named `{name}` with the same id")]
    AmbiguousKey {
        /// Name of both keys.
        name: String,
    },
    /// A known key's signature does not verify.
    #[error("the signature of `{name}` does not verify")]
    BadSignature {
        /// Name of the key.
        name: String,
    },
    /// No signature is by a known key.
    #[error("no signature is by a known key")]
    NoKnownSignature,
}

/// Signs `text`, which ends in newline, with each of `signers`.
///
/// # Errors
///
/// [`NoteError`] if the result would not be a note.
pub fn sign_note(text: &str, signers: &[&Signer]) -> Result<String, NoteError> {
    if text.is_empty() || !text.ends_with('\n') || signers.is_empty() {
        return Err(NoteError::Form);
    }
    if signers.len() > SIGNATURES_MAX {
        return Err(NoteError::TooManySignatures);
    }
    let note = signed(text, signers);
    check_characters(&note)?;
    Ok(note)
}

/// Joins `text` and its signature lines, unchecked.
pub(crate) fn signed(text: &str, signers: &[&Signer]) -> String {
    let mut note = format!("{text}\n");
    for signer in signers {
        let signature = STANDARD.encode(signer.sign(text.as_bytes()));
        note.extend([SIGNATURE_START, signer.name(), " ", &signature, "\n"]);
    }
    note
}

/// Opens a note and returns its text, which ends in newline.
///
/// A signature by a key that is not in `verifiers` (by name and id) is ignored;
/// every one by a known key, repeated ones included, must verify, and at least
/// one must be there.
///
/// # Errors
///
/// [`NoteError`]; nothing of the note is to be believed then.
pub fn open_note<'note>(
    note: &'note [u8],
    verifiers: &[Verifier],
) -> Result<&'note str, NoteError> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(NoteError::TooLarge { bytes: note.len() });
    }
    let note = str::from_utf8(note).map_err(|_| NoteError::NotUtf8)?;
    check_characters(note)?;
    let (text, signatures) = split(note)?;
    if signatures.lines().count() > SIGNATURES_MAX {
        return Err(NoteError::TooManySignatures);
    }
    let mut verified = 0_usize;
    for (index, line) in signatures.lines().enumerate() {
        let (name, key_id, signature) =
            parse_signature(line).ok_or(NoteError::SignatureLine { line: index + 1 })?;
        let Some(verifier) = known(verifiers, name, key_id)? else { continue };
        if !verifier.verifies(text.as_bytes(), &signature) {
            return Err(NoteError::BadSignature { name: name.to_owned() });
        }
        verified += 1;
    }
    if verified == 0 {
        return Err(NoteError::NoKnownSignature);
    }
    Ok(text)
}

fn check_characters(note: &str) -> Result<(), NoteError> {
    match note.chars().find(|character| *character < ' ' && *character != '\n') {
        Some(character) => Err(NoteError::ControlCharacter { character: character.into() }),
        None => Ok(()),
    }
}

/// Splits at the last blank line into the text, with its newline, and the lines.
fn split(note: &str) -> Result<(&str, &str), NoteError> {
    let blank = note.rfind("\n\n").ok_or(NoteError::Form)?;
    let (text, rest) = note.split_at_checked(blank + 1).ok_or(NoteError::Form)?;
    let signatures = rest.strip_prefix('\n').ok_or(NoteError::Form)?;
    if text.len() < 2 || !signatures.ends_with('\n') {
        return Err(NoteError::Form);
    }
    Ok((text, signatures))
}

fn parse_signature(line: &str) -> Option<(&str, [u8; KEY_ID_BYTES], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix(SIGNATURE_START)?.split_once(' ')?;
    check_name(name).ok()?;
    let decoded = STANDARD.decode(encoded).ok()?;
    let (key_id, signature) = decoded.split_first_chunk::<KEY_ID_BYTES>()?;
    if signature.is_empty() {
        return None;
    }
    Some((name, *key_id, signature.to_vec()))
}

/// Finds the one known key of this name and id.
fn known<'keys>(
    verifiers: &'keys [Verifier],
    name: &str,
    key_id: [u8; KEY_ID_BYTES],
) -> Result<Option<&'keys Verifier>, NoteError> {
    let mut found = verifiers.iter().filter(|key| key.name() == name && key.key_id() == key_id);
    let first = found.next();
    if found.any(|other| Some(other) != first) {
        return Err(NoteError::AmbiguousKey { name: name.to_owned() });
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    /// A note published with the Go module `golang.org/x/mod/sumdb/note`.
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn keys() -> Vec<Verifier> {
        vec![Verifier::parse(VKEY).unwrap()]
    }

    fn open(note: &str) -> Result<&str, NoteError> {
        open_note(note.as_bytes(), &keys())
    }

    fn stranger() -> Signer {
        Signer::from_seed("EnochRoot", [9; 32]).unwrap()
    }

    #[test]
    fn a_published_note_opens() {
        let text = open(NOTE).unwrap();

        assert!(text.starts_with("If you think") && text.ends_with("your problem is.\n"));
    }

    #[test]
    fn unknown_signatures_are_ignored_but_do_not_count() {
        let (text, line) = split(NOTE).unwrap();
        let theirs = signed(text, &[&stranger()]);
        let both = format!("{theirs}{line}");

        assert_eq!(open(&both), Ok(text));
        assert_eq!(open(&theirs), Err(NoteError::NoKnownSignature));
        // Same name, other id; same id, other name: both unknown.
        let namesake = Signer::from_seed("PeterNeumann", [9; 32]).unwrap();
        assert_eq!(open(&signed(text, &[&namesake])), Err(NoteError::NoKnownSignature));
        assert_eq!(
            open(&NOTE.replace("— PeterNeumann", "— PeterNeuman")),
            Err(NoteError::NoKnownSignature)
        );
    }

    #[test]
    fn a_failing_known_signature_refuses_the_note_even_beside_a_good_one() {
        let (text, line) = split(NOTE).unwrap();
        let bad = line.replace("BwJnAM=", "BwJnAQ=");

        assert!(open(&format!("{text}\n{line}{line}")).is_ok(), "a repeated good one is no harm");
        let refused = Err(NoteError::BadSignature { name: "PeterNeumann".into() });
        assert_eq!(open(&format!("{text}\n{line}{bad}")), refused);
        assert_eq!(open(&format!("{text}\n{bad}{line}")), refused);
    }

    #[test]
    fn too_much_is_refused() {
        let (text, line) = split(NOTE).unwrap();
        let theirs = signed("", &[&stranger()]).replace('\n', "") + "\n";

        assert!(open(&format!("{text}\n{}{line}", theirs.repeat(SIGNATURES_MAX - 1))).is_ok());
        assert_eq!(
            open(&format!("{text}\n{}{line}", theirs.repeat(SIGNATURES_MAX))),
            Err(NoteError::TooManySignatures)
        );
        assert!(matches!(open(&"a".repeat(NOTE_BYTES_MAX + 1)), Err(NoteError::TooLarge { .. })));
    }

    #[test]
    fn malformed_notes_are_refused() {
        for note in [
            "",
            "\n",
            "\n\n",
            "text\n",
            "text\n\n",
            &NOTE.replace('\n', "\r\n"),
            NOTE.trim_end(),
            &format!("{NOTE}\n"),
            &format!("{NOTE}more\n"),
            &NOTE.replace("cryptography", "crypto\tgraphy"),
            &NOTE.replace("— ", "- "),
            &NOTE.replace("— ", "—  "),
            // Padding dropped; bits behind the last byte set; a space added.
            &NOTE.replace("AM=", "AM"),
            &NOTE.replace("AM=", "AN="),
            &NOTE.replace("AM=", "AM= "),
            &NOTE.replace("\n\n", "\n"),
            "\n\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8\n",
            "text\n\n— PeterNeumann x08gow==\n",
        ] {
            assert!(open(note).is_err(), "`{note}` was taken");
        }
        assert_eq!(open_note(b"\xff\n\n", &keys()), Err(NoteError::NotUtf8));
    }

    #[test]
    fn two_known_keys_of_one_name_and_id_are_refused() {
        let twice = [keys(), keys()].concat();

        assert!(open_note(NOTE.as_bytes(), &twice).is_ok(), "the same key twice is one key");
    }

    proptest! {
        #[test]
        fn a_signed_text_opens_and_a_changed_one_does_not(
            text in "[a-zü \n]{1,60}\n",
            seed: [u8; 32],
            at: prop::sample::Index,
            bit in 0..8_u32,
        ) {
            let signer = Signer::from_seed("log", seed)?;
            let note = sign_note(&text, &[&signer])?;
            let keys = [signer.verifier()];
            prop_assert_eq!(open_note(note.as_bytes(), &keys), Ok(text.as_str()));

            let mut changed = note.into_bytes();
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            prop_assert!(open_note(&changed, &keys).is_err());
        }

        #[test]
        fn any_bytes_have_an_answer(note: Vec<u8>, text in "\\PC{0,40}\n\n\\PC{0,40}\n") {
            prop_assert!(open_note(&note, &keys()).is_err());
            prop_assert!(open(&text).is_err());
        }
    }
}
