//! The bounds that a partition works under.

/// Default of [`Limits::keys_max`]. A key is kept for 25 hours at the most, so all
/// partitions together take `keys_max * partitions / 90,000 s` events that start
/// work per second, day and night: with 8 partitions 222. Whoever expects more
/// needs more partitions, or more keys in each. A key takes about 100 bytes of
/// memory, an id of a command 90: 250 MB and 225 MB where they are full.
pub const KEYS_MAX_DEFAULT: usize = 2_500_000;

/// The most that [`Limits::keys_max`] may be set to: if all keys and as many ids
/// come in one hour, their file has 176 MB, and an object may have 256 MiB.
pub const KEYS_MAX_MOST: usize = 4_000_000;

/// Bounds of one partition. They are recorded in no frame: a changed bound
/// changes decisions from then on, never the fold of what is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long the key of an event that started work is kept, journal time,
    /// milliseconds. Default 24 hours. The fold drops keys by it, so it is
    /// fixed for an engine when its streams are created.
    pub key_window_ms: u64,
    /// Most keys kept at once, and most ids of commands. Default
    /// [`KEYS_MAX_DEFAULT`] each. An event that would be kept beyond it is rejected as
    /// `window_full`; a cancel or a definition is answered so and leaves no
    /// record. Replays may take nine tenths of the ids: whoever replays very
    /// many does not keep others from cancelling.
    pub keys_max: usize,
    /// Most attempts ordered and without outcome. Default 16,384: what the
    /// runner can hold. Ready nodes and retries beyond it wait for outcomes;
    /// deadlines do not.
    pub attempts_open_max: u32,
    /// Most records of one frame before ready nodes are left for a
    /// continuation. Default 1,000: about 200 KiB, under the broker's 1 MiB.
    pub decision_records_max: usize,
    /// Most bytes of bodies and outputs in one frame, likewise. Default
    /// 192 KiB: with one more body of 128 KiB, the headers of 1,000 records and
    /// one message of commands the frame still fits 1 MiB.
    pub decision_bytes_max: usize,
    /// Most bytes of records in one frame. Default 1 MiB less 4 KiB for what
    /// stands around them. What is decided beyond it goes into a frame of its
    /// own; a command message or a run whose single decision exceeds it alone
    /// is set aside: poisoned or quarantined. With the other bounds at their
    /// defaults nothing but a command message of nearly 1 MiB does.
    pub frame_bytes_max: usize,
    /// Data partitions of the engine. Default 8; fixed when its streams are
    /// created.
    pub partitions: u16,
    /// Most commands to one partition that are not delivered. Default 10,000:
    /// some megabytes. Above it a ready task that would wait for an event is held
    /// back, and an event with a correlation key is rejected as `outbox_full`.
    pub outbox_max: usize,
    /// Most tasks that wait under correlation keys of one partition. Default
    /// 1,000,000 (about 300 MB). A further one is refused and its task fails.
    pub waits_max: usize,
    /// Most signals that one partition keeps for whoever comes later. Default
    /// 10,000: with their data at most 200 MB. A further one is given up at once.
    pub signals_max: usize,
    /// How long a signal that nobody waits for is kept, journal time,
    /// milliseconds. Default 1 hour.
    pub signal_kept_ms: u64,
    /// Most attempts in one named queue without outcome, apart from
    /// `attempts_open_max` and from other queues: one that nobody serves holds
    /// nothing else up. Default 16,384: some megabytes with usual inputs. A ready
    /// task of a queue beyond it is held back, the others of its run go on;
    /// retries come on top.
    pub queued_open_max: u32,
}

impl Limits {
    /// Ids of commands above which no further replay is accepted.
    #[must_use]
    pub fn replays_max(&self) -> usize {
        self.keys_max - self.keys_max / 10
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_window_ms: 24 * 60 * 60 * 1_000,
            keys_max: KEYS_MAX_DEFAULT,
            attempts_open_max: 16_384,
            decision_records_max: 1_000,
            decision_bytes_max: 192 * 1024,
            frame_bytes_max: 1_020 * 1024,
            partitions: 8,
            outbox_max: 10_000,
            waits_max: 1_000_000,
            signals_max: 10_000,
            signal_kept_ms: 60 * 60 * 1_000,
            queued_open_max: 16_384,
        }
    }
}
