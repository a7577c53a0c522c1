//! Data in the store of payloads, read and checked by contracts.
//!
//! Only of types that have a contract, and within bounds: what is larger, or of too many
//! events of one message, counts as unchecked. Messages take turns by tenant, and what
//! does not come to its turn, or cannot be read now, comes again.

use std::time::Duration;

use fermata_core::contract::MESSAGE_STEPS_MAX;
use fermata_core::digest::Digest;
use fermata_core::event::{PAYLOADS_BUCKET, PayloadReference};
use fermata_jetstream::definitions_store::StoreError;
use fermata_jetstream::object_folder::ObjectFolder;
use tokio::time::{Instant, timeout_at};

use super::checks::{Checked, in_turns};
use super::outcomes::Pending;
use super::payloads::{PAYLOAD_CHANGED, PAYLOAD_MISSING};
use crate::contracts::{Breach, STORED_BYTES_MAX, StoredCheck};
use crate::ports::Ports;

/// Events of one message whose stored data is read. Default 8: reading and parsing them stays
/// within the time that a batch is given.
const STORED_EVENTS_MAX: usize = 8;

/// How long reading and checking the stored data of a batch may take. Default 2 s, of which
/// its other events wait no more; what is not checked then comes again.
const STORED_LIMIT: Duration = Duration::from_secs(2);

/// What is known of data that was to be read.
enum Read {
    Found(Vec<u8>),
    /// It is not checked, and this is why.
    Not(String),
    /// It is not there, or another one: a reason code, and a text.
    Refused(&'static str, String),
}

/// Checks what events of a batch refer to.
pub(super) async fn checked(
    ports: &Ports,
    stored: Vec<(Pending, (StoredCheck, PayloadReference))>,
) -> Checked {
    let mut checked = Checked::default();
    let until = Instant::now() + STORED_LIMIT;
    for message in in_turns(stored) {
        let sequences: Vec<u64> = message.iter().map(|(pending, _)| pending.sequence).collect();
        match timeout_at(until, of_message(ports, message)).await {
            Ok(Ok(breaches)) => checked.breaches.extend(breaches),
            Ok(Err(error)) => {
                tracing::warn!(%error, "stored data was not read to be checked; its events come again");
                checked.held_back.extend(sequences);
            }
            Err(_) => checked.held_back.extend(sequences),
        }
    }
    checked
}

async fn of_message(
    ports: &Ports,
    message: Vec<(Pending, (StoredCheck, PayloadReference))>,
) -> Result<Vec<(Pending, Breach)>, StoreError> {
    let (mut breaches, mut steps) = (Vec::new(), MESSAGE_STEPS_MAX);
    for (place, (pending, (check, reference))) in message.into_iter().enumerate() {
        let read = match place < STORED_EVENTS_MAX {
            true => read(ports, pending.tenant.as_str(), reference).await?,
            false => Read::Not(format!(
                "the data of {STORED_EVENTS_MAX} events of its message was read before it: send it by itself"
            )),
        };
        let breach = match read {
            Read::Refused(reason, detail) => Some(Breach::Refuse(reason, detail)),
            Read::Not(why) => check.unchecked(&why),
            Read::Found(bytes) => {
                let mut left = steps;
                let checking = tokio::task::spawn_blocking(move || {
                    let breach = check.breach(&bytes, &mut left);
                    (breach, left)
                });
                let (breach, left) = checking.await.map_err(|error| StoreError::Damaged {
                    digest_hex: reference.digest.to_string(),
                    source: error.into(),
                })?;
                steps = left;
                breach
            }
        };
        breaches.extend(breach.map(|breach| (pending, breach)));
    }
    Ok(breaches)
}

async fn read(
    ports: &Ports,
    tenant: &str,
    reference: PayloadReference,
) -> Result<Read, StoreError> {
    let folder = ObjectFolder::open(&ports.broker, PAYLOADS_BUCKET, tenant).await?;
    let uri = || reference.uri(tenant);
    let changed = |what: &str| Read::Refused(PAYLOAD_CHANGED, format!("`{}` {what}", uri()));
    let name = reference.digest.to_string();
    Ok(match folder.get_within(&name, STORED_BYTES_MAX).await {
        Ok(Some(bytes)) if Digest::of(&bytes) == reference.digest => Read::Found(bytes.into()),
        Ok(Some(_)) => changed("has another digest than its name"),
        Ok(None) => Read::Refused(
            PAYLOAD_MISSING,
            format!("there is no `{}`, or it is no longer kept", uri()),
        ),
        Err(StoreError::TooLarge { bytes, .. }) => {
            Read::Not(format!("`{}` has {bytes} bytes, at most {STORED_BYTES_MAX} are read", uri()))
        }
        Err(StoreError::Damaged { .. }) => changed("is not whole"),
        Err(error) => return Err(error),
    })
}
