//! Keys that are remembered for a window of journal time.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::identity::JournalTime;

/// Width of a bucket: keys are dropped by the hour.
const BUCKET_MS: u64 = 60 * 60 * 1_000;

/// 128-bit keys with a value each, forgotten by the hour once they are older
/// than the window.
#[derive(Debug, Clone)]
pub struct KeyWindow<V> {
    window_ms: u64,
    keys_max: usize,
    entries: HashMap<u128, V, BuildHasherDefault<KeyHasher>>,
    buckets: VecDeque<Bucket>,
}

#[derive(Debug, Clone)]
struct Bucket {
    hour: u64,
    keys: Vec<u128>,
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

impl<V: Copy + Ord> KeyWindow<V> {
    /// No keys; each will be kept for `window_ms`, `keys_max` at the most.
    #[must_use]
    pub fn new(window_ms: u64, keys_max: usize) -> Self {
        Self { window_ms, keys_max, entries: HashMap::default(), buckets: VecDeque::new() }
    }

    /// The value kept for `key`.
    #[must_use]
    pub fn get(&self, key: u128) -> Option<V> {
        self.entries.get(&key).copied()
    }

    /// Whether another key would exceed the bound.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.keys_max
    }

    /// Keys kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps `key` from `now` on; a key that is kept already keeps its value.
    pub fn insert(&mut self, key: u128, value: V, now: JournalTime) {
        if let std::collections::hash_map::Entry::Vacant(vacant) = self.entries.entry(key) {
            vacant.insert(value);
            let hour = now.0 / BUCKET_MS;
            match self.buckets.back_mut() {
                Some(bucket) if bucket.hour >= hour => bucket.keys.push(key),
                _ => self.buckets.push_back(Bucket { hour, keys: vec![key] }),
            }
        }
    }

    /// Forgets the buckets whose every key is older than the window at `now`.
    pub fn expire(&mut self, now: JournalTime) {
        while let Some(bucket) = self.buckets.front() {
            let last = bucket.hour.saturating_add(1).saturating_mul(BUCKET_MS);
            if last.saturating_add(self.window_ms) > now.0 {
                return;
            }
            for key in &bucket.keys {
                self.entries.remove(key);
            }
            self.buckets.pop_front();
        }
    }

    /// The entries in order, for comparisons.
    #[must_use]
    pub fn sorted(&self) -> Vec<(u128, V)> {
        let mut entries =
            self.entries.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>();
        entries.sort_unstable();
        entries
    }
}

#[cfg(test)]
mod tests {
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
}
