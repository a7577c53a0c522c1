//! Names to addresses that were checked.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::AddressRules;

/// Looks a host name up.
pub(crate) type Lookup = Arc<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync,
>;

/// The system's resolver.
pub(crate) fn system() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// Resolves one plugin's host. A name of which any address is refused is refused
/// as a whole: whoever answers for it points inside, by mistake or by intent.
pub(crate) struct CheckedResolver {
    pub(crate) rules: AddressRules,
    /// Hosts and ports of our own broker.
    pub(crate) brokers: Vec<(String, u16)>,
    pub(crate) lookup: Lookup,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (rules, lookup) = (self.rules.clone(), self.lookup.clone());
        let brokers = self.brokers.clone();
        Box::pin(async move {
            let found = lookup(name.as_str().to_owned()).await?;
            let brokers = addresses(&brokers, &lookup).await;
            for address in &found {
                rules.check(*address, &brokers)?;
            }
            // The connection goes to these and to nothing else; the port is the address's own.
            let checked = found.into_iter().map(|address| SocketAddr::new(address, 0));
            let checked: Addrs = Box::new(checked.collect::<Vec<_>>().into_iter());
            Ok(checked)
        })
    }
}

/// The addresses of the broker as far as they are known: one whose name cannot be
/// looked up is not reached by that name either.
async fn addresses(brokers: &[(String, u16)], lookup: &Lookup) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for (host, port) in brokers {
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => lookup(host.clone()).await.unwrap_or_default(),
        };
        found.extend(addresses.into_iter().map(|address| SocketAddr::new(address, *port)));
    }
    found
}

/// Hosts and ports of a broker's address such as `nats://user:secret@host:4222`, or of several
/// between commas.
pub(crate) fn brokers_of(urls: &str) -> impl Iterator<Item = (String, u16)> {
    urls.split(',').filter_map(|url| broker_of(url.trim()))
}

fn broker_of(url: &str) -> Option<(String, u16)> {
    const PORT_DEFAULT: u16 = 4222;
    let text = if url.contains("://") { url.to_owned() } else { format!("nats://{url}") };
    let url = reqwest::Url::parse(&text).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((host, url.port().unwrap_or(PORT_DEFAULT)))
}

#[cfg(test)]
mod tests {
    use super::{broker_of, brokers_of};

    #[test]
    fn a_broker_is_a_host_and_a_port_whatever_else_its_address_holds() {
        for (url, host, port) in [
            ("nats://127.0.0.1:4333", "127.0.0.1", 4333),
            ("127.0.0.1", "127.0.0.1", 4222),
            ("tls://user:secret@broker.example", "broker.example", 4222),
            ("nats://[::1]:4222", "::1", 4222),
        ] {
            assert_eq!(broker_of(url), Some((host.to_owned(), port)), "{url}");
        }
    }

    #[test]
    fn every_broker_of_a_list_is_refused_not_only_the_first() {
        let found = brokers_of("nats://a.example:1, nats://b.example").collect::<Vec<_>>();

        assert_eq!(found, [("a.example".to_owned(), 1), ("b.example".to_owned(), 4222)]);
    }
}
