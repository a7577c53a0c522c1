//! Active definitions: the control partition's own rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Decision, Partition};
use crate::command::{
    ContractEntry, ContractMode, DEFINE_BYTES_MAX, DefineCommand, MODE_BYTES, Retirement,
    StrategyEntry, WorkflowEntry,
};
use crate::digest::Digest;
use crate::effect::{Effect, bounded_detail};
use crate::flags::Flags;
use crate::identity::PartitionId;
use crate::json::Json;
use crate::record::{DefinitionsApplied, DefinitionsRefused, Record};
use crate::strategy::{Action, StrategyDefinition, StrategySet};

/// Bytes of all active definitions together, some 45,000 strategies of one comparison: every
/// process reads and compiles them all before it matches its first event, and has them in its
/// memory.
pub const DEFINITIONS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Versions of workflows, the most that fitted when all definitions were one message: every worker
/// reads and keeps every plan before it matches its first event.
pub const WORKFLOWS_MAX: usize = 6_000;

/// Most problems reported for one command; the count of the rest is told.
const PROBLEMS_MAX: usize = 50;

/// What is active now. Definitions are immutable: a workflow's name and version
/// mean one plan for ever, a strategy changes by a higher version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definitions {
    /// Rises with every change.
    pub revision: u64,
    /// By name.
    pub strategies: BTreeMap<Arc<str>, StrategyEntry>,
    /// In order of name and version.
    pub workflows: Vec<WorkflowEntry>,
    /// Parts of the engine that were switched off, or on again.
    #[serde(default, skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
    /// In the order in which they were applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contracts: Vec<ContractEntry>,
    /// What is done about breaches, by tenant; [`ContractMode::Warn`] where none is said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contract_modes: BTreeMap<Arc<str>, ContractMode>,
    /// Versions of strategies that were retired, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retired: BTreeMap<Arc<str>, u32>,
}

impl Definitions {
    /// The plan of a workflow's version.
    #[must_use]
    pub fn plan(&self, name: &str, version: &str) -> Option<Digest> {
        self.place(name, version).ok().and_then(|at| self.workflows.get(at)).map(|entry| entry.plan)
    }

    fn place(&self, name: &str, version: &str) -> Result<usize, usize> {
        self.workflows
            .binary_search_by(|entry| (&*entry.name, &*entry.version).cmp(&(name, version)))
    }

    pub(super) fn apply(&mut self, applied: &DefinitionsApplied) {
        self.revision = applied.revision;
        self.flags.apply(&applied.flags);
        self.apply_retirement(&applied.retire);
        for strategy in &applied.strategies {
            self.retired.remove(&strategy.name);
            self.strategies.insert(strategy.name.clone(), strategy.clone());
        }
        for workflow in &applied.workflows {
            match self.place(&workflow.name, &workflow.version) {
                Ok(_) => {}
                Err(at) => self.workflows.insert(at, workflow.clone()),
            }
        }
        self.apply_contracts(applied);
    }

    /// What is recorded of a command that nothing speaks against. One that changes nothing is on the record
    /// too, at the revision that is active.
    pub(super) fn applied(&self, command: &DefineCommand) -> DefinitionsApplied {
        let step = u64::from(!self.is_as_asked(command));
        DefinitionsApplied {
            id: command.id,
            by: bounded_detail(&command.by),
            revision: self.revision.saturating_add(step),
            strategies: command.strategies.clone(),
            workflows: command.workflows.clone(),
            flags: command.flags.clone(),
            contracts: command.contracts.clone(),
            contract_modes: command.contract_modes.clone(),
            retire: Retirement {
                strategies: command.retire.strategies.clone(),
                reason: command.retire.reason.as_deref().map(bounded_detail),
            },
        }
    }

    /// Everything that speaks against `command`; empty when it can be applied.
    #[must_use]
    pub fn problems(&self, command: &DefineCommand) -> Vec<String> {
        let bytes = command.bytes();
        if bytes > DEFINE_BYTES_MAX {
            let problem = format!(
                "the command has {bytes} bytes, at most {DEFINE_BYTES_MAX} can be applied at once; \
                 `fermata strategy apply`, `workflow apply` and `contract apply` send more in several \
                 commands"
            );
            return vec![problem];
        }
        self.problems_beside_size(command)
    }

    /// As [`Self::problems`], however large the command is.
    pub(super) fn problems_beside_size(&self, command: &DefineCommand) -> Vec<String> {
        let mut problems = Vec::new();
        for workflow in &command.workflows {
            match self.plan(&workflow.name, &workflow.version) {
                Some(plan) if plan != workflow.plan => problems.push(format!(
                    "workflow `{}` version `{}` exists with another content; raise the version",
                    workflow.name, workflow.version
                )),
                Some(_) | None => {}
            }
        }
        let new = command.workflows.iter().map(|new| (&*new.name, &*new.version));
        let new = new.collect::<BTreeSet<_>>();
        for strategy in &command.strategies {
            problems.extend(self.strategy_problem(strategy, &new));
        }
        problems.extend(self.contract_problems(command));
        problems.extend(self.retirement_problems(command));
        let added = new.iter().filter(|(name, version)| self.place(name, version).is_err()).count();
        let workflows = self.workflows.len() + added;
        // What was active before the bound was set may stay.
        if added > 0 && workflows > WORKFLOWS_MAX {
            problems.push(format!(
                "there would be {workflows} versions of workflows, at most {WORKFLOWS_MAX} can be \
                 active; a version stays for ever, so pass what differs as a variable"
            ));
        }
        let bytes = self.bytes_with(command);
        if bytes > DEFINITIONS_BYTES_MAX {
            problems.push(format!(
                "all definitions together would have {bytes} bytes, at most {DEFINITIONS_BYTES_MAX} can be active"
            ));
        }
        if problems.is_empty() {
            problems = self.problems_of_all_strategies(command);
        }
        problems
    }

    fn bytes_with(&self, command: &DefineCommand) -> usize {
        let new = command.names();
        let gone = &command.retire.strategies;
        let kept = self.strategies.values();
        let kept =
            kept.filter(|active| !new.contains(&active.name) && !gone.contains(&active.name));
        let strategies = kept.chain(&command.strategies).map(StrategyEntry::bytes);
        let new = command.workflows.iter();
        let new = new.filter(|new| self.place(&new.name, &new.version).is_err());
        let workflows = self.workflows.iter().chain(new).map(WorkflowEntry::bytes);
        let new = command.contracts.iter().filter(|contract| !self.has_version(contract));
        let contracts = self.contracts.iter().chain(new).map(ContractEntry::bytes);
        let modes = self.contract_modes.keys().chain(command.contract_modes.keys());
        let modes = modes.collect::<BTreeSet<_>>().len() * MODE_BYTES;
        let retired = self.retired_bytes_with(command);
        strategies.sum::<usize>()
            + workflows.sum::<usize>()
            + contracts.sum::<usize>()
            + modes
            + retired
    }

    /// All strategies are compiled together: what is recorded as active must be what every process
    /// can use.
    fn problems_of_all_strategies(&self, command: &DefineCommand) -> Vec<String> {
        let new = command.names();
        let gone = &command.retire.strategies;
        let kept = self.strategies.values();
        let kept =
            kept.filter(|active| !new.contains(&active.name) && !gone.contains(&active.name));
        // In the order of their names, and of several of one name the last.
        let new = command.strategies.iter().map(|entry| (&entry.name, entry));
        let all = kept.map(|entry| (&entry.name, entry)).chain(new).collect::<BTreeMap<_, _>>();
        let parsed = all
            .values()
            .map(|entry| serde_json::from_str::<StrategyDefinition>(entry.definition.as_str()))
            .collect::<Result<Vec<_>, _>>();
        let compiled = match parsed {
            Ok(parsed) => StrategySet::compile(parsed),
            Err(error) => return vec![format!("a strategy cannot be read: {error}")],
        };
        let problems = compiled.err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    }

    fn strategy_problem(
        &self,
        entry: &StrategyEntry,
        new: &BTreeSet<(&str, &str)>,
    ) -> Option<String> {
        let name = &entry.name;
        if let Some(active) = self.strategies.get(name) {
            if entry.version < active.version {
                return Some(format!(
                    "strategy `{name}` is active in version {}, version {} is older",
                    active.version, entry.version
                ));
            }
            if entry.version == active.version && entry.definition != active.definition {
                return Some(format!(
                    "strategy `{name}` version {} is active with another content; raise the version",
                    entry.version
                ));
            }
        }
        if let Some(problem) = self.revival_problem(entry) {
            return Some(problem);
        }
        let definition = match serde_json::from_str::<StrategyDefinition>(entry.definition.as_str())
        {
            Ok(definition) => definition,
            Err(error) => return Some(format!("strategy `{name}` cannot be read: {error}")),
        };
        let Action::Run { workflow, .. } = &definition.action else { return None };
        let known = self.plan(&workflow.name, &workflow.version).is_some()
            || new.contains(&(&workflow.name, &workflow.version));
        (!known).then(|| {
            format!(
                "strategy `{name}` starts workflow `{}` version `{}`, which is not defined; apply it first",
                workflow.name, workflow.version
            )
        })
    }
}

impl Partition {
    pub(super) fn decide_define(&mut self, command: &DefineCommand, out: &mut Decision) {
        let repeated = self.commands.get(command.id.as_u128()).is_some();
        if !repeated && self.commands.is_full() {
            if let Some(to) = command.reply_to.clone() {
                let problems = ["too many command ids are kept; apply the definitions later"];
                let revision = self.definitions.revision;
                let answer = json!({ "revision": revision, "problems": problems });
                out.effects.push(Effect::Reply { to, answer: Json::from_value(&answer) });
            }
            return;
        }
        let mut problems = match self.id {
            PartitionId::CONTROL => self.definitions.problems(command),
            other => {
                vec![format!("partition {other} keeps no definitions; send them to `control`")]
            }
        };
        let beyond = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        problems.iter_mut().for_each(|problem| *problem = bounded_detail(problem));
        if beyond > 0 {
            problems.push(format!("and {beyond} more"));
        }
        // Of a command that was applied before nobody knows any more what it changed.
        let unchanged = !repeated && problems.is_empty();
        let unchanged = unchanged.then(|| self.definitions.unchanged_by(command));
        if !repeated {
            let before = self.definitions.revision;
            let body = if problems.is_empty() {
                self.definitions.applied(command).into()
            } else {
                let by = bounded_detail(&command.by);
                DefinitionsRefused { id: command.id, by, problems: problems.clone() }.into()
            };
            self.emit(Record::of_partition(body), out);
            if self.definitions.revision != before {
                out.effects.push(Effect::Project);
            }
        }
        if let Some(to) = &command.reply_to {
            let revision = self.definitions.revision;
            let mut answer = json!({ "revision": revision, "problems": problems });
            if let (Some(answer), Some(unchanged)) = (answer.as_object_mut(), unchanged) {
                answer.insert("unchanged".to_owned(), unchanged.into());
            }
            out.effects.push(Effect::Reply { to: to.clone(), answer: Json::from_value(&answer) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: usize) -> StrategyEntry {
        let name = format!("orders-of-shop-{at:05}");
        let definition = json!({
            "name": name, "version": 1, "tenant": "*", "on": "shop.placed", "priority": 10,
            "weight": 1, "fan_out": false, "match": { "data": { "shop": [format!("shop-{at}")] } },
            "action": { "run": {
                "workflow": { "name": "noop", "version": "1" },
                "variables": { "order": "event.data.order", "at": format!("event.data.at + {at}") },
            } },
        });
        StrategyEntry { name: name.into(), version: 1, definition: Json::from_value(&definition) }
    }

    fn define(strategies: impl Iterator<Item = StrategyEntry>) -> DefineCommand {
        DefineCommand { strategies: strategies.collect(), ..DefineCommand::default() }
    }

    fn with(count: usize) -> Definitions {
        let workflow =
            WorkflowEntry { name: "noop".into(), version: "1".into(), plan: Digest::of(b"a plan") };
        Definitions {
            workflows: vec![workflow],
            strategies: (0..count).map(entry).map(|new| (new.name.clone(), new)).collect(),
            ..Definitions::default()
        }
    }

    #[test]
    fn one_command_is_bounded_and_its_parts_are_not() {
        let large = define((0..3_000).map(entry));
        let active = with(0);

        let problems = active.problems(&large);
        let told = format!("the command has {} bytes, at most 786432", large.bytes());
        assert!(problems.len() == 1 && problems[0].starts_with(&told), "{problems:?}");
        assert_eq!(active.problems_of_all(&large), Vec::<String>::new());
        for part in large.parts() {
            assert_eq!(active.problems(&part), Vec::<String>::new());
        }
    }

    #[test]
    fn versions_of_workflows_are_bounded_and_those_that_are_there_may_come_again() {
        let workflows = |versions: std::ops::Range<usize>| {
            let of = |at: usize| WorkflowEntry {
                name: "noop".into(),
                version: format!("{at:05}").into(),
                plan: Digest::of(b"a plan"),
            };
            DefineCommand { workflows: versions.map(of).collect(), ..DefineCommand::default() }
        };
        let mut active =
            Definitions { workflows: workflows(0..WORKFLOWS_MAX).workflows, ..with(0) };

        assert_eq!(active.problems_of_all(&workflows(0..WORKFLOWS_MAX)), Vec::<String>::new());
        let problems = active.problems(&workflows(5_998..6_002));
        let told = "there would be 6002 versions of workflows, at most 6000";
        assert!(problems.len() == 1 && problems[0].starts_with(told), "{problems:?}");
        active.workflows.pop();
        assert_eq!(active.problems(&workflows(5_999..6_000)), Vec::<String>::new());
    }
}
