//! Files in the object store: `{kind, version, body: bin, digest: bin(32)}`.
//!
//! A file may be larger than any message, so it has no envelope; `digest` is the
//! SHA-256 of the body. What is read is one of: what was written, a file of a
//! newer program, a damaged file, or no file of ours.

use fermata_core::digest::Digest;
use serde::Deserialize;
use thiserror::Error;

use crate::envelope::{WireError, read, write_named};

/// What a file is, and the newest version of it that this program reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKind {
    /// Its name in the file.
    pub name: &'static str,
    /// The version.
    pub version: u16,
}

/// Why bytes are no file of ours.
#[derive(Debug, Error)]
pub enum FileError {
    /// Not of the form, or cut.
    #[error("the bytes are no `{expected}`, or were cut")]
    Malformed {
        /// What was expected.
        expected: &'static str,
        /// What the decoder met.
        #[source]
        source: WireError,
    },
    /// Another kind of file.
    #[error("the file is `{found}`, expected `{expected}`")]
    WrongKind {
        /// What was expected.
        expected: &'static str,
        /// What it says it is.
        found: String,
    },
    /// Written by a newer program; this one must be upgraded to read it.
    #[error("the `{kind}` has version {version}, this program reads up to {known}; upgrade it")]
    NewerVersion {
        /// What it is.
        kind: &'static str,
        /// Its version.
        version: u16,
        /// The newest that we read.
        known: u16,
    },
    /// Its body is not what was written.
    #[error("the body of the `{kind}` does not have the digest that was written with it")]
    Damaged {
        /// What it is.
        kind: &'static str,
    },
}

/// The part that every version has.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    kind: &'a str,
    version: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole<'a> {
    #[serde(rename = "kind")]
    _kind: &'a str,
    #[serde(rename = "version")]
    _version: u16,
    #[serde(borrow, with = "serde_bytes")]
    body: &'a [u8],
    digest: Digest,
}

/// Writes a file of `kind` whose body `write` writes, in one piece of memory.
///
/// # Errors
///
/// The encoder's, or that the body exceeds 4 GiB.
pub fn seal(
    kind: FileKind,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), rmp_serde::encode::Error>,
) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![0x84];
    write_named(&mut bytes, "kind")?;
    write_named(&mut bytes, kind.name)?;
    write_named(&mut bytes, "version")?;
    write_named(&mut bytes, &kind.version)?;
    write_named(&mut bytes, "body")?;
    // `bin 32`: how long the body gets is known when it is written.
    bytes.push(0xc6);
    let length_at = bytes.len();
    bytes.extend([0; 4]);
    let begin = bytes.len();
    write(&mut bytes)?;
    let body = bytes.get(begin..).unwrap_or_default();
    let length = u32::try_from(body.len())
        .map_err(|_| WireError::TooLarge { bytes: body.len() })?
        .to_be_bytes();
    let digest = Digest::of(body);
    if let Some(place) = bytes.get_mut(length_at..begin) {
        place.copy_from_slice(&length);
    }
    write_named(&mut bytes, "digest")?;
    write_named(&mut bytes, &digest)?;
    Ok(bytes)
}

/// The body of a file of `kind`, which has its digest.
///
/// # Errors
///
/// [`FileError`], telling apart what was cut, damaged, and written by a newer
/// program; never panics, on any bytes.
pub fn open(kind: FileKind, bytes: &[u8]) -> Result<&[u8], FileError> {
    open_whole(kind, bytes).map(|(body, _)| body)
}

fn open_whole(kind: FileKind, bytes: &[u8]) -> Result<(&[u8], Digest), FileError> {
    let malformed = |source| FileError::Malformed { expected: kind.name, source };
    let head: Head<'_> = read(kind.name, bytes).map_err(malformed)?;
    if head.kind != kind.name {
        let found = head.kind.chars().take(80).collect();
        return Err(FileError::WrongKind { expected: kind.name, found });
    }
    if head.version > kind.version || head.version == 0 {
        let (version, known) = (head.version, kind.version);
        return Err(FileError::NewerVersion { kind: kind.name, version, known });
    }
    let whole: Whole<'_> = read(kind.name, bytes).map_err(malformed)?;
    match Digest::of(whole.body) == whole.digest {
        true => Ok((whole.body, whole.digest)),
        false => Err(FileError::Damaged { kind: kind.name }),
    }
}

/// The same of a file whose body has the digest `expected`, by which it was named.
///
/// # Errors
///
/// As [`open`]; [`FileError::Damaged`] also if it is another file.
pub fn open_named<'a>(
    kind: FileKind,
    expected: &Digest,
    bytes: &'a [u8],
) -> Result<&'a [u8], FileError> {
    let (body, digest) = open_whole(kind, bytes)?;
    match digest == *expected {
        true => Ok(body),
        false => Err(FileError::Damaged { kind: kind.name }),
    }
}

/// Reads the body of a file as one `T`.
///
/// # Errors
///
/// [`FileError::Malformed`] if it is none.
pub fn read_body<'a, T: Deserialize<'a>>(kind: FileKind, body: &'a [u8]) -> Result<T, FileError> {
    read(kind.name, body).map_err(|source| FileError::Malformed { expected: kind.name, source })
}
