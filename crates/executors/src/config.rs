//! What the executors may reach, and how much of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::command::CommandConfig;
use crate::nats::NatsConfig;
use crate::signing::SigningConfig;
use crate::webhook::WebhookConfig;

/// Settings of all executors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorsConfig {
    /// HTTP calls to plugins.
    pub http: HttpConfig,
    /// Questions over NATS.
    pub nats: NatsConfig,
    /// Programs.
    pub commands: CommandConfig,
    /// Where escalations are sent besides their subject; nowhere by default.
    pub webhooks: Vec<WebhookConfig>,
}

/// Settings of HTTP calls.
///
/// A plugin that is not named here can't be called. Host names are resolved at
/// each new connection, every address is checked, and the connection goes to an
/// address that was checked: only public ones are reached unless the plugin's
/// entry says otherwise, and our own broker never.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// The allow-list: plugins by the name that workflows use. Empty by default.
    pub plugins: BTreeMap<String, PluginTarget>,
    /// Longest request body in bytes; a longer one is not sent (`not_allowed`).
    pub request_bytes_max: usize,
    /// Longest response body in bytes; a longer one is dropped and the attempt
    /// fails (`response_too_large`). It bounds what an attempt holds in memory.
    pub response_bytes_max: usize,
    /// Longest wait for a connection, in milliseconds; an attempt that takes
    /// longer fails (`connect`), the attempt's own time limit permitting.
    pub connect_timeout_ms: u64,
    /// Connections at a time to one plugin; an attempt beyond them waits within
    /// its own time limit, so that a plugin that hangs holds up no other.
    pub connections_per_plugin_max: usize,
    /// Idle connections kept open to one host; further ones are closed.
    pub idle_connections_per_host_max: usize,
    /// How long an idle connection is kept, in milliseconds.
    pub idle_timeout_ms: u64,
}

/// Where a plugin lives and what may be assumed of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginTarget {
    /// Base address, `http` or `https`, optionally with a path that all calls
    /// share; no user, password, query or fragment. Required. A loopback address
    /// that stands here as it is, or `localhost`, is allowed by standing here.
    pub url: String,
    /// Addresses that are not public and may be reached: blocks such as
    /// `10.0.0.0/8`, or single ones. Empty by default.
    pub allow_addresses: Vec<String>,
    /// Whether a name may resolve to the loopback interface; no by default.
    pub allow_loopback: bool,
    /// How calls are signed; not at all when absent.
    pub signing: Option<SigningConfig>,
}

/// 1 MiB: the broker's default limit for a message, which a body travels in.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// 5 s: a connection within one region takes milliseconds; one lost SYN costs 1 s, two 3 s.
const CONNECT_TIMEOUT_MS: u64 = 5_000;
/// 256: well below the usual 1,024 open files of a process, shared with the broker's.
const CONNECTIONS_PER_PLUGIN_MAX: usize = 256;
/// 32: keeps a steady load from reconnecting without hoarding after a peak.
const IDLE_CONNECTIONS_PER_HOST_MAX: usize = 32;
/// 30 s: below the 60 s after which common servers close an idle connection,
/// so that a request seldom meets one that is being closed.
const IDLE_TIMEOUT_MS: u64 = 30_000;

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            plugins: BTreeMap::new(),
            request_bytes_max: BODY_BYTES_MAX,
            response_bytes_max: BODY_BYTES_MAX,
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            connections_per_plugin_max: CONNECTIONS_PER_PLUGIN_MAX,
            idle_connections_per_host_max: IDLE_CONNECTIONS_PER_HOST_MAX,
            idle_timeout_ms: IDLE_TIMEOUT_MS,
        }
    }
}

/// Why executors can't be made from a configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A plugin's address can't be used. The address itself is not shown: it may
    /// hold a password.
    #[error(
        "`http.plugins.{plugin}.url` {problem}; give an address such as `https://plugin.example:8443/base`"
    )]
    PluginUrl {
        /// The plugin's name.
        plugin: String,
        /// What is wrong with its address.
        problem: String,
    },
    /// A plugin's allowed addresses or secrets can't be used.
    #[error("`http.plugins.{plugin}.{field}` {problem}")]
    Plugin {
        /// The plugin's name.
        plugin: String,
        /// The field's name.
        field: &'static str,
        /// What is wrong with it; never a secret.
        problem: String,
    },
    /// A limit is zero, which would refuse every call.
    #[error("`{field}` is 0, so that no call could ever succeed; give at least 1")]
    ZeroLimit {
        /// The field's name.
        field: &'static str,
    },
    /// A program can't be allowed.
    #[error("`commands.programs.{program}` {problem}")]
    Program {
        /// The program's name.
        program: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A pattern of subjects can't be allowed.
    #[error("`nats.subjects`: `{pattern}` {problem}")]
    Subject {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Webhooks can't be used.
    #[error("`webhooks` can't be used: {}", problems.join("; "))]
    Webhooks {
        /// Everything that is wrong with them, each with its place in the list from 1.
        problems: Vec<String>,
    },
    /// The HTTP client can't be set up, as a rule for want of trusted certificates.
    #[error(
        "the HTTP client can't be set up; check that the system's CA certificates are installed"
    )]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Several things are wrong, of which the first ones are told.
    #[error("{}", told(problems))]
    Several {
        /// All that was found, in the order of the configuration's sections.
        problems: Vec<ConfigError>,
    },
}

/// Problems of one configuration that are told; of more the number is.
const PROBLEMS_TOLD_MAX: usize = 20;

fn told(problems: &[ConfigError]) -> String {
    let told = problems.iter().take(PROBLEMS_TOLD_MAX).map(ToString::to_string);
    let more = problems.len().saturating_sub(PROBLEMS_TOLD_MAX);
    let more = (more > 0).then(|| format!("and {more} more"));
    let told = told.chain(more).collect::<Vec<_>>().join("; ");
    format!("{} problems: {told}", problems.len())
}

impl ConfigError {
    /// One problem as it is, several as one error: whoever mends them sees all at once.
    pub(crate) fn of(problems: impl IntoIterator<Item = Self>) -> Self {
        let flat = |problem| {
            if let Self::Several { problems } = problem { problems } else { vec![problem] }
        };
        let mut problems = problems.into_iter().flat_map(flat).collect::<Vec<_>>();
        match (problems.pop(), problems.is_empty()) {
            (Some(only), true) => only,
            (last, _) => {
                problems.extend(last);
                Self::Several { problems }
            }
        }
    }
}

/// Problems that are gathered while a configuration is checked.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<ConfigError>);

impl Problems {
    pub(crate) fn add(&mut self, problem: ConfigError) {
        self.0.push(problem);
    }

    /// What was checked, where nothing is wrong with it.
    pub(crate) fn take<T>(&mut self, checked: Result<T, ConfigError>) -> Option<T> {
        checked.map_err(|problem| self.add(problem)).ok()
    }

    /// Refuses what has problems.
    ///
    /// # Errors
    /// Returns the problem, or [`ConfigError::Several`].
    pub(crate) fn refuse(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError::of(self.0)) }
    }
}

/// Refuses limits that are zero, all of them.
pub(crate) fn check_limits(
    limits: impl IntoIterator<Item = (&'static str, usize)>,
) -> Result<(), ConfigError> {
    let mut problems = Problems::default();
    for (field, _) in limits.into_iter().filter(|(_, limit)| *limit == 0) {
        problems.add(ConfigError::ZeroLimit { field });
    }
    problems.refuse()
}

impl HttpConfig {
    /// Finds the limits that would refuse every call.
    ///
    /// # Errors
    /// Returns [`ConfigError::ZeroLimit`] that names it, for each.
    pub(crate) fn check_limits(&self) -> Result<(), ConfigError> {
        let connect_timeout = usize::try_from(self.connect_timeout_ms).unwrap_or(usize::MAX);
        check_limits([
            ("http.request_bytes_max", self.request_bytes_max),
            ("http.response_bytes_max", self.response_bytes_max),
            ("http.connect_timeout_ms", connect_timeout),
            ("http.connections_per_plugin_max", self.connections_per_plugin_max),
        ])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ExecutorsConfig, HttpConfig};
    use crate::Executors;

    #[test]
    fn a_plugin_needs_only_its_address() {
        let config: ExecutorsConfig = serde_json::from_value(json!({
            "http": {"plugins": {"reports": {"url": "http://127.0.0.1:9"}}}
        }))
        .unwrap();
        assert_eq!(config.http.response_bytes_max, 1024 * 1024);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let cases = [
            json!({"htpp": {}}),
            json!({"http": {"proxy": "http://127.0.0.1:1"}}),
            json!({"http": {"plugins": {"reports": {"url": "http://h", "token": "x"}}}}),
        ];

        for (case, key) in cases.into_iter().zip(["htpp", "proxy", "token"]) {
            let error = serde_json::from_value::<ExecutorsConfig>(case).unwrap_err();
            assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        }
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        let config = HttpConfig { connections_per_plugin_max: 0, ..HttpConfig::default() };

        let error = config.check_limits().unwrap_err();

        assert!(error.to_string().contains("`http.connections_per_plugin_max`"), "{error}");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let config: ExecutorsConfig = serde_json::from_value(json!({
            "http": {
                "request_bytes_max": 0,
                "connect_timeout_ms": 0,
                "plugins": {"one": {"url": "ftp://h"}, "two": {}, "three": {"url": "http://h"}},
            },
            "nats": {"response_bytes_max": 0, "subjects": [">", "billing.>"]},
            "commands": {"programs": {"hash": {"path": "sha256sum"}}},
            "webhooks": [{"plugin": "nobody"}],
        }))
        .unwrap();

        let told = Executors::new(&config).unwrap_err().to_string();

        assert!(told.starts_with("8 problems: "), "{told}");
        for part in [
            "`http.request_bytes_max`",
            "`http.connect_timeout_ms`",
            "`http.plugins.one.url`",
            "`http.plugins.two.url`",
            "`nats.response_bytes_max`",
            "`nats.subjects`: `>`",
            "`commands.programs.hash`",
            "`webhooks` can't be used",
        ] {
            assert_eq!(told.matches(part).count(), 1, "{part}: {told}");
        }
    }
}
