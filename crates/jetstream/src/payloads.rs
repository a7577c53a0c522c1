//! Payloads that are too large for an event: stored by their digest, below the tenant's name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use serde::Deserialize;
use tokio::io::AsyncRead;

use crate::{
    connection::Broker,
    definitions_store::StoreError,
    object_folder::ObjectFolder,
    reader::{ReadError, StreamReader},
    topology::PAYLOADS_BUCKET,
};

/// What the object store says of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadFacts {
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes as whoever stored it says; nothing where it says none.
    pub digest: Option<[u8; 32]>,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    size: u64,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    deleted: bool,
}

/// How old a payload may be that is not stored again when somebody publishes it again: it is kept for 30 days
/// from when it was stored, and who publishes it may rely on 29 of them.
const STORED_AGAIN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Asks for a payload by its name, the digest in hexadecimal; nothing when there is none. The leader answers.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn find_payload(
    reader: &StreamReader,
    tenant: &str,
    digest_hex: &str,
) -> Result<Option<PayloadFacts>, ReadError> {
    let name = BASE64_URL_SAFE.encode(format!("{tenant}.{digest_hex}"));
    let (stream, subject) =
        (format!("OBJ_{PAYLOADS_BUCKET}"), format!("$O.{PAYLOADS_BUCKET}.M.{name}"));
    let Some(message) = reader.last_of_subject(&stream, &subject).await? else { return Ok(None) };
    // What is no description of an object describes none.
    let Ok(info) = serde_json::from_slice::<Info>(&message.payload) else { return Ok(None) };
    let digest = info.digest.strip_prefix("SHA-256=");
    let digest = digest.and_then(|digest| BASE64_URL_SAFE.decode(digest).ok());
    let digest = digest.and_then(|digest| digest.try_into().ok());
    Ok((!info.deleted).then_some(PayloadFacts { bytes: info.size, digest }))
}

/// Stores a payload under its digest, read as it goes. `on_progress` is told of the bytes of each stored part.
///
/// # Errors
/// [`StoreError::Damaged`] when the bytes are not those of the digest; when there are more than
/// [`crate::definitions_store::BLOB_BYTES_MAX`], they cannot be read, or the broker refuses or does not answer.
///
/// # Cancel safety
/// A part may be stored; it is seen by nobody, and goes when it is old.
pub async fn put_payload(
    broker: &Broker,
    tenant: &str,
    digest: [u8; 32],
    digest_hex: &str,
    bytes: impl AsyncRead + Unpin,
    mut on_progress: impl FnMut(usize),
) -> Result<(), StoreError> {
    let folder = ObjectFolder::open(broker, PAYLOADS_BUCKET, tenant).await?;
    if let Some(size) = stored_lately(&folder, broker, tenant, digest, digest_hex).await? {
        on_progress(size);
        return Ok(());
    }
    // What was interrupted takes room that nobody else gives back.
    if let Err(error) = folder.sweep().await {
        tracing::debug!(%error, "what unfinished payloads left is not removed");
    }
    folder.put_from(digest_hex, bytes, Some(digest), on_progress).await
}

/// The size of a payload that is there with these very bytes, and not for long: stored once more it would take
/// its room again until the chunks of before are swept.
async fn stored_lately(
    folder: &ObjectFolder,
    broker: &Broker,
    tenant: &str,
    digest: [u8; 32],
    digest_hex: &str,
) -> Result<Option<usize>, StoreError> {
    let failed = StoreError::broker("look at the payload", digest_hex);
    let found = find_payload(&StreamReader::new(broker), tenant, digest_hex).await;
    let Some(found) = found.map_err(failed)?.filter(|found| found.digest == Some(digest)) else {
        return Ok(None);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stored = folder.stored_ms(digest_hex).await?.map(Duration::from_millis);
    let is_young = stored.is_some_and(|stored| now.saturating_sub(stored) < STORED_AGAIN_AFTER);
    let is_there = is_young && folder.is_whole(digest_hex).await?;
    Ok(is_there.then(|| usize::try_from(found.bytes).unwrap_or(usize::MAX)))
}
