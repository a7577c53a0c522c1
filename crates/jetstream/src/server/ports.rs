//! Ports that a server finds free again when it is started once more.

use std::{
    io,
    net::{IpAddr, TcpListener},
    ops::Range,
};

/// Where a port for clients is looked for: below what Linux gives to outgoing connections by default
/// (`net.ipv4.ip_local_port_range`, 32,768 to 60,999). One of those may be taken by any connection
/// while the server that had it is down, and the clients that try to reach it again are the likeliest.
const FOR_CLIENTS: Range<u16> = 20_000..28_000;

/// Where a port for the other servers of a cluster is looked for. A server listens there last, so
/// none of these is ever a port for clients.
const FOR_SERVERS: Range<u16> = 28_000..32_768;

/// How many ports are tried. With half of them taken, one start in four thousand finds none.
const TRIES: usize = 12;

/// Ports for clients that are free when they are asked for, in a random order, at most [`TRIES`].
pub(super) fn free_ports(address: IpAddr) -> impl Iterator<Item = u16> {
    let held = listeners(address, FOR_CLIENTS).filter_map(|held| held.local_addr().ok());
    held.map(|address| address.port())
}

/// A free port for other servers that nobody else is given while the listener lives.
pub(super) fn hold_free_port(address: IpAddr) -> io::Result<TcpListener> {
    listeners(address, FOR_SERVERS).next().map_or_else(|| TcpListener::bind((address, 0)), Ok)
}

fn listeners(address: IpAddr, range: Range<u16>) -> impl Iterator<Item = TcpListener> {
    let drawn = (0..TRIES).map(move |_| rand::random_range(range.clone()));
    drawn.filter_map(move |port| TcpListener::bind((address, port)).ok())
}

/// Whether another program listens there. The server that would say so in its log has ended.
pub(super) fn is_taken(address: IpAddr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_err_and(|why| why.kind() == io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_free_port_is_none_that_an_outgoing_connection_is_given_by_default() {
        let ports: Vec<u16> = free_ports(IpAddr::V4(Ipv4Addr::LOCALHOST)).collect();

        assert!(!ports.is_empty(), "all ports that were tried are taken");
        assert!(ports.iter().all(|port| (20_000..28_000).contains(port)), "{ports:?}");
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_taken() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listener = TcpListener::bind((address, 0)).expect("a free port");

        assert!(is_taken(address, listener.local_addr().expect("an address").port()));
    }
}
