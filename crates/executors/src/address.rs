//! Which addresses a call may go to.
//!
//! A name is somebody else's to answer: what it resolves to today it need not
//! tomorrow. So every address is checked when a connection is made, and the
//! connection goes to what was checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// An address that a call must not go to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the address {address} is {kind}; list it in `allow_addresses` of the plugin if it is meant"
)]
pub(crate) struct AddressRefused {
    pub(crate) address: IpAddr,
    pub(crate) kind: &'static str,
}

/// A block of addresses, `10.0.0.0/8` or `fd00::/8`; one address is a block too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    base: IpAddr,
    prefix: u32,
}

impl FromStr for Block {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "is no block of addresses; write it like `10.0.0.0/8` or `fd00::1`";
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse::<u32>().map_err(|_| WRONG)?)),
            None => (text, None),
        };
        let base = base.parse::<IpAddr>().map_err(|_| WRONG)?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits { Err(WRONG) } else { Ok(Self { base, prefix }) }
    }
}

impl Block {
    fn holds(&self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, bits: u32| {
            let host = bits.saturating_sub(self.prefix);
            one.checked_shr(host).unwrap_or(0) == other.checked_shr(host).unwrap_or(0)
        };
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                same(u32::from(base).into(), u32::from(address).into(), 32)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => same(base.into(), address.into(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// What one plugin's calls may reach.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressRules {
    /// Blocks that the configuration allows although they are not public.
    pub(crate) allowed: Vec<Block>,
    /// The loopback interface is allowed.
    pub(crate) loopback: bool,
    /// Port of the calls.
    pub(crate) port: u16,
}

impl AddressRules {
    /// Checks one address.
    ///
    /// # Errors
    /// Returns what the address is, if it is not allowed.
    pub(crate) fn check(
        &self,
        address: IpAddr,
        brokers: &[SocketAddr],
    ) -> Result<(), AddressRefused> {
        let address = address.to_canonical();
        let refuse = |kind| Err(AddressRefused { address, kind });
        if brokers.iter().any(|broker| is_broker(*broker, address, self.port)) {
            return refuse("our own broker's, which no call may reach");
        }
        let Some(kind) = kind_of(address) else { return Ok(()) };
        let loopback = self.loopback && address.is_loopback();
        if loopback || self.allowed.iter().any(|block| block.holds(address)) {
            return Ok(());
        }
        refuse(kind)
    }
}

/// A server that listens on one loopback address may listen on all of them.
fn is_broker(broker: SocketAddr, address: IpAddr, port: u16) -> bool {
    let own = broker.ip().to_canonical();
    let local = |address: IpAddr| address.is_loopback() || address.is_unspecified();
    broker.port() == port && (own == address || (local(own) && local(address)))
}

/// What `address` is, if it is no ordinary public address (IANA's registries of
/// special-purpose addresses, RFC 6890).
fn kind_of(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(address) => kind_of_v4(address),
        IpAddr::V6(address) => kind_of_v6(address),
    }
}

fn kind_of_v4(address: Ipv4Addr) -> Option<&'static str> {
    let kind = match address.octets() {
        [0, ..] => "of no host (0.0.0.0/8)",
        [127, ..] => "on the loopback interface",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "private",
        [169, 254, ..] => "link-local, where clouds keep their metadata",
        [100, 64..=127, ..] => "shared by a carrier's customers (100.64.0.0/10)",
        [192, 0, 0, _] => "reserved for protocols (192.0.0.0/24)",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "for documents only",
        [192, 88, 99, _] => "a relay of 6to4",
        [198, 18 | 19, ..] => "for benchmarks only",
        [224..=239, ..] => "multicast",
        [240..=255, ..] => "reserved",
        _ => return None,
    };
    Some(kind)
}

fn kind_of_v6(address: Ipv6Addr) -> Option<&'static str> {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        kind_of_v4(Ipv4Addr::new(a, b, c, d))
            .map(|_| "a cover of an IPv4 address that is not public")
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("of no host"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("on the loopback interface"),
        // Mapped ones have become IPv4 by now; these are the compatible and the translated ones.
        [0, 0, 0, 0, ..] => Some("a form of IPv4 that is not in use"),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, ..] => Some("of a local translator (64:ff9b:1::/48)"),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0..=0x1ff, ..] => Some("reserved for protocols (2001::/23)"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Some("for documents only"),
        [0xfc00..=0xfdff, ..] => Some("private (fc00::/7)"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xfec0..=0xfeff, ..] => Some("site-local"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("reserved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &AddressRules, address: &str) -> bool {
        rules.check(address.parse().unwrap(), &["127.0.0.1:4222".parse().unwrap()]).is_ok()
    }

    #[test]
    fn only_public_addresses_are_reached_without_being_allowed() {
        let rules = AddressRules { port: 443, ..AddressRules::default() };

        for public in [
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "2606:4700::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(check(&rules, public), "{public}");
        }
        for refused in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.9",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::10.0.0.1",
            "::1.1.1.1",
            "::ffff:0:7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "4000::1",
        ] {
            assert!(!check(&rules, refused), "{refused}");
        }
    }

    #[test]
    fn what_the_configuration_allows_is_reached_and_nothing_beside_it() {
        let allowed = ["10.1.0.0/16", "fd00::/8", "192.168.7.7"];
        let allowed = allowed.iter().map(|block| block.parse().unwrap()).collect();
        let rules = AddressRules { allowed, loopback: true, port: 8080 };

        for reached in
            ["10.1.255.1", "fd12::1", "192.168.7.7", "::ffff:10.1.0.1", "127.0.0.1", "::1"]
        {
            assert!(check(&rules, reached), "{reached}");
        }
        for refused in ["10.2.0.1", "fc00::1", "192.168.7.8", "169.254.169.254"] {
            assert!(!check(&rules, refused), "{refused}");
        }
    }

    #[test]
    fn our_own_broker_is_never_reached_whatever_is_allowed() {
        let allowed = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let rules = AddressRules { allowed, loopback: true, port: 4222 };

        for refused in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1", "0.0.0.0"] {
            assert!(!check(&rules, refused), "{refused}");
        }
        assert!(check(&rules, "10.0.0.1"));
        assert!(check(&AddressRules { port: 4223, ..rules }, "127.0.0.1"));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in
            ["", "10.0.0.0/33", "10.0.0/8", "::/129", "ten", "10.0.0.0/", "/8", "1.1.1.1/-1"]
        {
            assert!(text.parse::<Block>().is_err(), "{text}");
        }
        assert!("0.0.0.0/0".parse::<Block>().unwrap().holds("9.9.9.9".parse().unwrap()));
    }
}
