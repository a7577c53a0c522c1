//! The first connect: how long it is tried, and when it is of no use to go on.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ServerAddr};
use futures_util::future::select_ok;
use tokio::time::{Instant, timeout_at};

use super::ConnectOptions;

/// How long one try of one address may take, and the first connect where less is allowed for all of it: a try that
/// is under way is brought to its end.
pub(super) const TRY_LIMIT: Duration = Duration::from_secs(5);

/// When the first connect to one of so many addresses, which begins now, is given up whatever is under way: not
/// before there was time for each.
pub(super) fn given_up_at(options: &ConnectOptions, addresses: usize) -> Instant {
    Instant::now() + tried_for(options, addresses)
}

fn tried_for(options: &ConnectOptions, addresses: usize) -> Duration {
    let addresses = u32::try_from(addresses.max(1)).unwrap_or(u32::MAX);
    options.connect_limit.max(TRY_LIMIT.saturating_mul(addresses))
}

/// Tries once, and no longer than until `given_up`.
pub(super) async fn try_once(
    settings: async_nats::ConnectOptions,
    addresses: &[&str],
    given_up: Instant,
) -> Result<Client, async_nats::ConnectError> {
    let unresolved = "the name service did not answer";
    in_time(resolved(addresses), given_up, ConnectErrorKind::Dns, unresolved).await?;
    let connected = settings.connect(addresses);
    in_time(connected, given_up, ConnectErrorKind::TimedOut, "no answer in time").await?
}

async fn in_time<T>(
    what: impl Future<Output = T>,
    given_up: Instant,
    kind: ConnectErrorKind,
    why: &str,
) -> Result<T, async_nats::ConnectError> {
    let ended = timeout_at(given_up, what).await;
    ended.map_err(|_| async_nats::ConnectError::with_source(kind, why))
}

/// Waits until one of the addresses is a number or its name is known, or all are known not to be; which, the connect
/// itself finds out.
async fn resolved(addresses: &[&str]) {
    let servers = addresses.iter().map(|address| address.parse::<ServerAddr>());
    let Ok(servers) = servers.collect::<Result<Vec<_>, _>>() else { return };
    let numbers = |server: &ServerAddr| ip_of(server).is_some();
    if servers.is_empty() || servers.iter().any(numbers) {
        return;
    }
    let lookups = servers.iter().map(|server| Box::pin(server.socket_addrs()));
    let _ = select_ok(lookups).await;
}

fn ip_of(server: &ServerAddr) -> Option<IpAddr> {
    server.host().trim_matches(['[', ']']).parse().ok()
}

/// Whether this machine itself says that nobody listens at any of the addresses, which all are its own: another
/// machine may be on its way up, and a proxy of this one is asked for others.
pub(super) fn nobody_listens(error: &async_nats::ConnectError, addresses: &[&str]) -> bool {
    let is_own = |address: &&str| {
        address.parse::<ServerAddr>().is_ok_and(|server| {
            let is_named = server.host() == "localhost";
            is_named || ip_of(&server).is_some_and(|ip| ip.is_loopback())
        })
    };
    is_refused(error) && addresses.iter().all(is_own)
}

fn is_refused(error: &async_nats::ConnectError) -> bool {
    let mut source = error.source();
    while let Some(reason) = source {
        let refused = reason.downcast_ref::<io::Error>();
        if refused.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = reason.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn only_this_machine_knows_that_nobody_listens() {
        let io = |kind| {
            let source = io::Error::from(kind);
            async_nats::ConnectError::with_source(ConnectErrorKind::Io, source)
        };
        let refused = io(io::ErrorKind::ConnectionRefused);

        for own in ["nats://127.0.0.1:4222", "localhost:4222", "nats://[::1]:4222", "127.9.9.9"] {
            assert!(nobody_listens(&refused, &[own]), "{own}");
        }
        for other in ["nats://10.0.0.1:4222", "nats://broker:4222"] {
            assert!(!nobody_listens(&refused, &[other]), "{other}");
        }
        assert!(!nobody_listens(&refused, &["127.0.0.1:4222", "nats://broker:4222"]));
        assert!(!nobody_listens(&io(io::ErrorKind::ConnectionReset), &["127.0.0.1:4222"]));
    }

    #[tokio::test]
    async fn a_name_service_that_does_not_answer_is_waited_for_no_longer_than_for_the_rest() {
        let given_up = Instant::now() + Duration::from_millis(20);

        let ended = in_time(pending::<()>(), given_up, ConnectErrorKind::Dns, "silent").await;

        assert_eq!(ended.unwrap_err().kind(), ConnectErrorKind::Dns);
    }

    #[test]
    fn there_is_time_for_each_address() {
        let with = |seconds| ConnectOptions {
            connect_limit: Duration::from_secs(seconds),
            ..ConnectOptions::default()
        };

        let tried_for = |seconds, addresses| tried_for(&with(seconds), addresses).as_secs();
        assert_eq!(
            [tried_for(10, 1), tried_for(10, 3), tried_for(3, 0), tried_for(3, 2)],
            [10, 15, 5, 10]
        );
    }
}
