//! Ed25519 keys of C2SP signed notes, and their text forms.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use thiserror::Error;

use crate::hash::Hash;

/// Length of a key id, in bytes.
pub const KEY_ID_BYTES: usize = 4;

/// Longest key name or checkpoint origin, in bytes: far above any host and path,
/// and small enough that a checkpoint always fits a note.
pub const NAME_BYTES_MAX: usize = 255;

/// C2SP signature type of plain Ed25519.
const ED25519: u8 = 0x01;

/// What a private key's text begins with.
const PRIVATE: &str = "PRIVATE+KEY+";

/// Why a text or name does not make a key. Never holds a part of the text, which
/// may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// A name is non-empty and has no space, plus or control character.
    #[error(
        "`{name}` is no key name or origin: it must have 1 to {NAME_BYTES_MAX} bytes and no space, plus or control character"
    )]
    Name {
        /// The refused name, at most its first 64 characters.
        name: String,
    },
    /// The text has not the form `name+keyid+base64`.
    #[error("the key is not of the form `name+keyid+base64`")]
    Form,
    /// The key id is not that of the name and key.
    #[error("the key id does not belong to the name and key")]
    KeyId,
    /// Another type than Ed25519.
    #[error("the key type is {found:#04x}; only 0x01 (Ed25519) is known")]
    Type {
        /// The first byte of the encoded key.
        found: u8,
    },
    /// The 32 bytes are no usable Ed25519 public key.
    #[error("the key is not a point of Ed25519, or one of small order")]
    Point,
}

/// Signs notes under a name. Its `Debug` form shows no secret.
#[derive(Clone)]
pub struct Signer {
    name: String,
    key_id: [u8; KEY_ID_BYTES],
    key: SigningKey,
}

/// Verifies the notes of one signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    key_id: [u8; KEY_ID_BYTES],
    key: VerifyingKey,
}

impl Signer {
    /// Makes the signer of a 32-byte RFC 8032 secret seed.
    ///
    /// # Errors
    ///
    /// [`KeyError::Name`] if `name` is not a key name.
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Result<Self, KeyError> {
        check_name(name)?;
        let key = SigningKey::from_bytes(&seed);
        let key_id = key_id(name, key.verifying_key().as_bytes());
        Ok(Self { name: name.to_owned(), key_id, key })
    }

    /// Reads what [`Signer::to_private_text`] wrote; one final newline is allowed.
    ///
    /// # Errors
    ///
    /// [`KeyError`], which never repeats the text.
    pub fn parse(private_text: &str) -> Result<Self, KeyError> {
        let text = private_text.strip_suffix('\n').unwrap_or(private_text);
        let (name, key_id, seed) = parse_key(text.strip_prefix(PRIVATE).ok_or(KeyError::Form)?)?;
        let signer = Self::from_seed(name, seed)?;
        if signer.key_id != key_id {
            return Err(KeyError::KeyId);
        }
        Ok(signer)
    }

    /// Writes the secret key as `PRIVATE+KEY+name+keyid+base64(0x01 ‖ seed)`, for a
    /// file that only its owner reads.
    #[must_use]
    pub fn to_private_text(&self) -> String {
        format!("{PRIVATE}{}", key_text(&self.name, self.key_id, self.key.as_bytes()))
    }

    /// Writes the public key as `name+keyid+base64(0x01 ‖ public key)`.
    #[must_use]
    pub fn vkey(&self) -> String {
        self.verifier().vkey()
    }

    /// Returns the verifier of this signer's notes.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier { name: self.name.clone(), key_id: self.key_id, key: self.key.verifying_key() }
    }

    /// Returns the key name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Derives a key for another purpose: it tells nothing of this one, and is the
    /// same for everyone who holds this one.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        // HMAC takes keys of every length, so there is always one.
        Hmac::<Sha256>::new_from_slice(self.key.as_bytes()).map_or([0; 32], |mut mac| {
            mac.update(purpose.as_bytes());
            mac.finalize().into_bytes().into()
        })
    }

    /// Returns the key id.
    #[must_use]
    pub fn key_id(&self) -> [u8; KEY_ID_BYTES] {
        self.key_id
    }

    /// Signs `text` and returns key id ‖ signature.
    pub(crate) fn sign(&self, text: &[u8]) -> Vec<u8> {
        [self.key_id.as_slice(), &self.key.sign(text).to_bytes()].concat()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Signer")
            .field("name", &self.name)
            .field("key_id", &hex(self.key_id))
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads a public key of the form `name+keyid+base64(0x01 ‖ public key)`.
    ///
    /// # Errors
    ///
    /// [`KeyError`] if the form, the type, the id or the point is wrong.
    pub fn parse(vkey: &str) -> Result<Self, KeyError> {
        let (name, given_id, bytes) = parse_key(vkey)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Point)?;
        if key.is_weak() {
            return Err(KeyError::Point);
        }
        if key_id(name, &bytes) != given_id {
            return Err(KeyError::KeyId);
        }
        Ok(Self { name: name.to_owned(), key_id: given_id, key })
    }

    /// Writes the key as [`Verifier::parse`] reads it.
    #[must_use]
    pub fn vkey(&self) -> String {
        key_text(&self.name, self.key_id, self.key.as_bytes())
    }

    /// Returns the key name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the key id.
    #[must_use]
    pub fn key_id(&self) -> [u8; KEY_ID_BYTES] {
        self.key_id
    }

    /// Tells whether `signature` is this key's over `text` (RFC 8032, section
    /// 5.1.7, strict: canonical, no points of small order).
    pub(crate) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .and_then(|signature| self.key.verify_strict(text, &signature))
            .is_ok()
    }
}

/// Checks a key name or origin.
pub(crate) fn check_name(name: &str) -> Result<(), KeyError> {
    let refused =
        |character: char| character.is_whitespace() || character.is_control() || character == '+';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(refused) {
        return Err(KeyError::Name { name: name.chars().take(64).collect() });
    }
    Ok(())
}

/// C2SP signed-note: SHA-256(name ‖ 0x0A ‖ type ‖ public key), first 4 bytes.
fn key_id(name: &str, public_key: &[u8; 32]) -> [u8; KEY_ID_BYTES] {
    let Hash([a, b, c, d, ..]) = Hash::of(&[name.as_bytes(), b"\n", &[ED25519], public_key]);
    [a, b, c, d]
}

fn key_text(name: &str, key_id: [u8; KEY_ID_BYTES], key: &[u8; 32]) -> String {
    let encoded = STANDARD.encode([&[ED25519], key.as_slice()].concat());
    format!("{name}+{}+{encoded}", hex(key_id))
}

/// Splits `name+keyid+base64` and decodes it. Base64 itself may hold a plus.
fn parse_key(text: &str) -> Result<(&str, [u8; KEY_ID_BYTES], [u8; 32]), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id_text), Some(encoded)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(KeyError::Form);
    };
    check_name(name)?;
    let id_wrong = id_text.len() != 2 * KEY_ID_BYTES
        || id_text.contains(|digit: char| !matches!(digit, '0'..='9' | 'a'..='f'));
    if id_wrong {
        return Err(KeyError::Form);
    }
    let key_id = u32::from_str_radix(id_text, 16).map_err(|_| KeyError::Form)?.to_be_bytes();
    let decoded = STANDARD.decode(encoded).map_err(|_| KeyError::Form)?;
    let (kind, key) = decoded.split_first().ok_or(KeyError::Form)?;
    if *kind != ED25519 {
        return Err(KeyError::Type { found: *kind });
    }
    Ok((name, key_id, key.try_into().map_err(|_| KeyError::Form)?))
}

fn hex(key_id: [u8; KEY_ID_BYTES]) -> String {
    format!("{:08x}", u32::from_be_bytes(key_id))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A published pair of the Go module `golang.org/x/mod/sumdb/note`.
    const GO_PRIVATE: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const GO_VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    #[test]
    fn a_published_key_pair_reads_and_writes() {
        let signer = Signer::parse(GO_PRIVATE).unwrap();

        assert_eq!(signer.vkey(), GO_VKEY);
        assert_eq!(signer.to_private_text(), GO_PRIVATE);
        assert_eq!(Verifier::parse(GO_VKEY).unwrap(), signer.verifier());
    }

    #[test]
    fn a_signer_shows_no_secret() {
        let signer = Signer::parse(GO_PRIVATE).unwrap();

        assert_eq!(
            format!("{signer:?}"),
            r#"Signer { name: "PeterNeumann", key_id: "c74f20a3", .. }"#
        );
        let wrong = GO_PRIVATE.replace("c74f20a3", "c74f20a4");
        assert_eq!(Signer::parse(&wrong).unwrap_err(), KeyError::KeyId);
    }

    #[test]
    fn malformed_keys_are_refused() {
        for vkey in [
            "",
            "a+b",
            "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+AhpcQcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWA",
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10T",
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW\n",
            "PeterNeumann+c74f20a3+",
        ] {
            assert!(Verifier::parse(vkey).is_err(), "`{vkey}` was taken");
        }
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let text = key_text("log", key_id("log", &identity), &identity);

        assert_eq!(Verifier::parse(&text), Err(KeyError::Point));
    }

    #[test]
    fn names_with_spaces_or_plus_are_refused() {
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for name in ["", "a b", "a+b", "a\u{a0}b", "a\nb", "a\u{2003}b", "a\u{7f}", &long] {
            assert!(Signer::from_seed(name, [1; 32]).is_err(), "`{name}` was taken");
        }
    }

    proptest! {
        #[test]
        fn every_key_reads_back_from_its_text(seed: [u8; 32], name in "[a-z./ü0-9-]{1,20}") {
            let signer = Signer::from_seed(&name, seed)?;
            prop_assert_eq!(Signer::parse(&signer.to_private_text())?.vkey(), signer.vkey());
            prop_assert_eq!(Verifier::parse(&signer.vkey())?, signer.verifier());
        }

        #[test]
        fn any_text_has_an_answer(text in "\\PC{0,80}") {
            prop_assert!(Verifier::parse(&text).is_err());
            prop_assert!(Signer::parse(&text).is_err());
        }
    }
}
