//! Which escalations go to which webhook.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use fermata_core::digest::Digest;
use fermata_core::identity::Tenant;
use fermata_core::partition::{CASE_REASONS, CASE_TIERS};

use crate::config::{ConfigError, ExecutorsConfig};
use crate::target::check_path;

/// Most webhooks. Default 32: each escalation is held against all of them.
pub const WEBHOOKS_MAX: usize = 32;

/// The tenant that stands for every tenant.
const TENANT_ANY: &str = "*";

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
    /// Which rungs of the ladder; all of them when empty, the default. Cases are on 3, where a
    /// person decides.
    #[serde(default)]
    pub tiers: BTreeSet<u8>,
    /// Which reason codes of cases; all of them when empty, the default.
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
    /// What it is called wherever people read: the plugin, and eight digits of the
    /// SHA-256 of the path, which may hold a token.
    #[must_use]
    pub fn name(&self) -> String {
        let digest = Digest::of(self.path.as_bytes()).to_string();
        format!("{}#{}", self.plugin, digest.get(..8).unwrap_or(&digest))
    }

    /// Whether the other one sends the same escalations to the same place.
    fn sends_as(&self, other: &Self) -> bool {
        let of = |webhook: &Self| Self { give_up_after_ms: 0, ..webhook.clone() };
        of(self) == of(other)
    }

    /// Whether an escalation goes here.
    #[must_use]
    pub fn takes(&self, tenant: &str, tier: u8, reason: &str) -> bool {
        (self.tenant == TENANT_ANY || self.tenant == tenant)
            && (self.tiers.is_empty() || self.tiers.contains(&tier))
            && (self.reasons.is_empty() || self.reasons.contains(reason))
    }
}

/// Finds everything that is wrong with the webhooks. A path is not told, for it may
/// hold a token.
///
/// # Errors
/// [`ConfigError::Webhooks`], which names their places from 1.
pub(crate) fn check(config: &ExecutorsConfig) -> Result<(), ConfigError> {
    let mut problems = Vec::new();
    let count = config.webhooks.len();
    if count > WEBHOOKS_MAX {
        problems.push(format!("there are {count}, at most {WEBHOOKS_MAX}"));
    }
    for (webhook, place) in config.webhooks.iter().take(WEBHOOKS_MAX).zip(1..) {
        let mut found = problems_of(webhook, config);
        let useless = useless_filters(webhook);
        // What is of use beside them is sent, as before; a newer version may have made them.
        match useless.is_empty() || is_of_use(webhook) {
            true => useless.iter().for_each(|useless| tracing::warn!("webhook {place}: {useless}")),
            false => found.extend(useless),
        }
        let first = config.webhooks.iter().position(|other| webhook.sends_as(other));
        if let Some(first) = first.map(|at| at + 1).filter(|first| *first < place) {
            found.push(format!("it is the same as webhook {first}"));
        }
        problems.extend(found.into_iter().map(|problem| format!("webhook {place}: {problem}")));
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Webhooks { problems }) }
}

fn problems_of(webhook: &WebhookConfig, config: &ExecutorsConfig) -> Vec<String> {
    let mut problems = Vec::new();
    let WebhookConfig { plugin, path, tenant, tiers: _, reasons: _, give_up_after_ms } = webhook;
    match config.http.plugins.get(plugin).map(|plugin| plugin.signing.is_some()) {
        None => problems.push(format!("`plugin`: there is no plugin `{plugin}`")),
        Some(false) => {
            problems
                .push(format!("`plugin`: messages are signed, and `{plugin}` has no `signing`"));
        }
        Some(true) => {}
    }
    if let Err(refused) = check_path(path) {
        problems.push(format!("`path` {refused}"));
    }
    if tenant != TENANT_ANY && tenant.parse::<Tenant>().is_err() {
        problems.push(format!("`tenant`: `{tenant}` is neither a tenant's name nor `*`"));
    }
    if *give_up_after_ms == 0 {
        problems.push("`give_up_after_ms` is 0, so that nothing could ever be sent".to_owned());
    }
    problems
}

/// Rungs and reasons that no case has.
fn useless_filters(webhook: &WebhookConfig) -> Vec<String> {
    let mut useless = Vec::new();
    for tier in webhook.tiers.iter().filter(|tier| !CASE_TIERS.contains(tier)) {
        let known = CASE_TIERS.map(|tier| tier.to_string()).join(", ");
        useless.push(format!("`tiers`: no case is on rung {tier}; there are cases on {known}"));
    }
    for reason in webhook.reasons.iter().filter(|reason| !CASE_REASONS.contains(&reason.as_str())) {
        let (shown, known) = (reason.chars().take(80).collect::<String>(), CASE_REASONS.join(", "));
        useless.push(format!("`reasons`: no case has the reason `{shown}`; there are {known}"));
    }
    useless
}

/// Whether any case can be sent there.
fn is_of_use(webhook: &WebhookConfig) -> bool {
    let WebhookConfig { tiers, reasons, .. } = webhook;
    let has_tier = tiers.is_empty() || tiers.iter().any(|tier| CASE_TIERS.contains(tier));
    let is_known = |reason: &String| CASE_REASONS.contains(&reason.as_str());
    has_tier && (reasons.is_empty() || reasons.iter().any(is_known))
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
            (
                config(json!({ "plugin": "pager", "tiers": [5] }), true),
                "no case is on rung 5; there are cases on 3",
            ),
            (config(json!({ "plugin": "pager", "give_up_after_ms": 0 }), true), "is 0"),
        ] {
            let problem = check(&config).unwrap_err().to_string();
            assert!(problem.contains(wanted) && problem.contains("webhook 1"), "{problem}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_and_no_path() {
        let of = |value: serde_json::Value| serde_json::from_value::<WebhookConfig>(value).unwrap();
        let mut config = config(json!({ "plugin": "pager", "path": "token-1" }), true);
        config.webhooks.extend([
            of(json!({
                "plugin": "pager", "tenant": "Not A Name",
                "reasons": ["run_fail", "Unmatched"], "tiers": [1, 3],
            })),
            of(json!({ "plugin": "pager", "path": "/a", "give_up_after_ms": 5 })),
            of(json!({ "plugin": "pager", "path": "/a" })),
            of(json!({ "plugin": "pager", "path": "/a", "tenant": "acme" })),
        ]);

        let told = check(&config).unwrap_err().to_string();
        for wanted in [
            "webhook 1: `path` ",
            "webhook 2: `tenant`: `Not A Name`",
            "webhook 2: `tiers`: no case is on rung 1",
            "webhook 2: `reasons`: no case has the reason `run_fail`; there are unmatched, run_failed",
            "webhook 2: `reasons`: no case has the reason `Unmatched`",
            "webhook 4: it is the same as webhook 3",
        ] {
            assert!(told.contains(wanted), "{wanted}: {told}");
        }
        assert!(!told.contains("token-1") && !told.contains("webhook 5"), "{told}");
    }

    #[test]
    fn filters_without_use_beside_others_stop_nothing() {
        for filters in [
            json!({ "plugin": "pager", "tiers": [1, 2, 3, 4] }),
            json!({ "plugin": "pager", "reasons": ["run_failed", "of_a_newer_version"] }),
        ] {
            assert!(check(&config(filters, true)).is_ok());
        }
    }

    #[test]
    fn a_webhook_is_called_by_its_plugin_and_not_by_its_path() {
        let of = |path| config(json!({ "plugin": "pager", "path": path }), true).webhooks.remove(0);
        let (one, other) = (of("/hooks/secret-1"), of("/hooks/secret-2"));

        assert!(
            one.name().starts_with("pager#") && !one.name().contains("secret"),
            "{}",
            one.name()
        );
        assert_ne!(one.name(), other.name());
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
