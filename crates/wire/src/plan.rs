//! Compiled plans as stored bytes; a plan's digest is that of these bytes.

use fermata_core::digest::Digest;
use fermata_core::plan::Plan;

use crate::envelope::{WireError, read, write_named};

/// Encodes `plan` and digests the bytes. Plans may exceed a message's size:
/// they are stored as objects, not as messages.
///
/// # Errors
///
/// The encoder's; no plan meets one.
pub fn encode(plan: &Plan) -> Result<(Digest, Vec<u8>), WireError> {
    let mut bytes = Vec::new();
    write_named(&mut bytes, plan)?;
    Ok((Digest::of(&bytes), bytes))
}

/// Decodes a plan; only `Executable::new` says whether it is sound.
///
/// # Errors
///
/// [`WireError`], naming what is wrong.
pub fn decode(bytes: &[u8]) -> Result<Plan, WireError> {
    read("plan", bytes)
}
