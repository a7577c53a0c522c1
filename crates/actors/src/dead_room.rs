//! How much of DEAD one tenant may take: a full DEAD drops its oldest letters, whose
//! ever they are.
//!
//! The broker bounds how many letters a tenant has of a stage, and drops the oldest of
//! these for a further one. Here it is bounded what a letter may weigh: the n-th one
//! that a tenant has is filed with its original bytes if they are no more than an n-th
//! of [`WHOLE_DIVISOR`]'s share of DEAD, else without. The sum of `1 / n` grows with the
//! logarithm of n, so that all letters together hold a quarter of DEAD at the most,
//! whatever sizes they come in, and one that is small finds room among thousands.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fermata_jetstream::Broker;
use fermata_jetstream::topology::DEAD_STREAM;
use fermata_jetstream::usage::subject_count;
use fermata_wire::dead::DeadLetter;
use fermata_wire::subjects;

/// The first letter of a tenant may hold this part of DEAD. A quarter of DEAD holds this
/// many times less if all are as large as they may be, up to 600,000 letters: the sum of
/// their `1 / n` is 14.
pub const WHOLE_DIVISOR: u64 = 4 * 14;

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
    bytes_max: u64,
    asked: Instant,
}

/// The letters of each tenant, as far as this process knows.
#[derive(Debug, Clone, Default)]
pub struct DeadRoom(Arc<Mutex<HashMap<String, Counted>>>);

impl DeadRoom {
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
        let Some(Counted { letters, bytes_max, .. }) = self.count(broker, &letter.tenant).await
        else {
            return letter;
        };
        if is_whole(&letter, letters, bytes_max) {
            return letter;
        }
        let (tenant, id) = (&letter.tenant, &letter.id);
        tracing::warn!(%tenant, %id, letters, "a dead letter is filed without its original bytes");
        without_original(letter, letters)
    }

    /// How many letters the tenant has, this one included.
    async fn count(&self, broker: &Broker, tenant: &str) -> Option<Counted> {
        if let Some(counted) = self.next(tenant, None) {
            return Some(counted);
        }
        let filter = subjects::dead(tenant, ">");
        let count = subject_count(broker, DEAD_STREAM, &filter).await.ok()?;
        let bytes_max = count.bytes_max?;
        let asked = Counted { letters: count.messages, bytes_max, asked: Instant::now() };
        self.next(tenant, Some(asked))
    }

    /// Counts one more; nothing where the broker has to be asked first.
    fn next(&self, tenant: &str, asked: Option<Counted>) -> Option<Counted> {
        let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = asked {
            if tenants.len() >= TENANTS_MAX {
                tenants.clear();
            }
            // Of those that asked at once the last answer counts, if it is more.
            let known = tenants.entry(tenant.to_owned()).or_insert(asked);
            let letters = match known.asked.elapsed() < COUNTED_FOR {
                true => known.letters.max(asked.letters),
                false => asked.letters,
            };
            *known = Counted { letters, ..asked };
        }
        let counted = tenants.get_mut(tenant)?;
        if counted.asked.elapsed() >= COUNTED_FOR {
            return None;
        }
        counted.letters += 1;
        Some(*counted)
    }
}

/// Whether a letter fits as it is, as that of this number among its tenant's.
fn is_whole(letter: &DeadLetter, number: u64, bytes_max: u64) -> bool {
    let headers = letter.headers.iter().map(|(name, value)| name.len() + value.len());
    let bytes = letter.original.len() + headers.sum::<usize>();
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    bytes <= bytes_max / WHOLE_DIVISOR / number.max(1)
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

    #[test]
    fn letters_that_are_as_large_as_they_may_be_take_a_quarter_of_the_stream() {
        let bytes_max = 100 << 20;
        let largest = |number| bytes_max / WHOLE_DIVISOR / number;

        let whole: u64 = (1..=600_000).map(largest).sum();

        assert!(whole <= bytes_max / 4, "{whole}");
        for number in [1_u64, 10, 1_000] {
            let fits = usize::try_from(largest(number)).unwrap() - 2;
            assert!(is_whole(&letter(fits), number, bytes_max));
            assert!(!is_whole(&letter(fits + 1), number, bytes_max));
        }
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
        assert!(room.next("acme", None).is_none(), "the broker is asked first");
        let asked = |letters| Counted { letters, bytes_max: 1, asked: Instant::now() };

        let next = |asked| room.next("acme", asked).map(|counted| counted.letters);
        assert_eq!(next(Some(asked(5))), Some(6));
        assert_eq!(next(None), Some(7));
        // An answer that left before what was filed here.
        assert_eq!(next(Some(asked(5))), Some(8));
        assert!(room.next("globex", None).is_none());
    }
}
