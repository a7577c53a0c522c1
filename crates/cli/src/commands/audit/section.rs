//! A stream up to where it ended when it was first looked at.

use std::collections::VecDeque;

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
pub(super) struct Section {
    replay: Option<Replay>,
    end: u64,
    waiting: VecDeque<StoredMessage>,
    /// Goes on by one for each message.
    progress: ProgressBar,
}

impl Section {
    pub(super) async fn open(
        reader: &StreamReader,
        stream: &str,
        end: u64,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let replay =
            if end == 0 { None } else { Some(reader.replay(stream, 1, Holes::Allowed).await?) };
        Ok(Self { replay, end, waiting: VecDeque::new(), progress: progress.clone() })
    }

    /// The next message; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<StoredMessage>, CliError> {
        if self.waiting.is_empty()
            && let Some(replay) = &mut self.replay
        {
            if replay.wanted() <= self.end {
                self.waiting.extend(replay.next_batch(BATCH_MESSAGES).await?);
            }
            if self.waiting.is_empty() {
                self.replay = None;
            }
        }
        let next = self.waiting.pop_front().filter(|message| message.sequence <= self.end);
        self.progress.inc(u64::from(next.is_some()));
        Ok(next)
    }
}
