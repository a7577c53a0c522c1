//! Payloads that are too large for an event: stored by their digest, below the tenant's name.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use serde::Deserialize;
use tokio::io::AsyncRead;

use crate::{
    api::{ApiError, ask_to_read},
    connection::Broker,
    definitions_store::StoreError,
    object_folder::ObjectFolder,
    reader::{ReadError, StreamReader},
    size_limit::SizeLimit,
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

/// How far in the future of the broker's clock a payload may have been stored: servers of a cluster do not
/// have the same time to the second. Further, nobody knows how old it is.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct StoreInfo {
    config: StoreConfig,
}

#[derive(Deserialize)]
struct StoreConfig {
    #[serde(default)]
    max_bytes: SizeLimit,
}

/// How many bytes the store of payloads may hold; nothing where it has no limit of its own.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn payload_room_bytes(broker: &Broker) -> Result<Option<u64>, ApiError> {
    let request = format!("STREAM.INFO.OBJ_{PAYLOADS_BUCKET}");
    let info: StoreInfo = ask_to_read(broker.publishing(), &request, &()).await?;
    Ok(info.config.max_bytes.bytes())
}

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
    let stored = folder.stored_ms(digest_hex).await?.map(Duration::from_millis);
    let is_there =
        is_young(stored, folder.broker_time().await?) && folder.is_whole(digest_hex).await?;
    Ok(is_there.then(|| usize::try_from(found.bytes).unwrap_or(usize::MAX)))
}

/// Whether a payload was stored lately, both times being the broker's: the clock of whoever publishes may be
/// days behind, and a payload that is about to go would be young.
fn is_young(stored: Option<Duration>, now: Option<Duration>) -> bool {
    let (Some(stored), Some(now)) = (stored, now) else { return false };
    let age = (now + CLOCKS_APART_MAX).checked_sub(stored);
    age.is_some_and(|age| age < STORED_AGAIN_AFTER + CLOCKS_APART_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_no_known_age_is_stored_again() {
        let at = |seconds: u64| Some(Duration::from_secs(1_800_000_000 + seconds));
        let day = STORED_AGAIN_AFTER.as_secs();

        assert!(is_young(at(0), at(0)) && is_young(at(0), at(day - 1)));
        assert!(!is_young(at(0), at(day)));
        // A clock that is behind the one by which it was stored, by a little and by days.
        assert!(is_young(at(59), at(0)) && !is_young(at(3 * day), at(0)));
        assert!(!is_young(None, at(0)) && !is_young(at(0), None));
    }
}
