//! Ranges of IP addresses.

use std::fmt;
use std::net::IpAddr;

/// A network in CIDR notation (RFC 4632, RFC 4291). IPv4 and IPv6 are apart:
/// an IPv4 address mapped into IPv6 is an IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::strategy) struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// Reads a network; `Err` is what is wrong, and what to do.
    pub fn read(text: &str) -> Result<Self, (String, Option<String>)> {
        let hint = || Some("write an address and a length: `10.0.0.0/8`, `2001:db8::/32`".into());
        let Some((address, length)) = text.split_once('/') else {
            return Err(("the network has no length".to_owned(), hint()));
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(("the network does not begin with an IP address".to_owned(), hint()));
        };
        let bits = bits_of(address);
        let length = length.parse().ok().filter(|length| *length <= bits && !text.contains("/+"));
        let Some(length) = length else {
            return Err((format!("the length is no whole number up to {bits}"), hint()));
        };
        let masked = Self { address: masked(address, length), length };
        if masked.address == address {
            return Ok(masked);
        }
        let message = format!("the address has bits set beyond its length {length}");
        Err((message, Some(format!("did you mean `{masked}`?"))))
    }

    pub fn contains(&self, text: &str) -> bool {
        let Ok(address) = text.parse::<IpAddr>() else { return false };
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }
}

const fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits beyond the first `length` cleared.
fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - length.min(32))).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - length.min(128))).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}
