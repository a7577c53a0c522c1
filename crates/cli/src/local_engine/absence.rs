//! Telling of a broker that is not there: it is another's, and only its operator can start it again.

use std::time::{Duration, Instant};

use fermata_actors::Engine;

/// How often it is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long it may be away without a word: a server that is replaced in a cluster is.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// How often it is told again while it is away.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Tells in the log when the broker at `url` goes and when it comes back; never ends.
///
/// # Cancel safety
///
/// Can be dropped.
pub(super) async fn tell(engine: Engine, url: String) {
    let mut absence = Absence::default();
    loop {
        match absence.look(engine.ports().broker.is_connected(), Instant::now()) {
            Some(Told::Away(for_how_long)) => tracing::warn!(
                url,
                ?for_how_long,
                "the broker cannot be reached; it is tried on, and nothing that was accepted is lost. A broker that \
                 has another address now is not looked for: start this process again with that"
            ),
            Some(Told::Back(after)) => tracing::info!(url, ?after, "the broker is back"),
            None => {}
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Away(Duration),
    Back(Duration),
}

#[derive(Debug, Default)]
struct Absence {
    since: Option<Instant>,
    told: Option<Instant>,
}

impl Absence {
    /// What is to be told of what was seen.
    fn look(&mut self, is_connected: bool, now: Instant) -> Option<Told> {
        if is_connected {
            let told = self.told.take();
            return self
                .since
                .take()
                .filter(|_| told.is_some())
                .map(|since| Told::Back(now - since));
        }
        let away = now - *self.since.get_or_insert(now);
        let due = match self.told {
            None => away >= TOLD_AFTER,
            Some(told) => now - told >= TOLD_AGAIN,
        };
        due.then(|| {
            self.told = Some(now);
            Told::Away(away)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_goes_is_told_once_a_minute_and_when_it_comes_back() {
        let (mut absence, begun) = (Absence::default(), Instant::now());
        let mut look = |is_connected, seconds| {
            absence.look(is_connected, begun + Duration::from_secs(seconds))
        };
        let seconds = Duration::from_secs;

        assert_eq!([look(true, 0), look(false, 1), look(false, 2)], [None, None, None]);
        assert_eq!(look(false, 3), Some(Told::Away(seconds(2))));
        assert_eq!([look(false, 4), look(false, 62)], [None, None]);
        assert_eq!(look(false, 63), Some(Told::Away(seconds(62))));
        assert_eq!(look(true, 64), Some(Told::Back(seconds(63))));
        // One that was away so briefly that nothing was said is not told to be back.
        assert_eq!([look(false, 70), look(true, 71), look(false, 80)], [None, None, None]);
        assert_eq!(look(false, 82), Some(Told::Away(seconds(2))));
    }
}
