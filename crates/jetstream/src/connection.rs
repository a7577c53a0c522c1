//! The two connections of a process, and what happens to them.
//!
//! One connection is one task in the client library, so publishing and consuming have one each: both
//! cores work and a burst of deliveries does not hold up an append. What the library tells only to a
//! callback (refused permissions, dropped messages, lost connections) is told here to whoever listens.

mod first;
mod observing;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, jetstream};
use thiserror::Error;
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, sleep},
};

/// How often a silent connection is probed; the library gives up after two unanswered probes.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How long the first connect is tried before it is an error.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How many notices a slow listener may fall behind; older ones are then lost to it, and it is told so.
pub const NOTICE_CAPACITY: usize = 1024;

/// Pause between two tries of the first connect.
const CONNECT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How a process proves who it is.
#[derive(Clone)]
pub enum Credentials {
    /// Nothing to prove.
    None,
    /// A user and a password.
    UserAndPassword {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A bearer token.
    Token(String),
    /// A NATS credentials file.
    File(PathBuf),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::UserAndPassword { .. } => "UserAndPassword",
            Self::Token(_) => "Token",
            Self::File(_) => "File",
        })
    }
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Name shown by the server for this process.
    pub name: String,
    /// First tokens of reply subjects; permissions are given on it.
    pub inbox_prefix: String,
    /// How often a silent connection is probed.
    pub ping_interval: Duration,
    /// How long the first connect is tried.
    pub connect_limit: Duration,
    /// Whether it is tried on where this machine itself says that nobody listens there: whoever starts both wants
    /// that. Another machine is always tried on.
    pub awaits_listener: bool,
    /// Who connects.
    pub credentials: Credentials,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            name: "fermata".to_owned(),
            inbox_prefix: "_INBOX".to_owned(),
            ping_interval: PING_INTERVAL,
            connect_limit: CONNECT_LIMIT,
            awaits_listener: true,
            credentials: Credentials::None,
        }
    }
}

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
        let (notices, _) = broadcast::channel(NOTICE_CAPACITY);
        let publishing = open(url, &options, ConnectionRole::Publishing, &notices).await?;
        let consuming = open(url, &options, ConnectionRole::Consuming, &notices).await?;
        let context = jetstream::new(publishing.client.clone());
        Ok(Self { publishing, consuming, context, notices })
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

async fn open(
    url: &str,
    options: &ConnectOptions,
    role: ConnectionRole,
    notices: &broadcast::Sender<ConnectionNotice>,
) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + options.connect_limit;
    // The library is told user and password by its options, and logs addresses as they are.
    let addresses = without_credentials(url);
    let listed: Vec<_> = addresses.split(',').map(str::trim).collect();
    let given_up = first::given_up_at(options, listed.len());
    loop {
        let (link_sender, link) = watch::channel(Link::default());
        // What stands in the first address holds for all servers of a cluster.
        let first = url.split(',').next().unwrap_or_default().trim();
        let settings =
            settings(first, options, role, notices.clone(), Arc::new(link_sender)).await?;
        // It holds for each try of the client to connect again, too.
        let settings = settings.connection_timeout(first::TRY_LIMIT);
        match first::try_once(settings, &listed, given_up).await {
            Ok(client) => {
                // The callback runs on a task of its own: wait for it, so that this first event is
                // not taken for an interruption later.
                let _ = link.clone().wait_for(|link| link.connected).await;
                return Ok(Connection { client, link });
            }
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

/// User and password, or a token alone, as they stand in `nats://user:password@host`.
fn of_address(url: &str) -> Option<(String, Option<String>)> {
    let first = url.split(',').next()?.trim();
    let address = first.parse::<async_nats::ServerAddr>().ok()?;
    Some((address.username()?.to_owned(), address.password().map(str::to_owned)))
}

/// An address without the user and password that may stand in it: what can be shown.
#[must_use]
pub fn without_credentials(url: &str) -> String {
    let shown = |one: &str| match (one.split_once("://"), one.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => one.to_owned(),
    };
    url.split(',').map(shown).collect::<Vec<_>>().join(",")
}

async fn settings(
    url: &str,
    options: &ConnectOptions,
    role: ConnectionRole,
    notices: broadcast::Sender<ConnectionNotice>,
    link: Arc<watch::Sender<Link>>,
) -> Result<async_nats::ConnectOptions, ConnectError> {
    let suffix = match role {
        ConnectionRole::Publishing => "publishing",
        ConnectionRole::Consuming => "consuming",
    };
    let settings = async_nats::ConnectOptions::new()
        .name(format!("{}-{suffix}", options.name))
        .custom_inbox_prefix(&options.inbox_prefix)
        .ping_interval(options.ping_interval)
        .event_callback(move |event| {
            observing::observe(role, &event, &notices, &link);
            std::future::ready(())
        });
    match &options.credentials {
        // The library takes no notice of what stands in the address.
        Credentials::None => Ok(match of_address(url) {
            Some((user, Some(password))) => settings.user_and_password(user, password),
            Some((token, None)) => settings.token(token),
            None => settings,
        }),
        Credentials::UserAndPassword { user, password } => {
            Ok(settings.user_and_password(user.clone(), password.clone()))
        }
        Credentials::Token(token) => Ok(settings.token(token.clone())),
        Credentials::File(path) => settings
            .credentials_file(path)
            .await
            .map_err(|source| ConnectError::CredentialsFile { path: path.clone(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_taken_from_the_address_and_not_shown() {
        let (user, password) = of_address("nats://ada:s3cret@a:4222,nats://b").expect("a user");
        assert_eq!((user.as_str(), password.as_deref()), ("ada", Some("s3cret")));
        assert_eq!(of_address("nats://t0ken@a").expect("a token"), ("t0ken".to_owned(), None));
        assert_eq!(of_address("nats://a:4222"), None);

        let shown = without_credentials("nats://ada:s3cret@a:4222,nats://b,ada:s3cret@c");
        assert_eq!(shown, "nats://a:4222,nats://b,c");
    }

    #[test]
    fn secrets_are_not_shown_by_debug() {
        let credentials = Credentials::Token("s3cret".to_owned());

        assert!(!format!("{credentials:?}").contains("s3cret"));
    }
}
