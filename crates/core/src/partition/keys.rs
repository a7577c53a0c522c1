//! Keys that are remembered for a window of journal time.
//!
//! Keys stand in chunks, in the order in which they came; an index finds the
//! chunk of a key. A full chunk never changes, so a copy of all keys for a
//! snapshot is a pointer per chunk, and a window of two million keys is copied
//! in microseconds.

mod packed;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::identity::JournalTime;

pub(super) use packed::{KeyHour, Packed};

/// Width of a bucket: keys are dropped by the hour.
const BUCKET_MS: u64 = 60 * 60 * 1_000;

/// The hour of `time`, counted from 1970. Keys come to this one alone, as time
/// never goes back: those before it are closed.
pub(super) fn hour_of(time: JournalTime) -> u64 {
    time.0 / BUCKET_MS
}

/// Keys of a chunk at the most. The last chunk is copied once when it grows
/// after a copy of the window was taken: some 100 KiB.
const CHUNK_KEYS: usize = 4_096;

/// Parts of the index, so that no single growth moves all of its entries.
const SHARDS: usize = 64;

/// Expired keys that leave the index when a frame begins: a whole hour may be
/// millions of keys, and removing them at once would be a pause.
const BURIED_PER_FRAME: usize = 2_048;

/// The same when a key comes: expired keys go faster than new ones come.
const BURIED_PER_KEY: usize = 4;

/// 128-bit keys with a value each, forgotten by the hour once they are older
/// than the window.
#[derive(Debug, Clone)]
pub struct KeyWindow<V> {
    window_ms: u64,
    keys_max: usize,
    /// Where a key stands. Keys of chunks that are gone may still be in it: they
    /// count for nothing.
    index: Vec<HashMap<u128, Place, BuildHasherDefault<KeyHasher>>>,
    chunks: VecDeque<Arc<Chunk<V>>>,
    /// Number of the first of `chunks`.
    first_chunk: u64,
    live: usize,
    /// Chunks whose hour has passed, with their number; their keys leave the
    /// index a few at a time.
    expired: VecDeque<(u64, Arc<Chunk<V>>)>,
    /// Keys of the first of them that have left.
    buried: usize,
}

/// A copy of the keys of a window, cheap to take and to keep.
#[derive(Debug, Clone)]
pub(super) struct FrozenKeys<V>(VecDeque<Arc<Chunk<V>>>);

/// Consecutive keys of one hour.
#[derive(Debug, Clone)]
struct Chunk<V> {
    hour: u64,
    keys: Vec<(u128, V)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    chunk: u64,
    offset: usize,
}

/// Keys are the front of a SHA-256 digest or a UUID: mixing one half of one
/// with the other spreads them well enough.
#[derive(Debug, Default, Clone, Copy)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        let [low, high] = [key, key >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)));
        self.0 = low.unwrap_or(0) ^ high.unwrap_or(0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// The part of the index that has `key`: by bits of its hash that a part of
/// this size uses for nothing else.
fn shard_of(key: u128) -> usize {
    let mut hasher = KeyHasher::default();
    hasher.write_u128(key);
    usize::try_from((hasher.finish() >> 40) % SHARDS as u64).unwrap_or(0)
}

impl<V: Copy + Ord> KeyWindow<V> {
    /// No keys; each will be kept for `window_ms`, `keys_max` at the most.
    #[must_use]
    pub fn new(window_ms: u64, keys_max: usize) -> Self {
        Self {
            window_ms,
            keys_max,
            index: vec![HashMap::default(); SHARDS],
            chunks: VecDeque::new(),
            first_chunk: 0,
            live: 0,
            expired: VecDeque::new(),
            buried: 0,
        }
    }

    /// The value kept for `key`.
    #[must_use]
    pub fn get(&self, key: u128) -> Option<V> {
        let place = self.index.get(shard_of(key))?.get(&key)?;
        let chunk = usize::try_from(place.chunk.checked_sub(self.first_chunk)?).ok()?;
        self.chunks.get(chunk)?.keys.get(place.offset).map(|(_, value)| *value)
    }

    /// Whether another key would exceed the bound.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.live >= self.keys_max
    }

    /// Keys kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no key is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Entries of the index: those kept, and those that have expired and were
    /// not removed yet.
    #[must_use]
    pub fn indexed(&self) -> usize {
        self.index.iter().map(HashMap::len).sum()
    }

    /// Keeps `key` from `now` on; a key that is kept already keeps its value.
    pub fn insert(&mut self, key: u128, value: V, now: JournalTime) {
        if self.get(key).is_none() {
            self.put(key, value, hour_of(now));
        }
        self.bury(BURIED_PER_KEY);
    }

    fn put(&mut self, key: u128, value: V, hour: u64) {
        let hour = self.chunks.back().map_or(hour, |chunk| chunk.hour.max(hour));
        let fits = |chunk: &Arc<Chunk<V>>| chunk.hour == hour && chunk.keys.len() < CHUNK_KEYS;
        if !self.chunks.back().is_some_and(fits) {
            self.chunks.push_back(Arc::new(Chunk { hour, keys: Vec::new() }));
        }
        let number = self.first_chunk + self.chunks.len() as u64 - 1;
        let Some(chunk) = self.chunks.back_mut() else { return };
        let chunk = Arc::make_mut(chunk);
        let place = Place { chunk: number, offset: chunk.keys.len() };
        chunk.keys.push((key, value));
        if let Some(shard) = self.index.get_mut(shard_of(key)) {
            shard.insert(key, place);
        }
        self.live += 1;
    }

    /// Forgets the buckets whose every key is older than the window at `now`.
    pub fn expire(&mut self, now: JournalTime) {
        while let Some(chunk) = self.chunks.front() {
            let last = chunk.hour.saturating_add(1).saturating_mul(BUCKET_MS);
            if last.saturating_add(self.window_ms) > now.0 {
                break;
            }
            self.live -= chunk.keys.len();
            if let Some(chunk) = self.chunks.pop_front() {
                self.expired.push_back((self.first_chunk, chunk));
            }
            self.first_chunk += 1;
        }
        self.bury(BURIED_PER_FRAME);
    }

    /// Takes up to `most` expired keys out of the index.
    fn bury(&mut self, most: usize) {
        for _ in 0..most {
            let Some((number, chunk)) = self.expired.front() else { return };
            let Some((key, _)) = chunk.keys.get(self.buried) else {
                self.expired.pop_front();
                self.buried = 0;
                continue;
            };
            let place = Place { chunk: *number, offset: self.buried };
            // It may have come again since, and stands elsewhere then.
            if let Some(shard) = self.index.get_mut(shard_of(*key))
                && shard.get(key) == Some(&place)
            {
                shard.remove(key);
            }
            self.buried += 1;
        }
    }

    /// A copy of what is kept.
    pub(super) fn freeze(&self) -> FrozenKeys<V> {
        FrozenKeys(self.chunks.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = BUCKET_MS;

    #[test]
    fn a_key_is_kept_for_at_least_the_window_and_at_most_an_hour_more() {
        let mut keys = KeyWindow::new(24 * HOUR, 10);
        keys.insert(7, (), JournalTime(HOUR / 2));

        keys.expire(JournalTime(HOUR / 2 + 24 * HOUR));
        assert!(keys.get(7).is_some());
        keys.expire(JournalTime(25 * HOUR));
        assert!(keys.get(7).is_none());
        assert!(keys.is_empty());
    }

    #[test]
    fn the_first_value_of_a_key_stays() {
        let mut keys = KeyWindow::new(HOUR, 10);
        keys.insert(7, 1, JournalTime(0));
        keys.insert(7, 2, JournalTime(1));

        assert_eq!(keys.get(7), Some(1));
    }

    #[test]
    fn an_expired_hour_leaves_the_index_a_few_keys_at_a_time() {
        let mut keys = KeyWindow::new(HOUR, usize::MAX);
        let many = 3 * BURIED_PER_FRAME;
        for key in 0..many {
            keys.insert(key as u128, (), JournalTime(0));
        }

        keys.expire(JournalTime(2 * HOUR));
        assert_eq!((keys.len(), keys.get(5)), (0, None), "all have expired at once");
        assert!(keys.indexed() >= many - BURIED_PER_FRAME, "they leave later");
        keys.insert(many as u128 - 1, (), JournalTime(2 * HOUR));
        for _ in 0..4 {
            keys.expire(JournalTime(2 * HOUR));
        }

        assert_eq!((keys.len(), keys.indexed()), (1, 1));
        assert_eq!(keys.get(many as u128 - 1), Some(()), "what came again stays");
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_that_forgets_whole_hours(
            operations in prop::collection::vec((0_u128..60, 0_u64..400_000), 1..300),
        ) {
            let mut keys = KeyWindow::new(2 * HOUR, usize::MAX);
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (key, after) in operations {
                now += after;
                let time = JournalTime(now);
                keys.expire(time);
                model.retain(|_, (_, hour): &mut (u64, u64)| (*hour + 1) * HOUR + 2 * HOUR > now);
                keys.insert(key, now, time);
                model.entry(key).or_insert((now, now / HOUR));
                prop_assert_eq!(keys.len(), model.len());
                for key in 0..60 {
                    prop_assert_eq!(keys.get(key), model.get(&key).map(|(value, _)| *value));
                }
            }
        }
    }
}
