//! A stream up to where it ended when it was first looked at.

use std::collections::VecDeque;

use fermata_actors::journal_archive::JournalReplay;
use fermata_core::identity::PartitionId;
use fermata_jetstream::reader::{Holes, Replay};
use fermata_jetstream::{StoredMessage, StreamReader};
use indicatif::ProgressBar;

use crate::error::CliError;

/// How many messages are taken from a stream at a time.
const BATCH_MESSAGES: usize = 512;

/// The messages of a stream from its first to `end`, in order, read as they are needed.
///
/// A message that is gone is stepped over here: what it held is what the check misses.
#[derive(Debug)]
pub(crate) struct Section {
    replay: Option<Source>,
    end: u64,
    /// The last one that was handed out.
    read_to: u64,
    waiting: VecDeque<StoredMessage>,
    /// Goes on by one for each message.
    progress: ProgressBar,
}

/// Where messages come from.
#[derive(Debug)]
enum Source {
    Stream(Box<Replay>),
    /// The archive, and the stream behind it.
    Journal(Box<JournalReplay>),
}

impl Source {
    fn wanted(&self) -> u64 {
        match self {
            Self::Stream(replay) => replay.wanted(),
            Self::Journal(replay) => replay.wanted(),
        }
    }

    async fn next_batch(&mut self) -> Result<Vec<StoredMessage>, CliError> {
        match self {
            Self::Stream(replay) => Ok(replay.next_batch(BATCH_MESSAGES).await?),
            Self::Journal(replay) => Ok(replay.next_batch(BATCH_MESSAGES).await?),
        }
    }
}

impl Section {
    pub(crate) async fn open_journal(
        reader: &StreamReader,
        partition: PartitionId,
        end: u64,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let replay = match end {
            0 => None,
            _ => {
                let journal = JournalReplay::open(reader, partition, 1).await?;
                Some(Source::Journal(Box::new(journal)))
            }
        };
        Ok(Self { replay, end, read_to: 0, waiting: VecDeque::new(), progress: progress.clone() })
    }

    pub(crate) async fn open(
        reader: &StreamReader,
        stream: &str,
        end: u64,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let replay = match end {
            0 => None,
            _ => {
                let replay = reader.replay(stream, 1, Holes::Allowed).await?;
                Some(Source::Stream(Box::new(replay)))
            }
        };
        Ok(Self { replay, end, read_to: 0, waiting: VecDeque::new(), progress: progress.clone() })
    }

    /// The next message; nothing at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<StoredMessage>, CliError> {
        if self.waiting.is_empty()
            && let Some(replay) = &mut self.replay
        {
            if replay.wanted() <= self.end {
                self.waiting.extend(replay.next_batch().await?);
            }
            if self.waiting.is_empty() {
                self.replay = None;
            }
        }
        let next = self.waiting.pop_front().filter(|message| message.sequence <= self.end);
        self.progress.inc(u64::from(next.is_some()));
        self.read_to = next.as_ref().map_or(self.read_to, |message| message.sequence);
        Ok(next)
    }

    /// The last message when all were handed out and it was not among them.
    pub(crate) fn missing_end(&self) -> Option<u64> {
        (self.read_to < self.end).then_some(self.end)
    }
}
