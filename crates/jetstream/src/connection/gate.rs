//! The gate that a process goes through before it is connected again: the engine that it belongs to must be there.
//!
//! Where the data of a broker was replaced, or another one listens at its address, everything that this process
//! knows is of an engine that is not there: floors, leases, deliveries, keys. What it had queued would be stored in
//! the other one, before anybody could look. So the library is not let to a server before a connection of
//! its own has read there what the workers of the engine agreed on.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::{ReconnectToServer, Server, ServerAddr, jetstream};
use bytes::Bytes;
use rand::seq::SliceRandom as _;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Broker, ConnectOptions, ConnectionRole, first, try_open};
use crate::engine_config::read_engine_config;

/// How long no engine may be found before it is gone for good: servers that start together may not know all
/// of their streams at once.
pub const ENGINE_GONE_AFTER: Duration = Duration::from_secs(30);

/// How long a server may take to tell which engine it has; then the next one is asked. An election takes
/// 4 to 9 s.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// How many addresses of one name there is time for.
const ADDRESSES_OF_NAME: u32 = 3;

/// How often it is looked over connections that are up.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// Longest pause before the next server is asked; the first ones are some milliseconds.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Shortest pause after a server that answered and had no engine to show.
const PAUSE_UNREADY: Duration = Duration::from_millis(200);

/// How often the log says what is waited for.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Most servers that are known to be the engine's without asking: each start of one is another.
const KNOWN_MAX: usize = 64;

/// What is where the engine was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The server.
    pub url: String,
    /// What the workers of the engine that is there agreed on; nothing where there is none.
    pub found: Option<Bytes>,
}

/// What was seen at a server.
enum Sight {
    /// The engine of this process.
    Ours,
    /// Another one.
    Other(Bytes),
    /// A server without an engine.
    Empty,
    /// Not enough to tell, and why.
    Unready(String),
    /// Nobody, and why.
    Nobody(String),
}

/// What was seen at all servers, one after the other.
#[derive(Debug, Default)]
struct Rounds {
    /// What this round saw that is not this process's engine.
    other: Option<Replaced>,
    /// Whether a server of this round may have it all the same.
    may_be_ours: bool,
    /// Since when each round saw servers without an engine, and no other.
    empty_since: Option<Instant>,
}

impl Rounds {
    /// Begins the next round; what is where the engine was, if the last one leaves no doubt.
    fn begin(&mut self, now: Instant) -> Option<Replaced> {
        let other = self.other.take();
        let may_be_ours = std::mem::take(&mut self.may_be_ours);
        let Some(other) = other.filter(|_| !may_be_ours) else {
            // Nobody, or not for certain.
            self.empty_since = None;
            return None;
        };
        if other.found.is_some() {
            return Some(other);
        }
        let since = *self.empty_since.get_or_insert(now);
        (now.duration_since(since) >= ENGINE_GONE_AFTER).then_some(other)
    }

    fn saw(&mut self, url: &str, found: Option<Bytes>) {
        // Another engine says more than none.
        if found.is_some() || self.other.is_none() {
            self.other = Some(Replaced { url: url.to_owned(), found });
        }
    }
}

/// The next server, as the library wants to be told.
type Passed = Pin<Box<dyn Future<Output = Option<ReconnectToServer>> + Send + Sync>>;

/// Both connections of a process go through the same one.
#[derive(Debug)]
pub(super) struct Gate {
    options: ConnectOptions,
    /// What the workers of the engine agreed on; open while nothing is.
    agreement: OnceLock<Bytes>,
    /// Servers that were seen to have the engine: it does not change while one runs.
    known: Mutex<BTreeSet<String>>,
    told: Mutex<Option<Instant>>,
    replaced: watch::Sender<Option<Replaced>>,
}

impl Gate {
    pub(super) fn new(options: ConnectOptions) -> Self {
        let options = ConnectOptions { name: format!("{} gate", options.name), ..options };
        Self {
            options,
            agreement: OnceLock::new(),
            known: Mutex::default(),
            told: Mutex::default(),
            replaced: watch::Sender::default(),
        }
    }

    /// Lets pass from now on who leads to `agreement`; `servers` are known to.
    pub(super) fn close(&self, agreement: Bytes, servers: impl IntoIterator<Item = String>) {
        // Whoever comes second agrees with the first: it is the same engine's.
        let _ = self.agreement.set(agreement);
        servers.into_iter().for_each(|server| self.remember(server));
    }

    pub(super) async fn replaced(&self) -> Replaced {
        let mut replaced = self.replaced.subscribe();
        let found = replaced.wait_for(Option::is_some).await.map(|found| found.clone());
        match found {
            Ok(Some(found)) => found,
            // The sender lives as long as this.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The next server to connect to; any, while the gate is open. Never ends once the engine is gone.
    // Boxed, for to look is to connect, which asks here.
    pub(super) fn passed(self: Arc<Self>, pool: Vec<Server>) -> Passed {
        Box::pin(async move {
            let agreement = self.agreement.get()?.clone();
            // The library wants a future that threads can share, which those that look are not.
            let mut looking = JoinSet::new();
            looking.spawn(async move { self.found(&agreement, pool).await });
            match looking.join_next().await {
                Some(Ok(server)) => Some(server),
                // Without a look nobody passes.
                Some(Err(_)) | None => std::future::pending().await,
            }
        })
    }

    async fn found(&self, agreement: &Bytes, mut pool: Vec<Server>) -> ReconnectToServer {
        // As the library orders them.
        pool.shuffle(&mut rand::rng());
        pool.sort_by_key(|server| server.failed_attempts);
        let (mut rounds, begun) = (Rounds::default(), Instant::now());
        for (number, server) in pool.iter().cycle().enumerate() {
            if number % pool.len() == 0
                && let Some(replaced) = rounds.begin(Instant::now())
            {
                self.give_up(replaced).await;
            }
            let mut pause = pause_after(number);
            let url = server.addr.as_url_str();
            match self.look(&server.addr, agreement).await {
                Sight::Ours => {
                    // Its own pauses, should the connect fail all the same.
                    return ReconnectToServer { addr: server.addr.clone(), delay: None };
                }
                Sight::Other(found) => {
                    self.tell(url, "another engine is on it; it is not used");
                    rounds.saw(url, Some(found));
                    pause = pause.max(PAUSE_UNREADY);
                }
                Sight::Empty => {
                    self.tell(url, "no engine is on it; it is not used");
                    rounds.saw(url, None);
                    pause = pause.max(PAUSE_UNREADY);
                }
                Sight::Unready(why) => {
                    self.tell(
                        url,
                        &format!(
                            "which engine is on it cannot be told yet; it is not used before: {why}"
                        ),
                    );
                    rounds.may_be_ours = true;
                    pause = pause.max(PAUSE_UNREADY);
                }
                // Why is mostly that it is away, which is told elsewhere. It may come back with our engine, so
                // others are not the last word at once.
                Sight::Nobody(why) => {
                    tracing::debug!(url, %why, "the broker cannot be reached");
                    rounds.may_be_ours |= begun.elapsed() < ENGINE_GONE_AFTER;
                }
            }
            sleep(pause).await;
        }
        // A client without servers has none to connect to.
        std::future::pending().await
    }

    async fn look(&self, address: &ServerAddr, agreement: &Bytes) -> Sight {
        let gate = Arc::new(Self::new(self.options.clone()));
        let (notices, _) = broadcast::channel(1);
        let role = ConnectionRole::Consuming;
        let given_up = Instant::now() + first::TRY_LIMIT * ADDRESSES_OF_NAME;
        let address = [address.as_url_str()];
        let tried = try_open(&address, &self.options, role, &notices, &gate, given_up).await;
        let connection = match tried {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Sight::Nobody(error.to_string()),
            Err(error) => return Sight::Nobody(error.to_string()),
        };
        let server = connection.client.server_info().server_id;
        if self.is_known(&server) {
            return Sight::Ours;
        }
        let context = jetstream::new(connection.client.clone());
        let broker = Broker {
            publishing: connection.clone(),
            consuming: connection,
            context,
            notices,
            gate,
        };
        let read = timeout(LOOK_LIMIT, read_engine_config(&broker)).await;
        if broker.interruptions() > 0 {
            return Sight::Unready("the connection was lost meanwhile".to_owned());
        }
        match read {
            Ok(Ok(Some(stored))) if stored.payload == agreement => {
                self.remember(server);
                Sight::Ours
            }
            Ok(Ok(Some(stored))) => Sight::Other(stored.payload),
            Ok(Ok(None)) => Sight::Empty,
            Ok(Err(error)) if error.is_stream_not_found() => Sight::Empty,
            Ok(Err(error)) => Sight::Unready(error.to_string()),
            Err(_) => Sight::Unready(format!("no answer within {LOOK_LIMIT:?}")),
        }
    }

    async fn give_up(&self, replaced: Replaced) {
        self.note(replaced);
        std::future::pending().await
    }

    fn note(&self, replaced: Replaced) {
        self.replaced.send_if_modified(|before| {
            let is_first = before.is_none();
            before.get_or_insert(replaced);
            is_first
        });
    }

    /// Looks now and then over the connections of `broker`, which are up: its data can be replaced behind them, and
    /// one name can lead to servers of two engines. Ends when it has noted that.
    pub(super) async fn watch(&self, broker: &Broker) {
        let Some(agreement) = self.agreement.get() else { return };
        let url = || {
            let server = broker.consuming.client.server_info();
            format!("nats://{}:{}", server.host, server.port)
        };
        let mut rounds = Rounds::default();
        loop {
            sleep(WATCH_INTERVAL).await;
            match read_engine_config(broker).await {
                Ok(Some(stored)) if stored.payload == agreement => rounds.may_be_ours = true,
                Ok(Some(stored)) => rounds.saw(&url(), Some(stored.payload)),
                Ok(None) => rounds.saw(&url(), None),
                Err(error) if error.is_stream_not_found() => rounds.saw(&url(), None),
                Err(_) => rounds.may_be_ours = true,
            }
            if let Some(replaced) = rounds.begin(Instant::now()) {
                return self.note(replaced);
            }
        }
    }

    /// Says in the log what is at `url`, for both connections now and then.
    fn tell(&self, url: &str, what: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN) {
            *told = Some(Instant::now());
            tracing::warn!(url, "the broker is there again, but {what}");
        }
    }

    fn is_known(&self, server: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(server)
    }

    fn remember(&self, server: String) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            // Whichever goes is asked again.
            known.pop_first();
        }
        known.insert(server);
    }
}

/// As the library waits by itself: hardly at first, then twice as long each time.
fn pause_after(round: usize) -> Duration {
    let exponent = u32::try_from(round).unwrap_or(u32::MAX).min(12);
    Duration::from_millis(1 << exponent).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_asked_quickly_at_first_and_every_four_seconds_in_the_end() {
        let pauses = [0, 1, 2, 11, 12, usize::MAX].map(|round| pause_after(round).as_millis());

        assert_eq!(pauses, [1, 2, 4, 2_048, 4_000, 4_000]);
    }

    fn replaced(url: &str, found: Option<&'static str>) -> Replaced {
        Replaced { url: url.to_owned(), found: found.map(Into::into) }
    }

    #[test]
    fn another_engine_counts_when_no_server_of_a_round_may_have_ours() {
        let (mut rounds, now) = (Rounds::default(), Instant::now());
        assert_eq!(rounds.begin(now), None);

        rounds.saw("a", Some("other".into()));
        rounds.may_be_ours = true;
        assert_eq!(rounds.begin(now), None);

        rounds.saw("a", Some("other".into()));
        rounds.saw("b", None);
        assert_eq!(rounds.begin(now), Some(replaced("a", Some("other"))));
    }

    #[test]
    fn no_engine_counts_when_each_round_of_half_a_minute_saw_none() {
        let (mut rounds, begun) = (Rounds::default(), Instant::now());
        let mut after = |seconds, is_there| {
            if is_there {
                rounds.saw("a", None);
            }
            rounds.begin(begun + Duration::from_secs(seconds))
        };

        assert_eq!([after(0, true), after(29, true)], [None, None]);
        // A server that is away is none without an engine.
        assert_eq!([after(31, false), after(60, true), after(89, true)], [None, None, None]);
        assert_eq!(after(90, true), Some(replaced("a", None)));
    }

    #[test]
    fn no_more_servers_are_known_than_there_is_room_for() {
        let gate = Gate::new(ConnectOptions::default());

        gate.close(Bytes::new(), (0..2 * KNOWN_MAX).map(|number| format!("{number:04}")));

        assert_eq!(gate.known.lock().unwrap().len(), KNOWN_MAX);
        assert!(gate.is_known("0127") && !gate.is_known("0000"));
    }
}
