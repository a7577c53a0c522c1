//! Reading objects of an object store (ADR 20 of NATS) by asking its leader for one chunk after the other.
//!
//! A client reads an object through a consumer of its own, which the broker keeps for a while after it was
//! used; a broker bounds how many a stream may have, so whoever reads an archive of a thousand objects that
//! way is refused. And what a client asks of any replica may be behind: an object that is there would be
//! missing, or lack chunks.

use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    connection::Broker,
    definitions_store::StoreError,
    held_message::{Wanted, held_message},
};

/// What the store says of an object.
#[derive(Debug, Deserialize)]
pub(crate) struct StoredObject {
    /// What its chunks are named by.
    pub(crate) nuid: String,
    /// Bytes of all chunks.
    #[serde(default)]
    pub(crate) size: usize,
    #[serde(default)]
    pub(crate) chunks: u64,
    /// Of its bytes, as whoever stored it says.
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    deleted: bool,
}

/// What became of reading an object's chunks.
pub(crate) enum Chunks {
    Whole(Bytes),
    /// So many are there, and no more.
    Missing {
        found: u64,
    },
}

/// Where chunks of an object are.
pub(crate) fn chunks_of(bucket: &str, nuid: &str) -> String {
    format!("$O.{bucket}.C.{nuid}")
}

/// Where it is described.
pub(crate) fn description_of(bucket: &str, name: &str) -> String {
    format!("$O.{bucket}.M.{}", BASE64_URL_SAFE.encode(name))
}

/// Asks for an object by its whole name; nothing when there is none.
///
/// # Errors
/// When the broker refuses or does not answer; [`StoreError::Damaged`] when what describes it is no
/// description.
///
/// # Cancel safety
/// Can be dropped.
pub(crate) async fn find(
    broker: &Broker,
    bucket: &str,
    name: &str,
) -> Result<Option<StoredObject>, StoreError> {
    let (stream, subject) = (format!("OBJ_{bucket}"), description_of(bucket, name));
    let wanted = Wanted::Newest { last_by_subj: &subject };
    let described = held_message(broker.consuming(), &stream, wanted).await;
    let described = described.map_err(StoreError::broker("look for the object", name))?;
    let Some(described) = described else { return Ok(None) };
    let object = serde_json::from_slice::<StoredObject>(&described.payload);
    let object = object.map_err(StoreError::blob("look for the object", name))?;
    Ok((!object.deleted).then_some(object))
}

/// Reads an object's chunks, in order, if they have `bytes_max` bytes at the most.
///
/// # Errors
/// [`StoreError::Damaged`] when they are not what was described; [`StoreError::TooLarge`]; else when the
/// broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub(crate) async fn read(
    broker: &Broker,
    bucket: &str,
    name: &str,
    object: &StoredObject,
    bytes_max: usize,
) -> Result<Chunks, StoreError> {
    let size = object.size;
    if size > bytes_max {
        return Err(StoreError::TooLarge { digest_hex: name.to_owned(), bytes: size });
    }
    let damaged =
        |detail: String| StoreError::Damaged { digest_hex: name.to_owned(), source: detail.into() };
    let (stream, subject) = (format!("OBJ_{bucket}"), chunks_of(bucket, &object.nuid));
    let (mut bytes, mut hash, mut from) = (Vec::with_capacity(size), Sha256::new(), 1);
    for found in 0..object.chunks {
        let wanted = Wanted::From { seq: from, next_by_subj: &subject };
        let chunk = held_message(broker.consuming(), &stream, wanted).await;
        let chunk = chunk.map_err(StoreError::blob("read the object", name))?;
        let Some(chunk) = chunk else { return Ok(Chunks::Missing { found }) };
        from = chunk.sequence + 1;
        hash.update(&chunk.payload);
        bytes.extend_from_slice(&chunk.payload);
        if bytes.len() > size {
            return Err(damaged(format!("it has more than its {size} bytes")));
        }
    }
    if bytes.len() < size {
        return Err(damaged(format!("it has {} of {size} bytes", bytes.len())));
    }
    let told = object.digest.as_deref().and_then(|digest| digest.strip_prefix("SHA-256="));
    if told.is_some_and(|told| told != BASE64_URL_SAFE.encode(hash.finalize())) {
        return Err(damaged(
            "its bytes have another digest than the one it was stored with".into(),
        ));
    }
    Ok(Chunks::Whole(bytes.into()))
}
