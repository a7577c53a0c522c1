//! Asks the broker how full a partition's COMMANDS is, beside the frames that go by what is known.

use std::sync::Arc;
use std::time::Instant;

use fermata_core::identity::PartitionId;
use fermata_jetstream::StreamReader;
use fermata_jetstream::purge::room_of;
use fermata_jetstream::topology::commands_stream;

use super::Room;

/// A look under way; the next one can be taken when this is dropped.
pub(super) struct Looking {
    room: Arc<Room>,
    /// Bytes of frames whose publish had ended when it began.
    ended: u64,
    /// Bytes of the stream, and how many it may have.
    answer: Option<(u64, u64)>,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.room.known().fill.looked(self.answer, self.ended, Instant::now());
        self.room.news.notify_one();
    }
}

impl Looking {
    pub(super) fn new(room: Arc<Room>, ended: u64) -> Self {
        Self { room, ended, answer: None }
    }

    /// Looks once; without an answer what was known holds.
    pub(super) async fn look(mut self, reader: StreamReader, partition: PartitionId) {
        let found = room_of(reader.broker(), &commands_stream(partition)).await;
        self.answer = found.ok().map(|found| (found.bytes, found.max_bytes));
    }
}
