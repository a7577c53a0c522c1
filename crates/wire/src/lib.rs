//! What stands on the wire and in streams.
//!
//! Every message between our own actors is an [`envelope`]: a kind, a version,
//! a size cap and a body, in MessagePack with named fields. Stored bytes are
//! read for ever: a version's layout never changes, its golden bytes are kept
//! under `tests/golden/`, and a new layout is a new version with an upcaster.

pub mod audit;
pub mod commands;
pub mod dead;
pub mod envelope;
pub mod journal;
pub mod plan;
pub mod projection;
pub mod relay;
pub mod replay;
pub mod sealed_file;
pub mod segment;
pub mod stages;
pub mod subjects;
pub mod tasks;

pub use envelope::{ENVELOPE_BYTES_MAX, Envelope, MessageKind, WireError};
