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

use super::{Broker, ConnectOptions, ConnectionRole, open};
use crate::engine_config::read_engine_config;

/// How long no engine may be found before it is gone for good: servers that start together may not know all
/// of their streams at once.
pub const ENGINE_GONE_AFTER: Duration = Duration::from_secs(30);

/// How long a server may take to tell which engine it has; then the next one is asked. An election takes
/// 4 to 9 s.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

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
    /// Not enough to tell.
    Unready,
    /// Nobody.
    Nobody,
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
    replaced: watch::Sender<Option<Replaced>>,
}

impl Gate {
    pub(super) fn new(options: ConnectOptions) -> Self {
        let options = ConnectOptions {
            name: format!("{} gate", options.name),
            // One try.
            connect_limit: Duration::ZERO,
            ..options
        };
        Self {
            options,
            agreement: OnceLock::new(),
            known: Mutex::default(),
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
            looking.join_next().await?.ok()
        })
    }

    async fn found(&self, agreement: &Bytes, mut pool: Vec<Server>) -> ReconnectToServer {
        // As the library orders them.
        pool.shuffle(&mut rand::rng());
        pool.sort_by_key(|server| server.failed_attempts);
        let mut without_since = None;
        let mut told = None;
        for (round, server) in pool.iter().cycle().enumerate() {
            let sight = self.look(&server.addr, agreement).await;
            let mut pause = pause_after(round);
            let url = server.addr.as_url_str();
            match sight {
                Sight::Ours => {
                    let delay = Some(Duration::ZERO);
                    return ReconnectToServer { addr: server.addr.clone(), delay };
                }
                Sight::Other(found) => self.give_up(&server.addr, Some(found)).await,
                Sight::Empty => {
                    let since = *without_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= ENGINE_GONE_AFTER {
                        self.give_up(&server.addr, None).await;
                    }
                    if is_due(&mut told) {
                        tracing::warn!(url, limit = ?ENGINE_GONE_AFTER, "the broker is there again, but no engine is \
                            on it; it is not used, and given up after the limit");
                    }
                    pause = pause.max(PAUSE_UNREADY);
                }
                Sight::Unready => {
                    without_since = None;
                    if is_due(&mut told) {
                        tracing::warn!(
                            url,
                            "the broker is there again, but cannot tell yet which engine is on it; it \
                            is asked on, and not used before"
                        );
                    }
                    pause = pause.max(PAUSE_UNREADY);
                }
                Sight::Nobody => {}
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
        let connected = open(address.as_url_str(), &self.options, role, &notices, &gate).await;
        let Ok(connection) = connected else { return Sight::Nobody };
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
        match timeout(LOOK_LIMIT, read_engine_config(&broker)).await {
            Ok(Ok(Some(stored))) if stored.payload == agreement => {
                self.remember(server);
                Sight::Ours
            }
            Ok(Ok(Some(stored))) => Sight::Other(stored.payload),
            Ok(Ok(None)) => Sight::Empty,
            Ok(Err(error)) if error.is_stream_not_found() => Sight::Empty,
            Ok(Err(_)) | Err(_) => Sight::Unready,
        }
    }

    async fn give_up(&self, address: &ServerAddr, found: Option<Bytes>) {
        let url = address.as_url_str().to_owned();
        self.replaced.send_if_modified(|replaced| {
            let is_first = replaced.is_none();
            replaced.get_or_insert(Replaced { url, found });
            is_first
        });
        std::future::pending().await
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

/// Whether something is to be told that was told last at `told`.
fn is_due(told: &mut Option<Instant>) -> bool {
    let is_due = told.is_none_or(|told| told.elapsed() >= TOLD_AGAIN);
    if is_due {
        *told = Some(Instant::now());
    }
    is_due
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

    #[test]
    fn no_more_servers_are_known_than_there_is_room_for() {
        let gate = Gate::new(ConnectOptions::default());

        gate.close(Bytes::new(), (0..2 * KNOWN_MAX).map(|number| format!("{number:04}")));

        assert_eq!(gate.known.lock().unwrap().len(), KNOWN_MAX);
        assert!(gate.is_known("0127") && !gate.is_known("0000"));
    }
}
