//! Which escalations go to which webhook.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, ExecutorsConfig};

/// Most webhooks. Default 32: each escalation is held against all of them.
pub const WEBHOOKS_MAX: usize = 32;

/// The tenant that stands for every tenant.
const TENANT_ANY: &str = "*";

/// Rungs of the escalation ladder.
const TIERS: std::ops::RangeInclusive<u8> = 1..=4;

/// 1 h: longer than most deployments and reboots of a receiver take.
const GIVE_UP_AFTER_MS: u64 = 60 * 60 * 1_000;

/// Where escalations are sent besides their subject: a path of a plugin of the
/// allow-list, which says where it lives, what may be reached, and with which
/// secrets calls are signed (Standard Webhooks).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// The plugin, one that has `signing`. Required.
    pub plugin: String,
    /// Path below the plugin's address; `/` by default.
    #[serde(default = "root")]
    pub path: String,
    /// Whose escalations: a tenant, or `*` for all of them, the default.
    #[serde(default = "any_tenant")]
    pub tenant: String,
    /// Which rungs of the ladder, 1 to 4; all of them when empty, the default.
    #[serde(default)]
    pub tiers: BTreeSet<u8>,
    /// Which reason codes; all of them when empty, the default.
    #[serde(default)]
    pub reasons: BTreeSet<String>,
    /// How long a message is tried before it is given up and filed as a dead
    /// letter, in milliseconds; an hour by default.
    #[serde(default = "give_up_after_ms")]
    pub give_up_after_ms: u64,
}

fn root() -> String {
    "/".to_owned()
}

fn any_tenant() -> String {
    TENANT_ANY.to_owned()
}

fn give_up_after_ms() -> u64 {
    GIVE_UP_AFTER_MS
}

impl WebhookConfig {
    /// Whether an escalation goes here.
    #[must_use]
    pub fn takes(&self, tenant: &str, tier: u8, reason: &str) -> bool {
        (self.tenant == TENANT_ANY || self.tenant == tenant)
            && (self.tiers.is_empty() || self.tiers.contains(&tier))
            && (self.reasons.is_empty() || self.reasons.contains(reason))
    }
}

/// Finds the first webhook that cannot be used.
///
/// # Errors
/// [`ConfigError::Webhook`], which names its place from 1.
pub(crate) fn check(config: &ExecutorsConfig) -> Result<(), ConfigError> {
    let count = config.webhooks.len();
    if count > WEBHOOKS_MAX {
        let problem = format!("there are {count} webhooks, at most {WEBHOOKS_MAX}");
        return Err(ConfigError::Webhook { place: count, problem });
    }
    for (webhook, place) in config.webhooks.iter().zip(1..) {
        let plugin = config.http.plugins.get(&webhook.plugin);
        let problem = match plugin.map(|plugin| plugin.signing.is_some()) {
            None => Some(format!("`plugin`: there is no plugin `{}`", webhook.plugin)),
            Some(false) => {
                let plugin = &webhook.plugin;
                Some(format!("`plugin`: messages are signed, and `{plugin}` has no `signing`"))
            }
            Some(true) if !webhook.tiers.iter().all(|tier| TIERS.contains(tier)) => {
                Some("`tiers`: the rungs of the ladder are 1 to 4".to_owned())
            }
            Some(true) if webhook.give_up_after_ms == 0 => {
                Some("`give_up_after_ms` is 0, so that nothing could ever be sent".to_owned())
            }
            Some(true) => None,
        };
        if let Some(problem) = problem {
            return Err(ConfigError::Webhook { place, problem });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(webhook: serde_json::Value, signed: bool) -> ExecutorsConfig {
        let mut plugin = json!({ "url": "http://127.0.0.1:9" });
        if signed {
            plugin["signing"] = json!({ "secrets": [{ "env": "SECRET" }] });
        }
        let config = json!({ "http": { "plugins": { "pager": plugin } }, "webhooks": [webhook] });
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn a_webhook_needs_a_plugin_that_signs() {
        let webhook = || json!({ "plugin": "pager" });

        assert!(check(&config(webhook(), true)).is_ok());
        for (config, wanted) in [
            (config(webhook(), false), "has no `signing`"),
            (config(json!({ "plugin": "nobody" }), true), "no plugin `nobody`"),
            (config(json!({ "plugin": "pager", "tiers": [5] }), true), "1 to 4"),
            (config(json!({ "plugin": "pager", "give_up_after_ms": 0 }), true), "is 0"),
        ] {
            let problem = check(&config).unwrap_err().to_string();
            assert!(problem.contains(wanted) && problem.contains("webhook 1"), "{problem}");
        }
    }

    #[test]
    fn an_escalation_goes_where_tenant_tier_and_reason_say() {
        let of = |webhook| config(webhook, true).webhooks.remove(0);
        let all = of(json!({ "plugin": "pager" }));
        let some = of(json!({
            "plugin": "pager", "tenant": "acme", "tiers": [3], "reasons": ["run_failed"],
        }));

        assert!(all.takes("other", 1, "unmatched"));
        assert!(some.takes("acme", 3, "run_failed"));
        for (tenant, tier, reason) in
            [("other", 3, "run_failed"), ("acme", 2, "run_failed"), ("acme", 3, "unmatched")]
        {
            assert!(!some.takes(tenant, tier, reason), "{tenant} {tier} {reason}");
        }
    }
}
