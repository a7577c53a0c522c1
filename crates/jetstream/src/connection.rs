//! The two connections of a process, and what happens to them.
//!
//! One connection is one task in the client library, so publishing and consuming have one each: both
//! cores work and a burst of deliveries does not hold up an append. What the library tells only to a
//! callback (refused permissions, dropped messages, lost connections) is told here to whoever listens.

mod first;
mod gate;
mod observing;
mod options;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, jetstream};
use bytes::Bytes;
use thiserror::Error;
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, sleep},
};

use self::gate::Gate;

pub use gate::{ENGINE_GONE_AFTER, Replaced};
pub use options::{CONNECT_LIMIT, ConnectOptions, Credentials, PING_INTERVAL, without_credentials};

/// How many notices a slow listener may fall behind; older ones are then lost to it, and it is told so.
pub const NOTICE_CAPACITY: usize = 1024;

/// Pause between two tries of the first connect.
const CONNECT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionRole {
    /// Carries publishes, their acknowledgements and requests.
    Publishing,
    /// Carries deliveries and their acknowledgements.
    Consuming,
}

/// What happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// It is up, for the first time or again.
    Connected,
    /// It was lost; the library keeps trying to get it back.
    Disconnected,
    /// It is given up and will not come back.
    Closed,
    /// A subscription was full, and a message for it was dropped.
    SlowConsumer {
        /// The library's number of the subscription.
        subscription: u64,
    },
    /// The server refused a subject; the caller sees only a time-out.
    PermissionDenied(String),
    /// Anything else that the server complained about.
    ServerError(String),
}

/// An event and the connection that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionNotice {
    /// Which connection.
    pub role: ConnectionRole,
    /// What happened to it.
    pub event: ConnectionEvent,
}

/// Why no connection came about.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Whatever is at the address did not say a word in time.
    #[error("the server at `{url}` did not answer within {limit:?}")]
    Silent {
        /// Where.
        url: String,
        /// How long it was tried.
        limit: Duration,
        /// The last failure.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The address names a machine that no name service knows.
    #[error("the name of the server at `{url}` was not resolved within {limit:?}")]
    Unresolved {
        /// Where.
        url: String,
        /// How long it was tried.
        limit: Duration,
        /// What the name service said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// Nothing that could answer is there.
    #[error("no connection to `{url}` within {limit:?}; is a nats-server running there?")]
    Unreachable {
        /// Where.
        url: String,
        /// How long it was tried.
        limit: Duration,
        /// The last refusal.
        #[source]
        source: async_nats::ConnectError,
    },
    /// This machine says that no program listens there, and none was waited for.
    #[error("nobody listens at `{url}`")]
    NobodyListens {
        /// Where.
        url: String,
        /// The refusal.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server refused who we say we are.
    #[error("the server at `{url}` refused the credentials")]
    Refused {
        /// Where.
        url: String,
        /// What it said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The credentials file cannot be read.
    #[error("could not read the credentials file `{path}`")]
    CredentialsFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// State of one connection as far as its users must know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) connected: bool,
    /// How often it was lost: whoever sees this move treats what was in flight as unknown.
    pub(crate) interruptions: u64,
}

/// How often each connection of a process was lost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Losses {
    publishing: u64,
    consuming: u64,
}

impl Losses {
    /// Whether since `before` the connection that carries deliveries was lost and the other one was not: the
    /// server and the network are there, so something that was delivered may be the reason.
    pub(crate) fn only_consuming_since(self, before: Self) -> bool {
        self.consuming != before.consuming && self.publishing == before.publishing
    }

    /// How often since `before` the connection that carries deliveries was lost.
    pub(crate) fn consumed_since(self, before: Self) -> u64 {
        self.consuming.saturating_sub(before.consuming)
    }

    #[cfg(test)]
    pub(crate) fn testing(publishing: u64, consuming: u64) -> Self {
        Self { publishing, consuming }
    }
}

/// One connection with its state.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) link: watch::Receiver<Link>,
}

/// A process's access to the broker. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Broker {
    publishing: Connection,
    consuming: Connection,
    context: jetstream::Context,
    notices: broadcast::Sender<ConnectionNotice>,
    gate: Arc<Gate>,
}

impl Broker {
    /// Opens both connections, trying again until `options.connect_limit` has passed.
    ///
    /// `url` may name several servers of one cluster, separated by commas; when one is gone the connection
    /// goes to another.
    ///
    /// # Errors
    /// When the server is not reachable in time, refuses the credentials, or the credentials cannot be read.
    ///
    /// # Cancel safety
    /// Nothing stays open when dropped.
    pub async fn connect(url: &str, options: ConnectOptions) -> Result<Self, ConnectError> {
        let options = options.named_by(url);
        let (notices, _) = broadcast::channel(NOTICE_CAPACITY);
        let gate = Arc::new(Gate::new(options.clone()));
        let publishing = open(url, &options, ConnectionRole::Publishing, &notices, &gate).await?;
        let consuming = open(url, &options, ConnectionRole::Consuming, &notices, &gate).await?;
        let context = jetstream::new(publishing.client.clone());
        Ok(Self { publishing, consuming, context, notices, gate })
    }

    /// From now on, connects again only to servers whose engine agreed on `agreement`, the message that
    /// [`crate::engine_config`] reads. What was connected before is not looked at: where
    /// [`Self::interruptions`] moved since that message was read, it has to be read again.
    pub fn stay_with(&self, agreement: Bytes) {
        self.gate.close(
            agreement,
            [&self.publishing, &self.consuming]
                .map(|connection| connection.client.server_info().server_id),
        );
    }

    /// Looks every 10 s whether the engine of [`Self::stay_with`] is still there, behind connections that are up;
    /// ends when it is not, which [`Self::replaced`] then tells.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn watch_engine(&self) {
        self.gate.watch(self).await;
    }

    /// Waits until another engine, or none, is found where the broker was; what is not connected then never is
    /// again.
    ///
    /// # Cancel safety
    /// Can be dropped and asked again.
    pub async fn replaced(&self) -> Replaced {
        self.gate.replaced().await
    }

    /// Everything that happens to either connection from now on.
    pub fn notices(&self) -> broadcast::Receiver<ConnectionNotice> {
        self.notices.subscribe()
    }

    /// Version that the server tells, such as `2.15.1`.
    pub fn server_version(&self) -> String {
        self.publishing.client.server_info().version
    }

    /// Which server the publishing connection is with.
    pub fn server_id(&self) -> String {
        self.publishing.client.server_info().server_id
    }

    /// Whether both connections are up.
    pub fn is_connected(&self) -> bool {
        self.publishing.link.borrow().connected && self.consuming.link.borrow().connected
    }

    /// How often a connection was lost so far. Where it has not moved between two reads, they were read over
    /// the same connections.
    pub fn interruptions(&self) -> u64 {
        let Losses { publishing, consuming } = self.losses();
        publishing + consuming
    }

    pub(crate) fn losses(&self) -> Losses {
        Losses {
            publishing: self.publishing.link.borrow().interruptions,
            consuming: self.consuming.link.borrow().interruptions,
        }
    }

    /// Waits until what was sent over both connections, acknowledgements included, is written to the server's
    /// sockets. What is only queued is lost with the last user of a connection.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn flush(&self) {
        for connection in [&self.publishing, &self.consuming] {
            // An error means that the client is closed for good, and nothing is left to write.
            let _ = connection.client.flush().await;
        }
    }

    /// Waits until both connections are up.
    ///
    /// # Cancel safety
    /// Can be dropped and asked again.
    pub async fn connected(&self) {
        for connection in [&self.publishing, &self.consuming] {
            // An error means that the client is closed for good; the caller's next call says so.
            let _ = connection.link.clone().wait_for(|link| link.connected).await;
        }
    }

    pub(crate) fn publishing(&self) -> &Connection {
        &self.publishing
    }

    pub(crate) fn consuming(&self) -> &Connection {
        &self.consuming
    }

    pub(crate) fn context(&self) -> &jetstream::Context {
        &self.context
    }
}

/// Opens one of the connections, trying again for as long as `options` say.
async fn open(
    url: &str,
    options: &ConnectOptions,
    role: ConnectionRole,
    notices: &broadcast::Sender<ConnectionNotice>,
    gate: &Arc<Gate>,
) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + options.connect_limit;
    // The library is told user and password by its options, and logs addresses as they are.
    let addresses = without_credentials(url);
    let listed: Vec<_> = addresses.split(',').map(str::trim).collect();
    let given_up = first::given_up_at(options, listed.len());
    loop {
        match try_open(&listed, options, role, notices, gate, given_up).await? {
            Ok(connection) => return Ok(connection),
            Err(source) if refused(&source) => {
                return Err(ConnectError::Refused { url: addresses, source });
            }
            Err(source) if !options.awaits_listener && first::nobody_listens(&source, &listed) => {
                return Err(ConnectError::NobodyListens { url: addresses, source });
            }
            Err(source) if Instant::now() >= deadline => {
                return Err(not_connected(addresses, options.connect_limit, source));
            }
            Err(_) => sleep(CONNECT_RETRY_PAUSE).await,
        }
    }
}

/// Tries once, and no longer than until `given_up`.
async fn try_open(
    addresses: &[&str],
    options: &ConnectOptions,
    role: ConnectionRole,
    notices: &broadcast::Sender<ConnectionNotice>,
    gate: &Arc<Gate>,
    given_up: Instant,
) -> Result<Result<Connection, async_nats::ConnectError>, ConnectError> {
    let (link_sender, link) = watch::channel(Link::default());
    let link_sender = Arc::new(link_sender);
    let settings = options.settings(role, notices.clone(), link_sender, gate.clone()).await?;
    let tried = first::try_once(settings, addresses, given_up).await;
    Ok(match tried {
        Ok(client) => {
            // The callback runs on a task of its own: wait for it, so that this first event is
            // not taken for an interruption later.
            let _ = link.clone().wait_for(|link| link.connected).await;
            Ok(Connection { client, link })
        }
        Err(error) => Err(error),
    })
}

fn not_connected(url: String, limit: Duration, source: async_nats::ConnectError) -> ConnectError {
    match source.kind() {
        async_nats::ConnectErrorKind::TimedOut => ConnectError::Silent { url, limit, source },
        async_nats::ConnectErrorKind::Dns => ConnectError::Unresolved { url, limit, source },
        async_nats::ConnectErrorKind::ServerParse
        | async_nats::ConnectErrorKind::Authentication
        | async_nats::ConnectErrorKind::AuthorizationViolation
        | async_nats::ConnectErrorKind::Tls
        | async_nats::ConnectErrorKind::Io
        | async_nats::ConnectErrorKind::MaxReconnects => {
            ConnectError::Unreachable { url, limit, source }
        }
    }
}

fn refused(error: &async_nats::ConnectError) -> bool {
    matches!(
        error.kind(),
        async_nats::ConnectErrorKind::Authentication
            | async_nats::ConnectErrorKind::AuthorizationViolation
    )
}
