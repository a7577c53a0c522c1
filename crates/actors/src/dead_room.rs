//! How much of DEAD one tenant may take: a full DEAD drops its oldest letters, whose
//! ever they are.
//!
//! The broker bounds how many letters a tenant has of a stage, and drops the oldest of
//! these for a further one: half of DEAD. Here it is bounded what a letter may weigh. While
//! all of DEAD holds no more than an eighth of what it may ([`EMPTY_DIVISOR`]), letters are
//! filed whole, for nobody's are in danger. Behind that the n-th one that a tenant has is
//! filed with its original bytes if they are no more than an n-th of [`WHOLE_DIVISOR`]'s
//! share of DEAD, else without. The sum of `1 / n` grows with the logarithm of n, so that
//! these hold a quarter of DEAD at the most, whatever sizes they come in, and one that is
//! small finds room among thousands. An eighth is left to others in any case.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fermata_jetstream::Broker;
use fermata_jetstream::topology::DEAD_STREAM;
use fermata_jetstream::usage::subject_count;
use fermata_wire::dead::DeadLetter;
use fermata_wire::subjects;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;

/// The first letter of a tenant may hold this part of DEAD. A quarter of DEAD holds this
/// many times less if all are as large as they may be, up to 600,000 letters: the sum of
/// their `1 / n` is 14.
pub const WHOLE_DIVISOR: u64 = 4 * 14;

/// While DEAD holds this part of what it may, or less, every letter is filed whole.
pub const EMPTY_DIVISOR: u64 = 8;

/// What stands for the tenant of letters that are the engine's own.
const ENGINE: &str = "_engine";

/// How long it is believed how many letters a tenant has, besides those filed here meanwhile.
const COUNTED_FOR: Duration = Duration::from_secs(1);

/// Tenants whose letters are counted at a time.
const TENANTS_MAX: usize = 10_000;

/// What is known of a tenant's letters.
#[derive(Debug, Clone, Copy)]
struct Counted {
    letters: u64,
    /// Of everybody's letters.
    bytes: u64,
    bytes_max: u64,
    asked: Instant,
}

/// The letters of each tenant, as far as this process knows.
#[derive(Debug, Clone)]
pub struct DeadRoom {
    tenants: Arc<Mutex<HashMap<String, Counted>>>,
    filed: Counter<u64>,
}

impl Default for DeadRoom {
    /// Nothing is known yet; registers what counts letters with the process's meter provider.
    fn default() -> Self {
        let filed = opentelemetry::global::meter("fermata")
            .u64_counter("agent.dead.filed_total")
            .with_description("Dead letters that were filed, by stage and reason")
            .build();
        Self { tenants: Arc::default(), filed }
    }
}

impl DeadRoom {
    /// A letter is stored. Stages and reasons are the engine's own words, so they are few.
    pub fn filed(&self, stage: &str, reason: &str) {
        let [stage, reason] = [("stage", stage), ("reason", reason)]
            .map(|(name, value)| KeyValue::new(name, value.to_owned()));
        self.filed.add(1, &[stage, reason]);
    }

    /// The letter as it may be filed. Where the broker does not answer it is filed whole.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn fitted(&self, broker: &Broker, letter: DeadLetter) -> DeadLetter {
        // What nobody's subject names is no tenant's flood, and stands nowhere else.
        if letter.original.is_empty() || letter.tenant == ENGINE {
            return letter;
        }
        let Some(counted) = self.count(broker, &letter).await else { return letter };
        if is_whole(&letter, counted) {
            return letter;
        }
        let letters = counted.letters;
        let (tenant, id) = (&letter.tenant, &letter.id);
        tracing::warn!(%tenant, %id, letters, "a dead letter is filed without its original bytes");
        without_original(letter, letters)
    }

    /// How many letters the tenant has, this one included, and what all of DEAD holds with it.
    async fn count(&self, broker: &Broker, letter: &DeadLetter) -> Option<Counted> {
        let (tenant, bytes) = (&letter.tenant, bytes_of(letter));
        if let Some(counted) = self.next(tenant, bytes, None) {
            return Some(counted);
        }
        let filter = subjects::dead(tenant, ">");
        let count = subject_count(broker, DEAD_STREAM, &filter).await.ok()?;
        let bytes_max = count.bytes_max?;
        let (letters, asked) = (count.messages, Instant::now());
        let asked = Counted { letters, bytes: count.bytes, bytes_max, asked };
        self.next(tenant, bytes, Some(asked))
    }

    /// Counts one more of so many bytes; nothing where the broker has to be asked first.
    fn next(&self, tenant: &str, bytes: u64, asked: Option<Counted>) -> Option<Counted> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = asked {
            if tenants.len() >= TENANTS_MAX {
                tenants.clear();
            }
            // Of those that asked at once the last answer counts, if it is more.
            let known = tenants.entry(tenant.to_owned()).or_insert(asked);
            *known = match known.asked.elapsed() < COUNTED_FOR {
                true => Counted {
                    letters: known.letters.max(asked.letters),
                    bytes: known.bytes.max(asked.bytes),
                    ..asked
                },
                false => asked,
            };
        }
        let counted = tenants.get_mut(tenant)?;
        if counted.asked.elapsed() >= COUNTED_FOR {
            return None;
        }
        counted.letters += 1;
        counted.bytes += bytes;
        Some(*counted)
    }
}

/// Whether a letter fits as it is, as the last one that was counted.
fn is_whole(letter: &DeadLetter, counted: Counted) -> bool {
    let Counted { letters, bytes, bytes_max, .. } = counted;
    bytes <= bytes_max / EMPTY_DIVISOR
        || bytes_of(letter) <= bytes_max / WHOLE_DIVISOR / letters.max(1)
}

/// What may be left out of a letter.
fn bytes_of(letter: &DeadLetter) -> u64 {
    let headers = letter.headers.iter().map(|(name, value)| name.len() + value.len());
    let bytes = letter.original.len() + headers.sum::<usize>();
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// What the letter says without its bytes, and the headers that they are read with.
fn without_original(letter: DeadLetter, letters: u64) -> DeadLetter {
    let bytes = letter.original.len();
    let detail = format!(
        "{}; the original of {bytes} bytes is left out, for the tenant has {letters} letters",
        letter.detail
    );
    DeadLetter { original: Bytes::new(), headers: Vec::new(), detail, ..letter }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(bytes: usize) -> DeadLetter {
        DeadLetter {
            id: "7.0".to_owned(),
            tenant: "acme".to_owned(),
            stage: "listener".to_owned(),
            reason: "not_json".to_owned(),
            detail: "why".to_owned(),
            subject: "fermata.events.acme.a".to_owned(),
            original: vec![b'x'; bytes].into(),
            time_ms: 0,
            headers: vec![("a".to_owned(), "b".to_owned())],
            attempts: None,
            trace: None,
        }
    }

    fn counted(letters: u64, bytes: u64, bytes_max: u64) -> Counted {
        Counted { letters, bytes, bytes_max, asked: Instant::now() }
    }

    #[test]
    fn letters_that_are_as_large_as_they_may_be_take_a_quarter_of_the_stream() {
        let bytes_max = 100 << 20;
        let largest = |number| bytes_max / WHOLE_DIVISOR / number;

        let whole: u64 = (1..=600_000).map(largest).sum();

        assert!(whole <= bytes_max / 4, "{whole}");
        for number in [1_u64, 10, 1_000] {
            let fits = usize::try_from(largest(number)).unwrap() - 2;
            let counted = counted(number, bytes_max, bytes_max);
            assert!(is_whole(&letter(fits), counted));
            assert!(!is_whole(&letter(fits + 1), counted));
        }
    }

    #[test]
    fn while_there_is_much_room_letters_are_whole_however_many_there_are() {
        let bytes_max = 96 << 20;
        let room = bytes_max / EMPTY_DIVISOR;
        let large = letter(200 * 1024);

        assert!(is_whole(&large, counted(50, room, bytes_max)));
        assert!(!is_whole(&large, counted(50, room + 1, bytes_max)));
    }

    #[test]
    fn what_is_left_out_is_told_with_its_size() {
        let bare = without_original(letter(3_000), 12);

        assert!(bare.original.is_empty() && bare.headers.is_empty());
        let said = "why; the original of 3000 bytes is left out, for the tenant has 12 letters";
        assert_eq!(bare.detail, said);
    }

    #[test]
    fn letters_are_counted_on_from_what_the_broker_said() {
        let room = DeadRoom::default();
        assert!(room.next("acme", 5, None).is_none(), "the broker is asked first");

        let next = |asked: Option<u64>| {
            let asked = asked.map(|letters| counted(letters, 100, 1));
            room.next("acme", 5, asked).map(|counted| (counted.letters, counted.bytes))
        };
        assert_eq!(next(Some(5)), Some((6, 105)));
        assert_eq!(next(None), Some((7, 110)));
        // An answer that left before what was filed here.
        assert_eq!(next(Some(5)), Some((8, 115)));
        assert!(room.next("globex", 5, None).is_none());
    }
}
