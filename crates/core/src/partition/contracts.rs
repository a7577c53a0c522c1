//! Which contracts may be added to those that are active.

use super::Definitions;
use crate::command::{ContractEntry, ContractMode, DefineCommand};
use crate::contract::{
    CONTRACT_PATTERNS_MAX, CONTRACTS_MAX, VERSION_RULE, incompatibilities, major_of, patterns_of,
    read_schema,
};
use crate::event::parse_subject;
use crate::record::DefinitionsApplied;

impl Definitions {
    /// What is done about breaches of a tenant's events.
    #[must_use]
    pub fn contract_mode(&self, tenant: &str) -> ContractMode {
        self.contract_modes.get(tenant).copied().unwrap_or_default()
    }

    /// The contracts of a type, the oldest first.
    pub fn contracts_of<'a>(
        &'a self,
        tenant: &'a str,
        kind: &'a str,
    ) -> impl DoubleEndedIterator<Item = &'a ContractEntry> {
        let is =
            move |entry: &&ContractEntry| entry.tenant.as_str() == tenant && *entry.kind == *kind;
        self.contracts.iter().filter(is)
    }

    /// The contract that counts where an event names no version: the one applied last
    /// of the highest major version.
    #[must_use]
    pub fn newest_contract<'a>(
        &'a self,
        tenant: &'a str,
        kind: &'a str,
    ) -> Option<&'a ContractEntry> {
        // The last one of equal ones.
        self.contracts_of(tenant, kind).max_by_key(|entry| major_of(&entry.version))
    }

    pub(super) fn apply_contracts(&mut self, applied: &DefinitionsApplied) {
        for contract in &applied.contracts {
            if !self.has_version(contract) {
                self.contracts.push(contract.clone());
            }
        }
        let modes = applied.contract_modes.iter();
        self.contract_modes.extend(modes.map(|(tenant, mode)| (tenant.clone(), *mode)));
    }

    /// Everything that speaks against the contracts of a command. Several versions
    /// of one type in a command count in their order.
    pub(super) fn contract_problems(&self, command: &DefineCommand) -> Vec<String> {
        let mut with = Self { contracts: self.contracts.clone(), ..Self::default() };
        let mut problems = Vec::new();
        for contract in &command.contracts {
            let found = with.problems_of(contract);
            if found.is_empty() && !with.has_version(contract) {
                with.contracts.push(contract.clone());
            }
            problems.extend(found);
        }
        if with.contracts.len() > CONTRACTS_MAX {
            problems.push(format!("there would be more than {CONTRACTS_MAX} contracts"));
        }
        let adds_patterns =
            command.contracts.iter().any(|contract| patterns_of(&contract.schema.parse()) > 0);
        if problems.is_empty() && adds_patterns && with.patterns() > CONTRACT_PATTERNS_MAX {
            problems.push(format!(
                "all contracts would have more than {CONTRACT_PATTERNS_MAX} regular expressions"
            ));
        }
        problems
    }

    /// Regular expressions of all contracts.
    fn patterns(&self) -> usize {
        self.contracts.iter().map(|contract| patterns_of(&contract.schema.parse())).sum()
    }

    /// Whether this version is there, with whatever content.
    pub(super) fn has_version(&self, contract: &ContractEntry) -> bool {
        let mut known = self.contracts_of(contract.tenant.as_str(), &contract.kind);
        known.any(|entry| entry.version == contract.version)
    }

    fn problems_of(&self, contract: &ContractEntry) -> Vec<String> {
        let ContractEntry { tenant, kind, version, schema } = contract;
        let name = format!("contract `{kind}` version `{version}` of tenant `{tenant}`");
        if let Err(error) = parse_subject(&format!("fermata.events.t.{kind}")) {
            return vec![format!("{name}: a contract is about one type of event: {error}")];
        }
        let Some(major) = major_of(version) else {
            return vec![format!("{name}: {VERSION_RULE}")];
        };
        let read = match read_schema(schema.as_str()) {
            Ok(read) => read,
            Err(problems) => {
                return problems.iter().map(|problem| format!("{name}: {problem}")).collect();
            }
        };
        let known = || self.contracts_of(tenant.as_str(), kind);
        if let Some(same) = known().find(|entry| entry.version == *version) {
            let was = same.schema.parse();
            if was == read {
                return Vec::new();
            }
            let head = format!("{name} exists with another content; make a new version");
            let differences = incompatibilities(&was, &read);
            let told = differences.iter().map(|difference| format!("{name}: {difference}"));
            return std::iter::once(head).chain(told).collect();
        }
        let before = known().rfind(|entry| major_of(&entry.version) == Some(major));
        let Some(before) = before else { return Vec::new() };
        incompatibilities(&before.schema.parse(), &read)
            .iter()
            .map(|difference| {
                let before = &before.version;
                format!(
                    "{name} may refuse what version `{before}` takes, so it is another major \
                     version: {difference}"
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::json::Json;

    fn contract(version: &str, schema: Value) -> ContractEntry {
        ContractEntry {
            tenant: "acme".parse().unwrap(),
            kind: "a.b".into(),
            version: version.into(),
            schema: Json::from_value(&schema),
        }
    }

    fn command(contracts: Vec<ContractEntry>) -> DefineCommand {
        DefineCommand {
            id: Uuid::nil(),
            by: "test".to_owned(),
            strategies: Vec::new(),
            workflows: Vec::new(),
            reply_to: None,
            contracts,
            contract_modes: std::collections::BTreeMap::new(),
            retire: crate::command::Retirement::default(),
            flags: crate::flags::Flags::default(),
        }
    }

    #[test]
    fn a_version_stays_what_it_is_and_the_next_takes_what_it_took() {
        let integer = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
        let number = json!({"type": "object", "properties": {"n": {"type": "number"}}});
        let definitions = Definitions {
            contracts: vec![contract("v1", integer.clone())],
            ..Definitions::default()
        };
        let problems = |version, schema: &Value| {
            definitions.contract_problems(&command(vec![contract(version, schema.clone())]))
        };

        assert_eq!(problems("v1", &integer), Vec::<String>::new());
        assert_eq!(problems("v1.1", &number), Vec::<String>::new());
        assert!(problems("v1", &number)[0].contains("exists with another content"));
        let narrowed = json!({"type": "object", "required": ["n"]});
        let told = problems("v1.1", &narrowed);
        assert!(
            told[0].contains("what version `v1` takes") && told[0].contains("/: `required`"),
            "{told:?}"
        );
        assert_eq!(problems("v3", &narrowed), Vec::<String>::new(), "a major version of its own");
        assert!(problems("v 1", &integer)[0].contains("a version begins"));
        assert!(
            problems("v1.1", &json!({"$ref": "https://acme.example"}))[0]
                .contains("beyond the document")
        );
        let many = ContractEntry { kind: "a.*".into(), ..contract("v1", integer.clone()) };
        assert!(
            definitions.contract_problems(&command(vec![many]))[0].contains("one type of event")
        );
        let both = vec![contract("v1.1", number), contract("v1.2", integer)];
        assert!(definitions.contract_problems(&command(both))[0].contains("version `v1.1` takes"));
    }

    #[test]
    fn the_newest_contract_is_the_one_applied_last_of_the_highest_major_version() {
        let versions = ["v1", "v2", "v10", "v10.1", "v2.1"];
        let contracts = versions.map(|version| contract(version, json!(true))).to_vec();
        let definitions = Definitions { contracts, ..Definitions::default() };

        let newest = definitions.newest_contract("acme", "a.b").map(|entry| &*entry.version);
        assert_eq!(newest, Some("v10.1"));
        assert_eq!(definitions.newest_contract("acme", "other"), None);
    }

    #[test]
    fn all_contracts_together_have_so_many_regular_expressions() {
        let schema = json!({"allOf": vec![json!({"pattern": "a"}); 64]});
        let contracts = |count| (0..count).map(|at| contract(&format!("{at}"), schema.clone()));
        let of = |count| command(contracts(count).collect());
        let none = Definitions::default();

        assert_eq!(none.contract_problems(&of(32)), Vec::<String>::new());
        assert!(none.contract_problems(&of(33))[0].contains("regular expressions"));
        let full = Definitions { contracts: contracts(33).collect(), ..Definitions::default() };
        assert_eq!(
            full.contract_problems(&command(vec![contract("99", json!(true))])),
            Vec::<String>::new(),
            "what adds none is taken"
        );
    }
}
