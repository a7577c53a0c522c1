//! What a worker was started with: which process it is, what it does, and the settings that must be the
//! same at others, so that `fermata doctor` can hold workers against each other.
//!
//! A number is told as it is. What may hold a secret, or say where one is, is told as a digest by a key that
//! only workers have: equal settings have equal digests, and nobody learns more from them.

use std::collections::BTreeMap;

use fermata_audit::Signer;
use fermata_core::digest::hash_parts_128;
use fermata_executors::{ExecutorsConfig, PluginTarget, Program, SigningConfig};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::engine::{EngineConfig, Role};

/// Plugins, and programs, that are told by name. Default 1,000: an answer stays far below the broker's limit
/// for a message. Where there are more of them, one digest stands for all.
pub const NAMED_MAX: usize = 1_000;

/// What the key of the digests is derived for.
const KEY_PURPOSE: &str = "fermata settings digest 1";

/// What a worker was started with.
#[derive(Debug, Clone, Serialize)]
pub struct StartedWith {
    /// Names this start of this process and no other.
    pub incarnation: Uuid,
    /// Number of the process at its machine.
    pub process_id: u32,
    /// What it does.
    pub roles: Vec<Role>,
    /// The named queues that it serves, in order.
    pub queues: Vec<String>,
    /// Settings by name: a number, or the digest of anything else.
    pub settings: BTreeMap<String, Value>,
}

impl StartedWith {
    /// Of a process that starts now.
    #[must_use]
    pub fn of(config: &EngineConfig) -> Self {
        let mut queues = config.queues.names.clone();
        queues.sort_unstable();
        Self {
            incarnation: Uuid::from_bytes(rand::random()),
            process_id: std::process::id(),
            roles: config.roles.iter().copied().collect(),
            queues,
            settings: settings(config),
        }
    }
}

fn settings(config: &EngineConfig) -> BTreeMap<String, Value> {
    let mut told = Told::new(&config.signer);
    told.executors(&config.executors);
    told.number("keys_max", u64::try_from(config.keys_max).unwrap_or(u64::MAX));
    if let Some(kept_ms) = config.snapshots.archive_retention_ms {
        told.number("archive_retention_ms", kept_ms);
    }
    if !config.replay_keys.is_empty() {
        let digest = config.replay_keys.digest(&told.key);
        told.digest("replay_secrets", digest);
    }
    told.settings
}

/// Settings that are being gathered.
struct Told {
    key: [u8; 32],
    settings: BTreeMap<String, Value>,
}

impl Told {
    fn new(signer: &Signer) -> Self {
        Self { key: signer.derive(KEY_PURPOSE), settings: BTreeMap::new() }
    }

    /// What attempts may reach, and how much they may send and be sent. How many run at once, and how long a
    /// connection is kept, is each machine's own affair.
    fn executors(&mut self, config: &ExecutorsConfig) {
        let ExecutorsConfig { http, nats, commands, webhooks } = config;
        // So is where a machine keeps its secrets. Sets are told in one order.
        let signed = |target: &PluginTarget| PluginTarget {
            allow_addresses: sorted(&target.allow_addresses),
            signing: target.signing.as_ref().map(|_| SigningConfig::default()),
            ..target.clone()
        };
        let inheriting =
            |program: &Program| Program { inherit: sorted(&program.inherit), ..program.clone() };
        let plugins = http.plugins.iter().map(|(name, target)| (name.as_str(), signed(target)));
        self.each("http.plugins", &plugins.collect());
        let programs =
            commands.programs.iter().map(|(name, program)| (name.as_str(), inheriting(program)));
        self.each("commands.programs", &programs.collect());
        if !nats.subjects.is_empty() {
            self.hidden("nats.subjects", &sorted(&nats.subjects));
        }
        if !webhooks.is_empty() {
            let written = webhooks.iter().filter_map(|webhook| serde_json::to_string(webhook).ok());
            self.hidden("webhooks", &sorted(&written.collect::<Vec<_>>()));
        }
        for (name, bytes_max) in [
            ("http.request_bytes_max", http.request_bytes_max),
            ("http.response_bytes_max", http.response_bytes_max),
            ("nats.request_bytes_max", nats.request_bytes_max),
            ("nats.response_bytes_max", nats.response_bytes_max),
            ("commands.stdout_bytes_max", commands.stdout_bytes_max),
        ] {
            self.number(name, u64::try_from(bytes_max).unwrap_or(u64::MAX));
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        self.settings.insert(name.to_owned(), number.into());
    }

    /// Every entry by its name, or all as one where there are too many.
    fn each<T: Serialize>(&mut self, list: &str, entries: &BTreeMap<&str, T>) {
        if entries.len() > NAMED_MAX {
            return self.hidden(list, entries);
        }
        for (name, entry) in entries {
            self.hidden(&format!("{list}.{name}"), entry);
        }
    }

    fn hidden<T: Serialize + ?Sized>(&mut self, name: &str, setting: &T) {
        // Settings came from JSON, and are written as JSON again.
        let written = serde_json::to_vec(setting).unwrap_or_default();
        self.digest(name, hash_parts_128(&[&self.key, name.as_bytes(), &written]));
    }

    fn digest(&mut self, name: &str, digest: u128) {
        self.settings.insert(name.to_owned(), format!("{digest:032x}").into());
    }
}

fn sorted(texts: &[String]) -> Vec<String> {
    let mut texts = texts.to_vec();
    texts.sort_unstable();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a-secret-of-the-program";

    fn told(seed: u8, config: Value) -> BTreeMap<String, Value> {
        let mut told = Told::new(&Signer::from_seed("test", [seed; 32]).unwrap());
        told.executors(&serde_json::from_value(config).unwrap());
        told.settings
    }

    fn config(url: &str, secret_file: &str) -> Value {
        serde_json::json!({
            "http": {
                "connections_per_plugin_max": secret_file.len(),
                "plugins": { "reports": { "url": url, "signing": { "secrets": [{ "file": secret_file }] } } },
            },
            "commands": {
                "programs": { "count": { "path": "/bin/count", "environment": { "TOKEN": SECRET } } },
            },
        })
    }

    #[test]
    fn the_order_of_a_set_is_no_difference() {
        let config = |first: &str, second: &str| {
            let webhook = |tenant: &str| serde_json::json!({ "plugin": "a", "tenant": tenant });
            serde_json::json!({
                "http": { "plugins": { "a": { "url": "http://a", "allow_addresses": [first, second] } } },
                "nats": { "subjects": [first, second] },
                "commands": { "programs": { "b": { "path": "/bin/b", "inherit": [first, second] } } },
                "webhooks": [webhook(first), webhook(second)],
            })
        };

        let told_in_order = told(1, config("10.0.0.1", "10.0.0.2"));
        assert_eq!(told(1, config("10.0.0.2", "10.0.0.1")), told_in_order);
        assert_eq!(told_in_order.values().filter(|value| value.is_string()).count(), 4);
    }

    #[test]
    fn the_same_settings_are_told_the_same_and_others_by_the_name_that_differs() {
        let first = told(1, config("http://a", "/etc/secret"));

        assert_eq!(told(1, config("http://a", "/run/secrets/b")), first);
        let other = told(1, config("http://b", "/etc/secret"));
        let differing = first.keys().filter(|name| first.get(*name) != other.get(*name));
        assert_eq!(differing.collect::<Vec<_>>(), ["http.plugins.reports"]);
    }

    #[test]
    fn a_setting_that_may_hold_a_secret_is_told_by_a_digest_that_needs_the_key_of_workers() {
        let first = told(1, config("http://user:password@a", "/etc/secret"));

        let written = serde_json::to_string(&first).unwrap();
        for hidden in [SECRET, "password", "/etc/secret", "/bin/count"] {
            assert!(!written.contains(hidden), "{written}");
        }
        let elsewhere = told(2, config("http://user:password@a", "/etc/secret"));
        for name in ["http.plugins.reports", "commands.programs.count"] {
            assert!(first.contains_key(name), "{written}");
            assert_ne!(first.get(name), elsewhere.get(name), "{name}");
        }
    }

    #[test]
    fn of_more_plugins_than_are_told_one_digest_stands_for_all() {
        let with = |count: usize| {
            let plugins =
                (0..count).map(|at| (format!("p-{at}"), serde_json::json!({ "url": "http://a" })));
            let plugins = plugins.collect::<serde_json::Map<_, _>>();
            told(1, serde_json::json!({ "http": { "plugins": plugins } }))
        };
        let named = |told: &BTreeMap<String, Value>| {
            told.keys().filter(|name| name.starts_with("http.plugins")).count()
        };

        assert_eq!((named(&with(NAMED_MAX)), named(&with(NAMED_MAX + 1))), (NAMED_MAX, 1));
    }
}
