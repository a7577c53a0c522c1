//! What of a command is active as it is: whoever applies it again is told that nothing changed.

use super::Definitions;
use crate::command::{ContractEntry, DefineCommand, StrategyEntry};

impl Definitions {
    /// How many of the strategies, workflows, contracts, modes and retirements of a command that nothing speaks
    /// against change nothing.
    pub(super) fn unchanged_by(&self, command: &DefineCommand) -> usize {
        let is_active = |new: &&StrategyEntry| self.strategies.get(&new.name) == Some(new);
        let is_known = |new: &&ContractEntry| self.has_version(new);
        let strategies = command.strategies.iter().filter(is_active).count();
        let workflows = command.workflows.iter();
        let workflows =
            workflows.filter(|new| self.plan(&new.name, &new.version) == Some(new.plan));
        let contracts = command.contracts.iter().filter(is_known).count();
        let modes = command.contract_modes.iter();
        let modes = modes.filter(|(tenant, mode)| self.contract_modes.get(*tenant) == Some(mode));
        let retired = command.retire.strategies.iter();
        let retired = retired.filter(|name| !self.strategies.contains_key(*name));
        strategies + workflows.count() + contracts + modes.count() + retired.count()
    }
}

impl Definitions {
    /// Whether a command that nothing speaks against changes nothing at all: then the revision stays, and no
    /// worker reads and compiles what it has.
    pub(super) fn is_as_asked(&self, command: &DefineCommand) -> bool {
        let DefineCommand { id: _, by: _, reply_to: _, flags, .. } = command;
        let mut after = self.flags.clone();
        after.apply(flags);
        after == self.flags && self.unchanged_by(command) == command.asked()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::command::{ContractMode, Retirement, WorkflowEntry};
    use crate::digest::Digest;
    use crate::flags::Flag;
    use crate::json::Json;

    fn strategy(name: &str, version: u32) -> StrategyEntry {
        StrategyEntry { name: name.into(), version, definition: Json::default() }
    }

    #[test]
    fn what_is_active_as_it_is_is_counted() {
        let plan = Digest::of(b"a plan");
        let workflow = WorkflowEntry { name: "w".into(), version: "1".into(), plan };
        let contract = ContractEntry {
            tenant: "acme".parse().unwrap(),
            kind: "placed".into(),
            version: "v1".into(),
            schema: Json::default(),
        };
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        let first = DefineCommand {
            strategies: vec![strategy("a", 1), strategy("b", 1)],
            workflows: vec![workflow],
            contracts: vec![contract],
            contract_modes: [("acme".into(), ContractMode::Enforce)].into(),
            ..DefineCommand::default()
        };
        let retire = |strategies| {
            let retire = Retirement { strategies, reason: None };
            DefineCommand { retire, ..DefineCommand::default() }
        };
        let after = |active: &Definitions, command: &DefineCommand| {
            let mut active = active.clone();
            active.apply(&active.applied(command));
            active
        };

        let none = Definitions::default();
        let active = after(&none, &first);
        assert_eq!((active.revision, after(&active, &first).revision), (1, 1));
        let without = after(&active, &retire(names(&["a"])));

        assert_eq!((none.unchanged_by(&first), active.unchanged_by(&first)), (0, 5));
        let mut changed = first.clone();
        changed.strategies = vec![strategy("a", 2), strategy("b", 1), strategy("c", 1)];
        changed.contract_modes = [("acme".into(), ContractMode::Warn)].into();
        assert_eq!(active.unchanged_by(&changed), 3);
        assert_eq!(active.unchanged_by(&retire(names(&["a", "b"]))), 0);
        assert_eq!(without.unchanged_by(&retire(names(&["a", "b"]))), 1);
        assert_eq!(after(&without, &retire(names(&["a"]))).revision, without.revision);
        assert_eq!(after(&without, &changed).revision, without.revision + 1);
        let mut switched = first.clone();
        switched.flags.set(Flag::AuditFeed, false);
        assert_eq!(after(&active, &switched).revision, 2);
        assert_eq!(after(&after(&active, &switched), &switched).revision, 2);
    }
}
