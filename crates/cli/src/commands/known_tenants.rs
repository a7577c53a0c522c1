//! Lists of one tenant that hold nothing: is there such a tenant?

use std::collections::BTreeSet;

use fermata_core::partition::Definitions;
use fermata_core::strategy::TENANT_ANY;
use fermata_definitions::did_you_mean;
use serde_json::Value;

use crate::error::CliError;
use crate::output::Output;

/// Tenants that are kept to be compared with; more are not looked through.
const TENANTS_MAX: usize = 1_000;

/// Most tenants that are named.
const NAMED_MAX: usize = 8;

/// Names of tenants that were seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct KnownTenants(BTreeSet<String>);

impl KnownTenants {
    /// Those that strategies, contracts and modes name.
    pub(super) fn of(active: &Definitions) -> Self {
        let mut known = Self::default();
        for entry in active.strategies.values() {
            let definition: Value = entry.definition.parse();
            known.see(definition.get("tenant").and_then(Value::as_str).unwrap_or_default());
        }
        active.contracts.iter().for_each(|entry| known.see(entry.tenant.as_str()));
        active.contract_modes.keys().for_each(|tenant| known.see(tenant));
        known
    }

    /// Keeps a name, but that for all tenants.
    pub(super) fn see(&mut self, tenant: &str) {
        let is_name = !tenant.is_empty() && tenant != TENANT_ANY;
        if is_name && self.0.len() < TENANTS_MAX && !self.0.contains(tenant) {
            self.0.insert(tenant.to_owned());
        }
    }

    /// Whether nobody is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What to say of a tenant that somebody gives something and nothing else names. Where strategies are `for_all`
    /// tenants, only of one that is near to one that is known.
    pub(super) fn unheard_of(&self, tenant: &str, for_all: bool) -> Option<String> {
        if self.0.contains(tenant) || self.0.len() >= TENANTS_MAX {
            return None;
        }
        let question = did_you_mean(tenant, self.0.iter().map(String::as_str));
        let hint = match question {
            Some(question) => format!("; {question}"),
            None if for_all => return None,
            None => self.listed(),
        };
        Some(format!("nothing else names tenant `{tenant}`{hint}"))
    }

    /// Who is known, where these are few.
    fn listed(&self) -> String {
        if self.0.is_empty() || self.0.len() > NAMED_MAX {
            return String::new();
        }
        let known: Vec<_> = self.0.iter().map(String::as_str).collect();
        format!("; known tenants are {}", known.join(", "))
    }

    /// What to say beside a list that has only what is for every tenant: which tenant may be meant by one of whom
    /// nothing is known; nothing where that is known, none is near, or no tenant was named.
    pub(super) fn only_of_all(&self, tenant: Option<&str>, one: &str) -> Option<String> {
        let tenant = tenant.filter(|tenant| !self.0.contains(*tenant))?;
        let question = did_you_mean(tenant, self.0.iter().map(String::as_str))?;
        Some(format!("no {one} is for tenant `{tenant}` alone; {question}"))
    }

    /// What to say of a list of `what` that is empty: that nothing is known of the tenant it was narrowed to,
    /// and which one may be meant; nothing where that is known, or no tenant was named.
    pub(super) fn nothing_of(&self, tenant: Option<&str>, what: &str) -> Option<String> {
        // Of more than that not all were kept.
        let tenant = tenant.filter(|_| self.0.len() < TENANTS_MAX)?;
        let tenant = Some(tenant).filter(|tenant| !self.0.contains(*tenant))?;
        let hint = match did_you_mean(tenant, self.0.iter().map(String::as_str)) {
            Some(question) => format!("; {question}"),
            None => self.listed(),
        };
        Some(format!("no {what} of tenant `{tenant}` are known{hint}"))
    }
}

/// Says it in the place of the empty list to people, and beside it to programs.
///
/// # Errors
///
/// When it cannot be written.
pub(super) fn tell_nothing(text: &str, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        output.note(text);
        return Ok(());
    }
    output.line(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_of_which_nothing_is_known_is_told_with_the_one_that_may_be_meant() {
        let mut known = KnownTenants::default();
        assert_eq!(
            known.nothing_of(Some("acme"), "runs").unwrap(),
            "no runs of tenant `acme` are known"
        );
        ["acme", "globex", "*"].into_iter().for_each(|tenant| known.see(tenant));

        let told = |tenant| known.nothing_of(tenant, "runs");

        assert_eq!((told(Some("acme")), told(None)), (None, None));
        let near = told(Some("acne")).unwrap();
        assert_eq!(near, "no runs of tenant `acne` are known; did you mean `acme`?");
        let far = told(Some("initech")).unwrap();
        assert!(far.ends_with("are known; known tenants are acme, globex"), "{far}");
        let beside = |tenant| known.only_of_all(tenant, "strategy");
        let near = "no strategy is for tenant `acne` alone; did you mean `acme`?";
        assert_eq!(beside(Some("acne")).as_deref(), Some(near));
        assert_eq!(
            (beside(Some("acme")), beside(Some("initech")), beside(None)),
            (None, None, None)
        );
    }
}
