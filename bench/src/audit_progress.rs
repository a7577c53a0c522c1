//! How far the audit log has come, asked cheaply: checkpoints say how many entries are stored, and
//! the broker's time of the newest message says since when.

use std::time::{Duration, Instant, SystemTime};

use fermata_audit::Checkpoint;
use fermata_core::identity::PartitionId;
use fermata_jetstream::topology::{CHECKPOINTS_STREAM, audit_stream};
use fermata_wire::subjects;
use indicatif::ProgressBar;
use miette::{IntoDiagnostic as _, miette};

use crate::client::Client;
use crate::engine_process::signer;

/// How often the checkpoints are looked at; the end of a measurement is the broker's own time of the
/// last message, so this costs no precision.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long the log may stand still before the case is given up.
const STILL_LIMIT: Duration = Duration::from_secs(20);

/// How long the log stands still when nothing is under way any more: many times what passes between
/// two appends, and more than the longest pause before a failed attempt of any case is made again.
const REST: Duration = Duration::from_millis(500);

/// How long it may take until nothing is under way any more.
const REST_LIMIT: Duration = Duration::from_secs(120);

/// Watches the audit logs of the data partitions.
#[derive(Debug)]
pub struct AuditProgress {
    client: Client,
    partitions: u16,
    base: u64,
}

impl AuditProgress {
    /// Counts from what is stored and signed now on.
    pub async fn from_now(client: &Client, partitions: u16) -> miette::Result<Self> {
        let mut progress = Self { client: client.clone(), partitions, base: 0 };
        progress.base = progress.size().await?;
        Ok(progress)
    }

    /// Waits until `entries` more are stored, and says when the last message came.
    pub async fn reached(
        &self,
        entries: u64,
        bar: &ProgressBar,
        per_step: u64,
    ) -> miette::Result<SystemTime> {
        let (mut seen, mut moved) = (0, Instant::now());
        loop {
            let size = self.size().await?.saturating_sub(self.base);
            if size >= entries {
                return self.newest().await;
            }
            if size != seen {
                (seen, moved) = (size, Instant::now());
                bar.set_position(size / per_step.max(1));
            }
            if moved.elapsed() > STILL_LIMIT {
                return Err(miette!(
                    "the audit log stands still at {size} of {entries} entries for {STILL_LIMIT:?}"
                ));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits until nothing is added any more; tells when it was seen that something was.
    pub async fn at_rest(&self) -> miette::Result<Instant> {
        let begun = Instant::now();
        let (mut seen, mut moved) = (self.size().await?, begun);
        while moved.elapsed() < REST {
            if begun.elapsed() > REST_LIMIT {
                return Err(miette!("the audit log still grows after {REST_LIMIT:?}"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            let size = self.size().await?;
            if size != seen {
                (seen, moved) = (size, Instant::now());
            }
        }
        Ok(moved)
    }

    /// Signed entries of all data partitions.
    async fn size(&self) -> miette::Result<u64> {
        let verifier = [signer()?.verifier()];
        let mut size = 0;
        for partition in 0..self.partitions {
            let subject = subjects::checkpoints(PartitionId(partition));
            let note = self
                .client
                .reader
                .last_of_subject(CHECKPOINTS_STREAM, &subject)
                .await
                .into_diagnostic()?;
            if let Some(note) = note {
                size += Checkpoint::open(&note.payload, &verifier).into_diagnostic()?.size();
            }
        }
        Ok(size)
    }

    /// When the newest message of any audit log was stored.
    async fn newest(&self) -> miette::Result<SystemTime> {
        let mut newest_ns = 0;
        for partition in 0..self.partitions {
            let stream = audit_stream(partition);
            let last = self.client.reader.stream_state(&stream).await.into_diagnostic()?;
            let message =
                self.client.reader.read_one(&stream, last.last_sequence).await.into_diagnostic()?;
            newest_ns = message.map_or(0, |message| message.broker_time_ns).max(newest_ns);
        }
        let since = u64::try_from(newest_ns).into_diagnostic()?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_nanos(since))
    }
}
