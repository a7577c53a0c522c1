//! Where a call may go: a plugin's address, and the paths below it.
//!
//! The host comes from configuration alone. A path comes from a workflow, so it is
//! taken only if no reader, ours or the plugin's, could make another place of it.

use std::net::IpAddr;

use reqwest::Url;
use thiserror::Error;

use crate::address::{AddressRules, Block};
use crate::config::{ConfigError, PluginTarget};

/// Longest path of a call, in bytes. Common servers refuse request lines above
/// 8 KiB; a quarter of it is generous for a path that has no query.
pub const PATH_BYTES_MAX: usize = 2048;

/// Why a call's path is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathRefused {
    /// It does not begin with `/`.
    #[error("is not absolute; begin it with `/`")]
    NotAbsolute,
    /// It is longer than [`PATH_BYTES_MAX`].
    #[error("is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// It holds a character that is not plain in a path (RFC 3986 §3.3), among
    /// them `?`, `#`, `@`, `;`, `\`, blanks and everything outside ASCII.
    #[error(
        "holds a character that a path may not; use letters, digits and `-._~!$&'()*+,=:/`, and percent-encode the rest"
    )]
    Character,
    /// It holds `%` without two hexadecimal digits, or one that hides a
    /// separator, a dot, `@`, `%` or a control character.
    #[error("holds a percent-encoding that is broken or hides a separator")]
    Encoding,
    /// It holds an empty segment, `.` or `..`.
    #[error("holds an empty segment, `.` or `..`, which could lead elsewhere")]
    Segment,
    /// It is plain and would still be read as another address.
    #[error("would change the address")]
    AddressChanged,
}

/// One plugin of the allow-list, its address checked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    base: Url,
    rules: AddressRules,
}

impl Target {
    /// Checks a plugin's address.
    ///
    /// # Errors
    /// Returns [`ConfigError::PluginUrl`] if the address is not an `http` or
    /// `https` one, or holds more than host, port and path.
    pub(crate) fn new(plugin: &str, target: &PluginTarget) -> Result<Self, ConfigError> {
        let refuse =
            |problem: String| ConfigError::PluginUrl { plugin: plugin.to_owned(), problem };
        if target.url.is_empty() {
            return Err(refuse("is missing".to_owned()));
        }
        let base = Url::parse(&target.url)
            .map_err(|error| refuse(format!("can't be read as an address ({error})")))?;
        if let Some(problem) = problem_of(&base) {
            return Err(refuse(problem.to_owned()));
        }
        let rules = rules_of(plugin, target, &base)?;
        if let Some(address) = literal(&base) {
            rules
                .check(address, &[])
                .map_err(|refused| refuse(format!("is refused: {refused}")))?;
        }
        Ok(Self { base, rules })
    }

    /// What calls may reach.
    pub(crate) fn rules(&self) -> &AddressRules {
        &self.rules
    }

    /// The address that stands in the plugin's address as it is; names have none.
    pub(crate) fn literal(&self) -> Option<IpAddr> {
        literal(&self.base)
    }

    /// Says whether calls are encrypted.
    pub(crate) fn is_https(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// Builds the address of a call.
    ///
    /// # Errors
    /// Returns why `path` is not taken.
    pub(crate) fn address(&self, path: &str) -> Result<Url, PathRefused> {
        check_path(path)?;
        let expected = format!("{}{path}", self.base.path().trim_end_matches('/'));
        let mut address = self.base.clone();
        address.set_path(&expected);
        // The characters were checked one by one; this holds even where that
        // check and the address parser disagree.
        let unchanged = address.path() == expected
            && address.origin() == self.base.origin()
            && problem_of(&address).is_none();
        if unchanged { Ok(address) } else { Err(PathRefused::AddressChanged) }
    }
}

fn rules_of(plugin: &str, target: &PluginTarget, base: &Url) -> Result<AddressRules, ConfigError> {
    let allowed = target.allow_addresses.iter().map(|block| {
        block.parse::<Block>().map_err(|problem| ConfigError::Plugin {
            plugin: plugin.to_owned(),
            field: "allow_addresses",
            problem: format!("`{}` {problem}", block.escape_default()),
        })
    });
    // Whoever writes a loopback address down means it; a name may come to mean it.
    let named = base.domain().is_some_and(|name| name == "localhost")
        || literal(base).is_some_and(|address| address.to_canonical().is_loopback());
    Ok(AddressRules {
        allowed: allowed.collect::<Result<_, _>>()?,
        loopback: target.allow_loopback || named,
        port: base.port_or_known_default().unwrap_or_default(),
    })
}

fn literal(address: &Url) -> Option<IpAddr> {
    // An IPv6 address stands in brackets.
    let host = address.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn problem_of(address: &Url) -> Option<&'static str> {
    if !matches!(address.scheme(), "http" | "https") {
        Some("is not an `http` or `https` address")
    } else if address.host_str().is_none_or(str::is_empty) {
        Some("has no host")
    } else if !address.username().is_empty() || address.password().is_some() {
        Some("holds a user or password, which are never sent")
    } else if address.query().is_some() || address.fragment().is_some() {
        Some("holds a query or fragment")
    } else {
        None
    }
}

pub(crate) fn check_path(path: &str) -> Result<(), PathRefused> {
    let Some(relative) = path.strip_prefix('/') else {
        return Err(PathRefused::NotAbsolute);
    };
    if path.len() > PATH_BYTES_MAX {
        return Err(PathRefused::TooLong);
    }
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => match (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit)) {
                (Some(high), Some(low)) if !hides(high << 4 | low) => {}
                (_, _) => return Err(PathRefused::Encoding),
            },
            _ if is_plain(byte) => {}
            _ => return Err(PathRefused::Character),
        }
    }
    // A closing `/` is an empty last segment, and harmless.
    let segments = relative.strip_suffix('/').unwrap_or(relative);
    let is_root = relative.is_empty();
    if !is_root && segments.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(PathRefused::Segment);
    }
    Ok(())
}

/// `pchar` of RFC 3986 §3.3 and `/`, less two: a reader that takes the text before
/// `@` for a user would go to another host, and one that cuts a segment at `;`
/// would see `..` in `..;`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:/".contains(&byte)
}

/// Bytes that mean something else once a plugin, or a proxy before it, decodes them.
fn hides(byte: u8) -> bool {
    byte.is_ascii_control() || b"/\\.@%?#;".contains(&byte)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PATH_BYTES_MAX, PathRefused, Target};
    use crate::config::PluginTarget;

    fn target(url: &str) -> Target {
        Target::new("reports", &PluginTarget { url: url.to_owned(), ..PluginTarget::default() })
            .unwrap()
    }

    fn refusal(url: &str) -> String {
        Target::new("reports", &PluginTarget { url: url.to_owned(), ..PluginTarget::default() })
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_plain_path_is_set_below_the_base() {
        let cases = [
            ("http://plugin:8080", "/plugin/runtime/a/execute", "/plugin/runtime/a/execute"),
            ("http://plugin:8080/base/", "/execute", "/base/execute"),
            ("http://plugin:8080/base", "/a%20b/~x:y/", "/base/a%20b/~x:y/"),
            ("https://plugin", "/", "/"),
        ];

        for (base, path, expected) in cases {
            assert_eq!(
                target(base).address(path).map(|url| url.path().to_owned()),
                Ok(expected.to_owned())
            );
        }
    }

    #[test]
    fn a_path_that_could_lead_elsewhere_is_refused_with_its_reason() {
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        let cases = [
            ("", PathRefused::NotAbsolute),
            ("execute", PathRefused::NotAbsolute),
            ("http://other/", PathRefused::NotAbsolute),
            ("@other/", PathRefused::NotAbsolute),
            (":81/x", PathRefused::NotAbsolute),
            ("\\\\other/x", PathRefused::NotAbsolute),
            ("//other/x", PathRefused::Segment),
            ("/a//b", PathRefused::Segment),
            ("/a//", PathRefused::Segment),
            ("/../admin", PathRefused::Segment),
            ("/a/./b", PathRefused::Segment),
            ("/a/..", PathRefused::Segment),
            ("/%2e%2E/admin", PathRefused::Encoding),
            ("/a%2fb", PathRefused::Encoding),
            ("/a%5Cb", PathRefused::Encoding),
            ("/a%00", PathRefused::Encoding),
            ("/a%252e", PathRefused::Encoding),
            ("/a%4", PathRefused::Encoding),
            ("/a%zz", PathRefused::Encoding),
            ("/\\other", PathRefused::Character),
            ("/@other", PathRefused::Character),
            ("/..;/admin", PathRefused::Character),
            ("/a?x=1", PathRefused::Character),
            ("/a#x", PathRefused::Character),
            ("/a b", PathRefused::Character),
            ("/a\tb", PathRefused::Character),
            ("/a\r\nx: y", PathRefused::Character),
            ("/ä", PathRefused::Character),
            (&long, PathRefused::TooLong),
        ];

        let target = target("http://plugin:8080/base");
        for (path, expected) in cases {
            assert_eq!(target.address(path), Err(expected), "`{path}`");
        }
    }

    #[test]
    fn an_address_with_more_than_host_port_and_path_is_refused_and_not_shown() {
        let cases = [
            ("", "is missing"),
            ("plugin:8080", "is not an `http` or `https` address"),
            ("not an address", "can't be read"),
            ("ftp://plugin", "is not an `http` or `https` address"),
            ("file:///etc/passwd", "is not an `http` or `https` address"),
            ("http://", "can't be read"),
            ("http://user:secret@plugin", "holds a user or password"),
            ("http://plugin/?key=secret", "holds a query"),
            ("http://plugin/#secret", "holds a query or fragment"),
        ];

        for (url, expected) in cases {
            let text = refusal(url);
            assert!(text.contains(expected), "`{url}`: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_literal_address_that_is_not_public_must_be_allowed_unless_it_is_loopback() {
        for taken in [
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost:1",
            "http://1.1.1.1",
            "http://name",
        ] {
            target(taken);
        }
        for url in
            ["http://10.0.0.1", "http://169.254.169.254", "http://[fd00::1]", "http://0x7f.1.2"]
        {
            let refused = Target::new(
                "reports",
                &PluginTarget { url: url.to_owned(), ..PluginTarget::default() },
            );
            // The address parser has made a plain loopback address of the last one.
            assert_eq!(refused.is_err(), !url.contains("0x7f"), "{url}");
        }
        let allow_addresses = vec!["10.0.0.0/8".to_owned()];
        let url = "http://10.0.0.1".to_owned();
        assert!(
            Target::new(
                "reports",
                &PluginTarget { url, allow_addresses, ..PluginTarget::default() }
            )
            .is_ok()
        );
    }

    proptest! {
        #[test]
        fn no_path_changes_host_port_or_base(path in "[/]{0,2}([a-z.%/\\\\@:?#;~ \\t2ef5c0ä]|%2[ef]|\\.\\./|//){0,24}") {
            let target = target("http://plugin:8080/base");

            if let Ok(address) = target.address(&path) {
                prop_assert_eq!(address.as_str(), format!("http://plugin:8080/base{path}"));
                prop_assert!(!path.split('/').any(|segment| segment == ".." || segment == "."));
                prop_assert!(!path.contains("//") && !path.contains(['@', '\\', '?', '#', ';']));
            }
        }

        #[test]
        fn every_path_of_plain_segments_is_taken(path in "(/[a-zA-Z0-9_~-]{1,12}){1,8}/?") {
            prop_assert!(target("http://plugin:8080/base").address(&path).is_ok(), "`{}`", path);
        }
    }
}
