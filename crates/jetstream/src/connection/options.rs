//! How a process connects: who it is, where to, and for how long it tries.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{broadcast, watch};

use super::gate::Gate;
use super::{ConnectError, ConnectionNotice, ConnectionRole, Link, first, observing};

/// How often a silent connection is probed; the library gives up after two unanswered probes.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How long the first connect is tried before it is an error.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);

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

impl ConnectOptions {
    /// The same, as whoever the first of the addresses in `url` names, where they say nothing of it themselves.
    /// The library takes no notice of what stands in an address.
    pub(super) fn named_by(self, url: &str) -> Self {
        let credentials = match (self.credentials, of_address(url)) {
            (Credentials::None, Some((user, Some(password)))) => {
                Credentials::UserAndPassword { user, password }
            }
            (Credentials::None, Some((token, None))) => Credentials::Token(token),
            (credentials, _) => credentials,
        };
        Self { credentials, ..self }
    }

    pub(super) async fn settings(
        &self,
        role: ConnectionRole,
        notices: broadcast::Sender<ConnectionNotice>,
        link: Arc<watch::Sender<Link>>,
        gate: Arc<Gate>,
    ) -> Result<async_nats::ConnectOptions, ConnectError> {
        let suffix = match role {
            ConnectionRole::Publishing => "publishing",
            ConnectionRole::Consuming => "consuming",
        };
        let settings = async_nats::ConnectOptions::new()
            .name(format!("{}-{suffix}", self.name))
            .custom_inbox_prefix(&self.inbox_prefix)
            .ping_interval(self.ping_interval)
            // It holds for each try of the client to connect again, too.
            .connection_timeout(first::TRY_LIMIT)
            .reconnect_to_server_callback(move |pool, _| gate.clone().passed(pool))
            .event_callback(move |event| {
                observing::observe(role, &event, &notices, &link);
                std::future::ready(())
            });
        match &self.credentials {
            Credentials::None => Ok(settings),
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
