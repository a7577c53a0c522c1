//! Tenants and types of contracts that nothing else names: probably slips, which would never check an event.

use fermata_core::command::ContractEntry;
use fermata_core::partition::Definitions;
use fermata_core::strategy::{StrategyDefinition, TENANT_ANY, type_matches};
use fermata_definitions::did_you_mean;

use super::super::definitions::active_at;
use super::super::known_tenants::KnownTenants;
use crate::broker_session::BrokerSession;
use crate::error::CliError;

/// What was made active.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied<'a> {
    pub(super) tenant: &'a str,
    pub(super) contract: Option<&'a ContractEntry>,
}

/// What is told of a tenant, and of a type, that nothing else names. What was applied a moment before may not
/// be projected yet, so nothing is told before `revision` is.
///
/// # Errors
///
/// When what is active cannot be read.
///
/// # Cancel safety
///
/// Can be dropped.
pub(super) async fn suspected(
    session: &BrokerSession,
    revision: u64,
    applied: Applied<'_>,
) -> Result<Vec<String>, CliError> {
    let active = session.active_definitions().await?;
    if judge(&active, applied).is_empty() {
        return Ok(Vec::new());
    }
    Ok(judge(&active_at(session, revision).await?, applied))
}

fn judge(active: &Definitions, applied: Applied<'_>) -> Vec<String> {
    let Applied { tenant, contract } = applied;
    let read = |entry: &fermata_core::command::StrategyEntry| {
        serde_json::from_str::<StrategyDefinition>(entry.definition.as_str()).ok()
    };
    let strategies = active.strategies.values().filter_map(read).collect::<Vec<_>>();
    let others = without(active, applied);
    let known = KnownTenants::of(&others);
    // Of an engine of which nothing is said yet nothing is suspected.
    if strategies.is_empty() && known.is_empty() {
        return Vec::new();
    }
    let for_all = strategies.iter().any(|strategy| &*strategy.tenant == TENANT_ANY);
    if let Some(told) = known.unheard_of(tenant, for_all) {
        return vec![told];
    }
    let Some(kind) = contract.map(|contract| &*contract.kind) else { return Vec::new() };
    let of_tenant = strategies
        .iter()
        .filter(|strategy| [TENANT_ANY, tenant].contains(&&*strategy.tenant))
        .collect::<Vec<_>>();
    let is_taken = of_tenant.iter().any(|strategy| type_matches(&strategy.on, kind));
    if is_taken || others.contracts_of(tenant, kind).next().is_some() {
        return Vec::new();
    }
    let kinds = of_tenant.iter().map(|strategy| &*strategy.on);
    let contracts = others.contracts.iter().filter(|entry| entry.tenant.as_str() == tenant);
    let kinds = kinds.chain(contracts.map(|entry| &*entry.kind));
    let hint =
        did_you_mean(kind, kinds).unwrap_or_else(|| "events of it start nothing as yet".to_owned());
    vec![format!("no strategy takes the type `{kind}` of tenant `{tenant}`; {hint}")]
}

/// What is active besides what was applied.
fn without(active: &Definitions, Applied { tenant, contract }: Applied<'_>) -> Definitions {
    let mut others = active.clone();
    others.contract_modes.remove(tenant);
    if let Some(new) = contract {
        others.contracts.retain(|entry| {
            (&entry.tenant, &entry.kind, &entry.version) != (&new.tenant, &new.kind, &new.version)
        });
    }
    others
}

#[cfg(test)]
mod tests {
    use fermata_core::command::StrategyEntry;
    use fermata_core::json::Json;
    use serde_json::json;

    use super::*;

    fn contract(tenant: &str, kind: &str) -> ContractEntry {
        ContractEntry {
            tenant: tenant.parse().unwrap(),
            kind: kind.into(),
            version: "v1".into(),
            schema: Json::from_value(&json!(true)),
        }
    }

    fn told(strategies: &[(&str, &str)], tenant: &str, kind: &str) -> String {
        let entry = |(at, (tenant, on)): (usize, &(&str, &str))| {
            let name = format!("s{at}");
            let definition = json!({
                "name": name, "version": 1, "tenant": tenant, "on": on, "priority": 10,
                "weight": 1, "fan_out": false, "action": "ignore",
            });
            let definition = Json::from_value(&definition);
            (
                name.as_str().into(),
                StrategyEntry { name: name.as_str().into(), version: 1, definition },
            )
        };
        let new = contract(tenant, kind);
        let active = Definitions {
            strategies: strategies.iter().enumerate().map(entry).collect(),
            contracts: vec![new.clone(), contract("acme", "bill.sent")],
            contract_modes: [(tenant.into(), fermata_core::command::ContractMode::Enforce)].into(),
            ..Definitions::default()
        };
        judge(&active, Applied { tenant, contract: Some(&new) }).join("\n")
    }

    #[test]
    fn a_tenant_or_type_that_nothing_else_names_is_told_with_what_may_be_meant() {
        let acme = [("acme", "order.placed")];

        assert_eq!(told(&acme, "acme", "order.placed"), "");
        let tenant = told(&acme, "acne", "order.placed");
        assert_eq!(tenant, "nothing else names tenant `acne`; did you mean `acme`?");
        let kind = told(&acme, "acme", "order.placd");
        let start = "no strategy takes the type `order.placd` of tenant `acme`; ";
        assert_eq!(kind, format!("{start}did you mean `order.placed`?"));
        let far = told(&acme, "acme", "elsewhere");
        assert!(far.ends_with("events of it start nothing as yet"), "{far}");
        let other = told(&acme, "initech", "order.placed");
        assert_eq!(other, "nothing else names tenant `initech`; known tenants are acme");
    }

    #[test]
    fn where_strategies_are_for_all_only_what_is_near_is_told() {
        let all = [("*", "order.>")];

        assert_eq!(told(&all, "initech", "order.placed.twice"), "");
        assert!(told(&all, "acne", "order.placed").ends_with("did you mean `acme`?"));
        let near = told(&all, "acme", "bill.snt");
        assert!(near.ends_with("did you mean `bill.sent`?"), "{near}");
    }
}
