//! Strategies that are taken out of use.
//!
//! What a retired strategy was is in the journal; of what is active only its name and
//! version stay, so that a version never means two things. Runs have plans of their own
//! and go on.

use std::sync::Arc;

use super::Definitions;
use crate::command::{DefineCommand, Retirement, StrategyEntry};

/// Bytes of a retired strategy besides its name, roughly.
const RETIRED_BYTES: usize = 8;

impl Definitions {
    pub(super) fn apply_retirement(&mut self, retirement: &Retirement) {
        for name in &retirement.strategies {
            if let Some(retired) = self.strategies.remove(name) {
                self.retired.insert(name.clone(), retired.version);
            }
        }
    }

    /// What speaks against the names to retire. One that was retired before is none.
    pub(super) fn retirement_problems(&self, command: &DefineCommand) -> Vec<String> {
        let new = command.names();
        let problem = |name: &Arc<str>| {
            if new.contains(name) {
                return Some(format!(
                    "strategy `{name}` is both applied and retired; do one after the other"
                ));
            }
            let known = self.strategies.contains_key(name) || self.retired.contains_key(name);
            (!known).then(|| {
                format!(
                    "there is no strategy `{name}`; `fermata strategy list` shows what is active"
                )
            })
        };
        command.retire.strategies.iter().filter_map(problem).collect()
    }

    /// What speaks against a strategy that was retired before.
    pub(super) fn revival_problem(&self, entry: &StrategyEntry) -> Option<String> {
        let retired = self.retired.get(&entry.name).filter(|retired| entry.version <= **retired)?;
        Some(format!(
            "strategy `{}` was retired in version {retired}; bring it back in a higher version",
            entry.name
        ))
    }

    /// Bytes of what is kept of retired strategies, once `command` is applied.
    pub(super) fn retired_bytes_with(&self, command: &DefineCommand) -> usize {
        let back = command.names();
        let known = self.retired.keys().filter(|name| !back.contains(name));
        let new = command.retire.strategies.iter().filter(|name| !self.retired.contains_key(*name));
        known.chain(new).map(|name| name.len() + RETIRED_BYTES).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::json::Json;
    use crate::record::DefinitionsApplied;

    fn entry(name: &str, version: u32, priority: usize) -> StrategyEntry {
        let definition = json!({
            "name": name, "version": version, "tenant": "*", "on": "a.b", "priority": priority,
            "weight": 1, "fan_out": false, "action": "ignore",
        });
        StrategyEntry { name: name.into(), version, definition: Json::from_value(&definition) }
    }

    fn command(strategies: Vec<StrategyEntry>, retire: &[&str]) -> DefineCommand {
        let strategies_to_retire: BTreeSet<Arc<str>> =
            retire.iter().map(|name| Arc::from(*name)).collect();
        let retire = Retirement { strategies: strategies_to_retire, reason: None };
        DefineCommand { id: Uuid::nil(), strategies, retire, ..DefineCommand::default() }
    }

    fn applied(definitions: &Definitions, command: DefineCommand) -> Definitions {
        assert_eq!(definitions.problems(&command), Vec::<String>::new());
        let mut after = definitions.clone();
        after.apply(&DefinitionsApplied {
            id: command.id,
            by: String::new(),
            revision: definitions.revision + 1,
            strategies: command.strategies,
            workflows: Vec::new(),
            flags: crate::flags::Flags::default(),
            contracts: Vec::new(),
            contract_modes: std::collections::BTreeMap::new(),
            retire: command.retire,
        });
        after
    }

    #[test]
    fn a_retired_strategy_is_gone_until_a_higher_version_brings_it_back() {
        let both = vec![entry("a", 2, 0), entry("b", 1, 0)];
        let active = applied(&Definitions::default(), command(both, &[]));

        let retired = applied(&active, command(Vec::new(), &["a"]));
        assert_eq!(retired.strategies.keys().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
        let again = applied(&retired, command(Vec::new(), &["a"]));
        assert_eq!((&again.strategies, &again.retired), (&retired.strategies, &retired.retired));
        for version in [1, 2] {
            let problems = retired.problems(&command(vec![entry("a", version, 0)], &[]));
            assert!(problems[0].contains("retired in version 2"), "{problems:?}");
        }
        let back = applied(&retired, command(vec![entry("a", 3, 0)], &[]));
        assert!(back.strategies.contains_key("a") && back.retired.is_empty());
    }

    #[test]
    fn what_is_not_there_is_not_retired_and_all_of_the_command_is_refused() {
        let active = applied(&Definitions::default(), command(vec![entry("a", 1, 0)], &[]));

        let problems = active.problems(&command(Vec::new(), &["a", "z"]));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("no strategy `z`"), "{problems:?}");
        let problems = active.problems(&command(vec![entry("a", 2, 0)], &["a"]));
        assert!(problems[0].contains("both applied and retired"), "{problems:?}");
    }

    #[test]
    fn retiring_makes_room() {
        // Of some 20 KiB each, almost all of it room between two values: few are enough.
        let many = |from: usize| {
            let all = (from..from + 30).map(|at| {
                let mut entry = entry(&format!("strategy-{at}"), 1, at);
                let room = format!("{},", " ".repeat(20_000));
                let text = entry.definition.as_str().replacen(',', &room, 1);
                entry.definition = Json::from_text(&text).unwrap();
                entry
            });
            command(all.collect(), &[])
        };
        let mut full = Definitions::default();
        let mut from = 0;
        while full.problems(&many(from)).is_empty() {
            full = applied(&full, many(from));
            from += 30;
        }
        assert!(from > 700, "{from} strategies of 20 KiB are full");
        let problems = full.problems(&many(from));
        assert!(problems[0].contains("all definitions together"), "{problems:?}");
        assert!(problems[0].contains("16777216"), "{problems:?}");

        let names: Vec<_> = (0..30).map(|at| format!("strategy-{at}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let retired = applied(&full, command(Vec::new(), &names));
        let mut fewer = many(from);
        // What is kept of the retired takes a part of it.
        fewer.strategies.truncate(29);
        assert_eq!(retired.problems(&fewer), Vec::<String>::new());
    }
}
