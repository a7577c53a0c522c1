//! Objects of one owner in a bucket that others share: snapshots, archived journals.
//!
//! The layout is that of the object store (ADR 20 of NATS), so any client reads what is here. It is written by
//! hand for things that a client does not do: chunks are named by whom they belong to, so that what an
//! upload left that never ended can be found and removed; a removed object leaves no marker behind, of which
//! there would be one for ever for each. How it is read, see `stored_object`.

use std::{collections::BTreeMap, time::Duration};

use async_nats::HeaderMap;
use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use crate::{
    api::{ApiError, ask},
    connection::Broker,
    definitions_store::{BLOB_BYTES_MAX, StoreError},
    reader::StreamReader,
    stored_object::{self, Chunks, StoredObject},
    stream_info::{broker_time, stream_info},
};

/// Size of a chunk in bytes: half of the largest message, so that no answer waits long behind one.
const CHUNK_BYTES: usize = 512 * 1024;

/// How long storing or reading an object may take: 256 MiB over a slow line. Far below [`ORPHAN_AGE`]: nobody
/// may take what is being stored for what was abandoned.
const TRANSFER_LIMIT: Duration = Duration::from_secs(600);

/// How old the newest chunk of an upload is when it counts as abandoned.
pub const ORPHAN_AGE: Duration = Duration::from_secs(3_600);

/// The objects of one owner in a bucket. Names are told without the owner's.
#[derive(Clone)]
pub struct ObjectFolder {
    broker: Broker,
    bucket: String,
    folder: String,
}

impl std::fmt::Debug for ObjectFolder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ObjectFolder")
            .field("bucket", &self.bucket)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// What an object says about itself, in the words of the object store.
#[derive(Serialize)]
struct ObjectInfo<'a> {
    name: &'a str,
    bucket: &'a str,
    nuid: &'a str,
    size: usize,
    chunks: usize,
    digest: String,
    options: Options,
}

/// What became of reading an object.
enum Read {
    Whole(Bytes),
    Missing,
    /// It was there, and was removed meanwhile.
    Removed,
}

#[derive(Serialize)]
struct Options {
    max_chunk_size: usize,
}

#[derive(Serialize)]
struct SubjectsRequest<'a> {
    subjects_filter: &'a str,
    offset: u64,
}

#[derive(Deserialize)]
struct SubjectsAnswer {
    #[serde(default)]
    total: u64,
    state: SubjectsState,
}

#[derive(Deserialize)]
struct SubjectsState {
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct PurgeRequest<'a> {
    filter: &'a str,
}

#[derive(Deserialize)]
struct PurgeAnswer {}

impl ObjectFolder {
    /// Opens the folder of `owner`, a name without `.`, in a bucket that the topology made.
    ///
    /// # Errors
    /// When the bucket is not there or the broker does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn open(broker: &Broker, bucket: &str, owner: &str) -> Result<Self, StoreError> {
        // That it is there is told now, not by the first object.
        let store = broker.context().get_object_store(bucket).await;
        let _ = store.map_err(StoreError::broker("open the object store", bucket))?;
        Ok(Self::of(broker, bucket, owner))
    }

    /// The folder of `owner` in a bucket that is there.
    pub(crate) fn of(broker: &Broker, bucket: &str, owner: &str) -> Self {
        let (bucket, folder) = (bucket.to_owned(), owner.to_owned());
        Self { broker: broker.clone(), bucket, folder }
    }

    /// Stores an object in place of the one that had the name. It is there when this returns, all of it.
    ///
    /// # Errors
    /// When it is too large, or the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// A part may be stored; it is seen by nobody, and [`Self::sweep`] removes it.
    pub async fn put(&self, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        if bytes.len() > BLOB_BYTES_MAX {
            return Err(StoreError::TooLarge { digest_hex: self.full(name), bytes: bytes.len() });
        }
        self.put_from(name, &bytes[..], None, |_| ()).await
    }

    /// Stores what `bytes` gives, read as it goes. Where a digest is expected, what has another one is not
    /// stored. `on_progress` is told of the bytes of each chunk that is stored.
    ///
    /// # Errors
    /// As [`Self::put`]; [`StoreError::Damaged`] when the digest is another one.
    ///
    /// # Cancel safety
    /// As [`Self::put`].
    pub async fn put_from(
        &self,
        name: &str,
        bytes: impl AsyncRead + Unpin,
        expected: Option<[u8; 32]>,
        on_progress: impl FnMut(usize),
    ) -> Result<(), StoreError> {
        match timeout(TRANSFER_LIMIT, self.upload(name, bytes, expected, on_progress)).await {
            Ok(stored) => stored,
            Err(late) => Err(StoreError::broker("store in time the object", name)(late)),
        }
    }

    async fn upload(
        &self,
        name: &str,
        bytes: impl AsyncRead + Unpin,
        expected: Option<[u8; 32]>,
        on_progress: impl FnMut(usize),
    ) -> Result<(), StoreError> {
        let name = self.full(name);
        let inbox = self.broker.consuming().client.new_inbox();
        let unique = inbox.rsplit('.').next().unwrap_or_default();
        let nuid = format!("{}-{unique}", self.folder);
        let subject = self.chunks(&nuid);
        let stored = self.upload_chunks(&name, &subject, bytes, expected, on_progress);
        let stored = match stored.await {
            Ok(stored) => stored,
            Err(error) => {
                // Nothing names them: they would take their room until somebody sweeps.
                if let Err(left) = self.purge(&subject).await {
                    tracing::debug!(%left, "chunks of what could not be stored are left");
                }
                return Err(error);
            }
        };
        let (chunks, size, digest) = stored;
        let digest = format!("SHA-256={}", BASE64_URL_SAFE.encode(digest));
        let options = Options { max_chunk_size: CHUNK_BYTES };
        let (bucket, nuid) = (&self.bucket, &nuid);
        let info = ObjectInfo { name: &name, bucket, nuid, size, chunks, digest, options };
        let info = serde_json::to_vec(&info);
        let info = info.map_err(StoreError::broker("describe the object", &name))?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        self.publish(self.meta(&name), headers, info.into(), &name).await
    }

    /// Stores all chunks; how many, of how many bytes, with which digest.
    async fn upload_chunks(
        &self,
        name: &str,
        subject: &str,
        mut bytes: impl AsyncRead + Unpin,
        expected: Option<[u8; 32]>,
        mut on_progress: impl FnMut(usize),
    ) -> Result<(usize, usize, [u8; 32]), StoreError> {
        let (mut chunks, mut size, mut hash) = (0, 0, Sha256::new());
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let read = (&mut bytes).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await;
            read.map_err(StoreError::broker("read what is to be stored as", name))?;
            if chunk.is_empty() {
                break;
            }
            let length = chunk.len();
            size += length;
            if size > BLOB_BYTES_MAX {
                return Err(StoreError::TooLarge { digest_hex: name.to_owned(), bytes: size });
            }
            hash.update(&chunk);
            self.publish(subject.to_owned(), HeaderMap::new(), chunk.into(), name).await?;
            chunks += 1;
            on_progress(length);
        }
        let digest: [u8; 32] = hash.finalize().into();
        if expected.is_some_and(|expected| expected != digest) {
            let source = "what was read has another digest".into();
            return Err(StoreError::Damaged { digest_hex: name.to_owned(), source });
        }
        Ok((chunks, size, digest))
    }

    /// Reads an object; nothing when there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when it is not what was stored; else when the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        self.get_within(name, BLOB_BYTES_MAX).await
    }

    /// Reads an object that has no more than so many bytes; nothing when there is none.
    ///
    /// # Errors
    /// As [`Self::get`]; [`StoreError::TooLarge`] when it has more, of which none was read then.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn get_within(
        &self,
        name: &str,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        loop {
            match self.read(self.full(name), bytes_max).await? {
                Read::Whole(bytes) => return Ok(Some(bytes)),
                Read::Missing => return Ok(None),
                // Another one may have its name by now.
                Read::Removed => {}
            }
        }
    }

    async fn read(&self, name: String, bytes_max: usize) -> Result<Read, StoreError> {
        let Some(object) = self.find(&name).await? else { return Ok(Read::Missing) };
        let read = timeout(
            TRANSFER_LIMIT,
            stored_object::read(&self.broker, &self.bucket, &name, &object, bytes_max),
        );
        let read = read.await;
        match read.map_err(StoreError::broker("read in time the object", &name))?? {
            Chunks::Whole(bytes) => Ok(Read::Whole(bytes)),
            // What its owner removes while it is read goes chunk by chunk, behind its name.
            Chunks::Missing { .. } if !self.is_named(&name, &object.nuid).await? => {
                Ok(Read::Removed)
            }
            Chunks::Missing { found } => {
                let detail = format!("it has {found} of {} chunks", object.chunks);
                Err(StoreError::Damaged { digest_hex: name, source: detail.into() })
            }
        }
    }

    async fn find(&self, full_name: &str) -> Result<Option<StoredObject>, StoreError> {
        stored_object::find(&self.broker, &self.bucket, full_name).await
    }

    /// Whether the name still stands for these chunks.
    async fn is_named(&self, full_name: &str, nuid: &str) -> Result<bool, StoreError> {
        Ok(self.find(full_name).await?.is_some_and(|object| object.nuid == nuid))
    }

    /// Whether an object is there with all of its chunks; whether they are the right ones says [`Self::get`].
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn is_whole(&self, name: &str) -> Result<bool, StoreError> {
        let name = self.full(name);
        let Some(object) = self.find(&name).await? else { return Ok(false) };
        let found = self.subjects(&self.chunks(&object.nuid)).await;
        let found = found.map_err(StoreError::broker("look at", &name))?;
        Ok(found.values().sum::<u64>() == object.chunks)
    }

    /// When an object was stored, milliseconds since 1970 as the broker counts; nothing when there is none.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn stored_ms(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let name = self.full(name);
        let stream = format!("OBJ_{}", self.bucket);
        let meta =
            StreamReader::new(&self.broker).last_of_subject(&stream, &self.meta(&name)).await;
        let meta = meta.map_err(StoreError::broker("look at the object", &name))?;
        Ok(meta.map(|meta| u64::try_from(meta.broker_time_ns).unwrap_or(0) / 1_000_000))
    }

    /// Names of the objects, in order.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn list(&self) -> Result<Vec<String>, StoreError> {
        let filter = format!("$O.{}.M.>", self.bucket);
        let subjects = self.subjects(&filter).await;
        let subjects = subjects.map_err(StoreError::broker("list the objects of", &self.folder))?;
        let names = subjects.keys().filter_map(|subject| {
            let name = BASE64_URL_SAFE.decode(subject.rsplit('.').next()?).ok()?;
            let name = String::from_utf8(name).ok()?;
            let (folder, name) = name.split_once('.')?;
            (folder == self.folder).then(|| name.to_owned())
        });
        let mut names = names.collect::<Vec<_>>();
        names.sort_unstable();
        Ok(names)
    }

    /// Removes an object without a trace; nothing happens when there is none.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// It may be gone, and [`Self::sweep`] removes what is left of it.
    pub async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let name = self.full(name);
        let Some(StoredObject { nuid, .. }) = self.find(&name).await? else { return Ok(()) };
        let removed = StoreError::broker("remove the object", &name);
        let purge = async {
            // The name first: an object without chunks looks like a damaged one.
            self.purge(&self.meta(&name)).await?;
            self.purge(&self.chunks(&nuid)).await
        };
        purge.await.map_err(removed)
    }

    /// Removes chunks of this folder that no object of it names and that have not grown for [`ORPHAN_AGE`]:
    /// what uploads left that never ended. Tells how many uploads.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Some may be gone.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let failed = |error| StoreError::broker("sweep", &self.folder)(error);
        let filter = format!("$O.{}.C.>", self.bucket);
        let prefix = self.chunks(&format!("{}-", self.folder));
        let chunks = self.subjects(&filter).await.map_err(failed)?;
        let mut orphans = chunks.into_keys().collect::<Vec<_>>();
        orphans.retain(|subject| subject.starts_with(&prefix));
        for name in self.list().await? {
            let name = self.full(&name);
            // Removed meanwhile by whoever sweeps too.
            let Some(object) = self.find(&name).await? else { continue };
            let named = self.chunks(&object.nuid);
            orphans.retain(|subject| *subject != named);
        }
        let mut swept = 0;
        for subject in &orphans {
            if self.is_abandoned(subject).await? {
                self.purge(subject).await.map_err(failed)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    async fn is_abandoned(&self, chunks: &str) -> Result<bool, StoreError> {
        let stream = format!("OBJ_{}", self.bucket);
        let newest = StreamReader::new(&self.broker).last_of_subject(&stream, chunks).await;
        let newest = newest.map_err(StoreError::broker("look at the chunks of", &self.folder))?;
        let Some(newest) = newest else { return Ok(false) };
        let stored = Duration::from_nanos(u64::try_from(newest.broker_time_ns).unwrap_or(0));
        let now = self.broker_time().await?;
        // Without a time nobody knows, and it may be under way.
        Ok(now.is_some_and(|now| now.saturating_sub(stored) > ORPHAN_AGE))
    }

    /// What time it is where objects are stored, since 1970; nothing where the broker does not tell.
    pub(crate) async fn broker_time(&self) -> Result<Option<Duration>, StoreError> {
        let stream = format!("OBJ_{}", self.bucket);
        let told = broker_time(self.broker.consuming(), &stream).await;
        told.map_err(StoreError::broker("ask the time of the objects of", &self.folder))
    }

    fn full(&self, name: &str) -> String {
        format!("{}.{name}", self.folder)
    }

    fn meta(&self, full_name: &str) -> String {
        stored_object::description_of(&self.bucket, full_name)
    }

    fn chunks(&self, nuid: &str) -> String {
        stored_object::chunks_of(&self.bucket, nuid)
    }

    async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        name: &str,
    ) -> Result<(), StoreError> {
        let failed = |error| StoreError::broker("store the object", name)(error);
        let context = self.broker.context();
        let answer = context.publish_with_headers(subject, headers, payload).await;
        answer.map_err(failed)?.await.map(|_| ()).map_err(failed)
    }

    /// How many messages each subject that `filter` covers has.
    async fn subjects(&self, filter: &str) -> Result<BTreeMap<String, u64>, ApiError> {
        let connection = self.broker.consuming();
        let stream = format!("OBJ_{}", self.bucket);
        let mut all = BTreeMap::new();
        loop {
            let request = SubjectsRequest { subjects_filter: filter, offset: all.len() as u64 };
            let answer: SubjectsAnswer = stream_info(connection, &stream, &request).await?;
            let before = all.len();
            all.extend(answer.state.subjects);
            if all.len() as u64 >= answer.total || all.len() == before {
                return Ok(all);
            }
        }
    }

    async fn purge(&self, filter: &str) -> Result<(), ApiError> {
        let operation = format!("STREAM.PURGE.OBJ_{}", self.bucket);
        let _: PurgeAnswer =
            ask(self.broker.publishing(), &operation, &PurgeRequest { filter }).await?;
        Ok(())
    }
}
