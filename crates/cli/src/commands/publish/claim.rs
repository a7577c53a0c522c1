//! Data that is too large for its event: it goes into the store of payloads, and
//! the event says where it is (the claim check of CloudEvents, `dataref`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use fermata_core::digest::Digest;
use fermata_core::event::{
    DATADIGEST_ATTRIBUTE, DATAREF_ATTRIBUTE, EVENT_BYTES_MAX, PayloadReference,
};
use fermata_core::json::key_twice;
use fermata_jetstream::definitions_store::BLOB_BYTES_MAX;
use fermata_jetstream::payloads::put_payload;
use fermata_jetstream::{Broker, Bytes};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, ReadBuf};

use super::PAYLOAD_MIB_MAX;
use super::message::TWICE;
use crate::error::CliError;
use crate::output::{Output, size_text};

/// Bytes of a file that are hashed at once.
const READ_BYTES: usize = 64 * 1024;

/// Media type of a file that no media type was said of.
const BYTES: &str = "application/octet-stream";
const JSON: &str = "application/json";

/// Data that has to be stored before its event is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    tenant: String,
    digest: Digest,
    bytes: u64,
    held: Held,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    Memory(Bytes),
    File(PathBuf),
}

/// An event as its members, each as it was written.
type Members = BTreeMap<String, Box<RawValue>>;

fn text(value: &str) -> Result<Box<RawValue>, CliError> {
    to_raw_value(&Value::from(value)).map_err(event_error)
}

fn event_error(source: serde_json::Error) -> CliError {
    CliError::Given { what: "the event".to_owned(), source }
}

fn refer(event: &mut Members, tenant: &str, digest: Digest) -> Result<Vec<u8>, CliError> {
    let reference = PayloadReference { digest };
    event.insert(DATAREF_ATTRIBUTE.to_owned(), text(&reference.uri(tenant))?);
    event.insert(DATADIGEST_ATTRIBUTE.to_owned(), text(&reference.datadigest())?);
    serde_json::to_vec(event).map_err(event_error)
}

/// A file that holds the data of an event.
pub(super) struct DataFile<'f> {
    pub(super) path: &'f Path,
    pub(super) media_type: Option<&'f str>,
    /// Whether an object that has a key twice is refused.
    pub(super) checks_keys: bool,
}

impl Claim {
    /// Takes the data out of an event that is too large; nothing where it is not,
    /// or has no JSON data that could be taken out.
    pub(super) fn split(
        bytes: &[u8],
        tenant: Option<&str>,
    ) -> Result<Option<(Vec<u8>, Self)>, CliError> {
        if bytes.len() <= EVENT_BYTES_MAX {
            return Ok(None);
        }
        let Ok(mut event) = serde_json::from_slice::<Members>(bytes) else { return Ok(None) };
        let named = event.get("tenant").and_then(|name| serde_json::from_str(name.get()).ok());
        let Some(tenant) = tenant.map(str::to_owned).or(named) else { return Ok(None) };
        if event.contains_key(DATAREF_ATTRIBUTE) {
            return Ok(None);
        }
        let Some(data) = event.remove("data") else { return Ok(None) };
        let data = Bytes::from(data.get().to_owned());
        let digest = Digest::of(&data);
        let bytes = refer(&mut event, &tenant, digest)?;
        let (size, held) = (data.len() as u64, Held::Memory(data));
        Ok(Some((bytes, Self { tenant, digest, bytes: size, held })))
    }

    /// Gives an event the data of a file: in the event where it is JSON and fits,
    /// else as a reference.
    pub(super) fn of_file(
        event: &[u8],
        data: &DataFile<'_>,
        tenant: &str,
    ) -> Result<(Vec<u8>, Option<Self>), CliError> {
        let DataFile { path: file, media_type, checks_keys } = *data;
        let failed = || CliError::io(format!("read `{}`", file.display()));
        let mut event: Members = serde_json::from_slice(event).map_err(event_error)?;
        let size = std::fs::metadata(file).map_err(failed())?.len();
        if size > BLOB_BYTES_MAX as u64 {
            let name = file.display();
            let size = size_text(size);
            let text =
                format!("`{name}` has {size}, and a payload {PAYLOAD_MIB_MAX} MiB at the most");
            return Err(CliError::Usage(text));
        }
        let is_json = media_type.is_none_or(|media_type| media_type == JSON);
        if is_json && size <= EVENT_BYTES_MAX as u64 {
            let bytes = std::fs::read(file).map_err(failed())?;
            if let Ok(data) = serde_json::from_slice::<Box<RawValue>>(&bytes) {
                let mut with = event.clone();
                with.insert("datacontenttype".to_owned(), text(JSON)?);
                with.insert("data".to_owned(), data);
                let with = serde_json::to_vec(&with).map_err(event_error)?;
                if with.len() <= EVENT_BYTES_MAX {
                    // Read once: it may be a pipe.
                    let twice = std::str::from_utf8(&bytes).ok().and_then(key_twice);
                    if let Some(error) = twice.filter(|_| checks_keys) {
                        let name = file.display();
                        return Err(CliError::Usage(format!("in `{name}` {error}; {TWICE}")));
                    }
                    return Ok((with, None));
                }
            }
        }
        let by_name = file.extension().is_some_and(|extension| extension == "json");
        let media_type = media_type.unwrap_or(if by_name { JSON } else { BYTES });
        event.insert("datacontenttype".to_owned(), text(media_type)?);
        let digest = hash(file).map_err(failed())?;
        let bytes = refer(&mut event, tenant, digest)?;
        let (tenant, held) = (tenant.to_owned(), Held::File(file.to_owned()));
        Ok((bytes, Some(Self { tenant, digest, bytes: size, held })))
    }

    /// How many bytes the data has.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the data is and how many bytes it has, for people.
    pub(super) fn described(&self) -> String {
        let size = size_text(self.bytes);
        match &self.held {
            Held::Memory(_) => format!("the {size} of the event's data"),
            Held::File(path) => format!("the {size} of `{}`", path.display()),
        }
    }

    /// Stores the data, and shows how far it is. Once `stop` is set this fails, and what was stored
    /// is removed.
    ///
    /// # Cancel safety
    ///
    /// A part may be stored, which nobody sees.
    pub(super) async fn store(
        &self,
        broker: &Broker,
        stop: &AtomicBool,
        output: &Output,
    ) -> Result<(), CliError> {
        let progress = output.progress_of_bytes(self.bytes, "of data stored");
        let on_progress = |bytes: usize| progress.inc(bytes as u64);
        let (tenant, name) = (self.tenant.as_str(), self.digest.to_string());
        let digest = self.digest.0;
        let stored = match &self.held {
            Held::Memory(bytes) => {
                let bytes = Stoppable { bytes: &bytes[..], stop };
                put_payload(broker, tenant, digest, &name, bytes, on_progress).await
            }
            Held::File(path) => {
                let file = tokio::fs::File::open(path).await;
                let file = file.map_err(CliError::io(format!("read `{}`", path.display())))?;
                let bytes = Stoppable { bytes: file, stop };
                put_payload(broker, tenant, digest, &name, bytes, on_progress).await
            }
        };
        progress.finish_and_clear();
        Ok(stored?)
    }
}

/// Bytes that fail to be read once somebody says so: whoever stores them then removes what was stored.
struct Stoppable<'a, R> {
    bytes: R,
    stop: &'a AtomicBool,
}

impl<R: AsyncRead + Unpin> AsyncRead for Stoppable<'_, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.stop.load(Ordering::Relaxed) {
            return Poll::Ready(Err(std::io::Error::other("ended by a signal")));
        }
        Pin::new(&mut self.bytes).poll_read(context, buffer)
    }
}

fn hash(file: &Path) -> std::io::Result<Digest> {
    let mut file = File::open(file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Digest(hash.finalize().into()));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_data_of_an_event_that_is_too_large_is_taken_out_as_it_was_written() {
        let data = format!("[1.10,\"{}\"]", "x".repeat(EVENT_BYTES_MAX));
        let event = format!(r#"{{"id":"1","tenant":"acme","data":{data},"n":9007199254740993}}"#);

        let (rest, claim) = Claim::split(event.as_bytes(), None).unwrap().unwrap();

        assert_eq!(claim.held, Held::Memory(Bytes::from(data.clone())));
        let rest: Value = serde_json::from_slice(&rest).unwrap();
        let digest = Digest::of(data.as_bytes());
        assert_eq!(
            rest,
            json!({
                "id": "1", "tenant": "acme", "n": 9_007_199_254_740_993_u64,
                "dataref": format!("nats-object://fermata-payloads/acme/{digest}"),
                "datadigest": format!("sha256:{digest}"),
            })
        );
        assert_eq!(Claim::split(br#"{"tenant":"acme","data":1}"#, None).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_no_payload_is_told_in_sizes_that_people_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scan.tiff");
        File::create(&path).unwrap().set_len(300 << 20).unwrap();

        let data = DataFile { path: &path, media_type: None, checks_keys: true };
        let refused = Claim::of_file(b"{}", &data, "acme").unwrap_err().to_string();

        assert!(refused.ends_with("has 300.0 MiB, and a payload 256 MiB at the most"), "{refused}");
    }

    #[test]
    fn a_file_goes_into_the_event_where_it_is_json_and_fits() {
        let folder = tempfile::tempdir().unwrap();
        let made = |name: &str, bytes: &[u8], media_type| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let data = DataFile { path: &path, media_type, checks_keys: true };
            let (event, claim) = Claim::of_file(br#"{"id":"1"}"#, &data, "acme").unwrap();
            (serde_json::from_slice::<Value>(&event).unwrap(), claim)
        };

        let (event, claim) = made("small", br#"{"n":1}"#, None);
        assert_eq!((&event["data"], claim), (&json!({"n": 1}), None));
        let large = format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX));
        for (name, bytes, media_type, expected) in [
            ("large.json", large.as_bytes(), None, JSON),
            ("binary", &b"\xff\x00"[..], None, BYTES),
            ("image", &b"1"[..], Some("image/png"), "image/png"),
        ] {
            let (event, claim) = made(name, bytes, media_type);
            assert_eq!(event["datacontenttype"], expected);
            assert_eq!(claim.unwrap().digest, Digest::of(bytes), "{name}");
            assert!(event.get("data").is_none() && event["dataref"].is_string(), "{event}");
        }
    }
}
