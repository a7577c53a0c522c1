//! Follows one journal and reads its messages for the index.

use std::sync::Arc;

use fermata_core::identity::PartitionId;
use fermata_jetstream::StoredMessage;
use fermata_store::FrameChanges;
use tokio::sync::mpsc;

use super::ProjectorError;
use super::source::{FrameSource, Frames};

/// Journal messages taken at a time.
const BATCH_MESSAGES: usize = 32;

/// Follows the journal of one partition.
pub(super) struct Following<S> {
    pub partition: PartitionId,
    pub source: Arc<S>,
    pub frames: mpsc::Sender<FrameChanges>,
}

impl<S: FrameSource> Following<S> {
    /// Hands every message from `wanted` on to the index; ends when nobody takes them.
    pub async fn run(self, mut wanted: u64) -> Result<(), ProjectorError> {
        let mut frames = self.source.frames_from(self.partition, wanted).await?;
        let mut missing = false;
        loop {
            for message in frames.next(BATCH_MESSAGES).await? {
                let sequence = message.sequence;
                if sequence > wanted {
                    let partition = self.partition;
                    tracing::warn!(%partition, wanted, sequence, "the journal begins later; older runs are left out");
                    missing = true;
                }
                wanted = sequence + 1;
                let Some(changes) = self.read(&message) else {
                    // An answer without what it says would be wrong.
                    return std::future::pending().await;
                };
                let is_ours = message.writer.is_some();
                let gap = is_ours && std::mem::take(&mut missing);
                let changes = if gap { changes.after_gap() } else { changes };
                if self.frames.send(changes).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    fn read(&self, message: &StoredMessage) -> Option<FrameChanges> {
        let (partition, sequence) = (self.partition, message.sequence);
        if message.writer.is_none() {
            return Some(FrameChanges::foreign(partition, sequence, &message.payload));
        }
        FrameChanges::read(partition, sequence, &message.payload)
            .inspect_err(|error| {
                tracing::error!(%partition, sequence, %error, "a journal message cannot be read; the read model stays behind it");
            })
            .ok()
    }
}
