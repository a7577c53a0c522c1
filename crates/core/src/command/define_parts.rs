//! How large a define command is, and how one that is too large is cut.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ContractEntry, DefineCommand, StrategyEntry, WorkflowEntry};

/// Bytes of one define command: it travels, and is recorded, in one message of the broker's
/// 1 MiB, beside names and lengths that are not counted.
pub const DEFINE_BYTES_MAX: usize = 768 * 1024;

/// Bytes of what is done about a tenant's breaches, roughly.
pub(crate) const MODE_BYTES: usize = 80;

/// Bytes of an entry besides its texts, roughly.
const ENTRY_BYTES: usize = 128;

/// Bytes of a name to retire besides the name, roughly.
const RETIRE_BYTES: usize = 8;

impl StrategyEntry {
    /// Its bytes, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.definition.as_str().len() + ENTRY_BYTES
    }
}

impl WorkflowEntry {
    /// Its bytes, roughly; its plan is stored elsewhere.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.name.len() + self.version.len() + ENTRY_BYTES
    }
}

impl ContractEntry {
    /// Its bytes, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.schema.as_str().len() + self.kind.len() + ENTRY_BYTES
    }
}

impl DefineCommand {
    /// Its bytes, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let strategies = self.strategies.iter().map(StrategyEntry::bytes);
        let workflows = self.workflows.iter().map(WorkflowEntry::bytes);
        let contracts = self.contracts.iter().map(ContractEntry::bytes);
        let entries = strategies.chain(workflows).chain(contracts).sum::<usize>();
        entries + self.bytes_besides_entries()
    }

    fn bytes_besides_entries(&self) -> usize {
        let retired = self.retire.strategies.iter().map(|name| name.len() + RETIRE_BYTES);
        retired.sum::<usize>() + self.contract_modes.len() * MODE_BYTES
    }

    /// Names of its strategies.
    pub(crate) fn names(&self) -> BTreeSet<&Arc<str>> {
        self.strategies.iter().map(|new| &new.name).collect()
    }

    /// Cuts it into commands of at most [`DEFINE_BYTES_MAX`] each, which are applied one after
    /// the other: what is active between two of them is sound, for no part needs a later one.
    /// All have its id, and each needs one of its own.
    ///
    /// The first retires, and sets flags and modes; then come workflows, contracts, and the
    /// strategies, which name workflows. One that is small enough stays whole. What is alone
    /// larger than a command may be makes a part by itself, which is refused.
    #[must_use]
    pub fn parts(mut self) -> Vec<Self> {
        let (strategies, workflows, contracts) = (
            std::mem::take(&mut self.strategies),
            std::mem::take(&mut self.workflows),
            std::mem::take(&mut self.contracts),
        );
        let mut cutting = Cutting::new(self);
        for entry in workflows {
            cutting.room_for(entry.bytes()).workflows.push(entry);
        }
        for entry in contracts {
            cutting.room_for(entry.bytes()).contracts.push(entry);
        }
        for entry in strategies {
            cutting.room_for(entry.bytes()).strategies.push(entry);
        }
        cutting.finish()
    }
}

/// Parts that are filled one after the other.
struct Cutting {
    full: Vec<DefineCommand>,
    last: DefineCommand,
    /// What the last one has.
    bytes: usize,
}

impl Cutting {
    fn new(first: DefineCommand) -> Self {
        Self { full: Vec::new(), bytes: first.bytes_besides_entries(), last: first }
    }

    /// The part that takes so many bytes more.
    fn room_for(&mut self, bytes: usize) -> &mut DefineCommand {
        if self.bytes > 0 && self.bytes + bytes > DEFINE_BYTES_MAX {
            let (id, by) = (self.last.id, self.last.by.clone());
            let next = DefineCommand { id, by, ..DefineCommand::default() };
            self.full.push(std::mem::replace(&mut self.last, next));
            self.bytes = 0;
        }
        self.bytes += bytes;
        &mut self.last
    }

    fn finish(mut self) -> Vec<DefineCommand> {
        self.full.push(self.last);
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::json::Json;

    fn command(workflows: usize, strategies: usize) -> DefineCommand {
        let workflow = |at: usize| WorkflowEntry {
            name: format!("w{at}").into(),
            version: "1".into(),
            plan: Digest::of(&at.to_be_bytes()),
        };
        let strategy = |at: usize| StrategyEntry {
            name: format!("s{at}").into(),
            version: 1,
            definition: Json::from_value(&serde_json::json!("x".repeat(238))),
        };
        DefineCommand {
            by: "alice".to_owned(),
            workflows: (0..workflows).map(workflow).collect(),
            strategies: (0..strategies).map(strategy).collect(),
            ..DefineCommand::default()
        }
    }

    #[test]
    fn what_fits_into_one_command_stays_whole() {
        let whole = command(3, 2_000);

        assert_eq!(whole.clone().parts(), [whole]);
        assert_eq!(DefineCommand::default().parts().len(), 1);
    }

    #[test]
    fn parts_are_small_enough_have_everything_once_and_workflows_first() {
        let whole = command(9_000, 10_000);
        let parts = whole.clone().parts();

        assert!(parts.iter().all(|part| part.bytes() <= DEFINE_BYTES_MAX && part.by == "alice"));
        let least = whole.bytes() / DEFINE_BYTES_MAX;
        assert!((least..=least + 1).contains(&(parts.len() - 1)), "{} parts", parts.len());
        let workflows: Vec<_> = parts.iter().flat_map(|part| part.workflows.clone()).collect();
        let strategies: Vec<_> = parts.iter().flat_map(|part| part.strategies.clone()).collect();
        assert_eq!((&workflows, &strategies), (&whole.workflows, &whole.strategies));
        let first = parts.iter().position(|part| !part.strategies.is_empty());
        let last = parts.iter().rposition(|part| !part.workflows.is_empty());
        assert!(last <= first, "a strategy comes before a workflow: {first:?}, {last:?}");
    }

    #[test]
    fn what_is_too_large_by_itself_is_a_part_by_itself() {
        let mut whole = command(1, 1);
        let definition = Json::from_value(&serde_json::json!("x".repeat(DEFINE_BYTES_MAX)));
        whole.strategies.push(StrategyEntry { name: "large".into(), version: 1, definition });

        let sizes: Vec<_> = whole.parts().iter().map(DefineCommand::bytes).collect();

        assert!(sizes.len() == 2 && sizes[0] <= DEFINE_BYTES_MAX && sizes[1] > DEFINE_BYTES_MAX);
    }
}
