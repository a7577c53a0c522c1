//! Active definitions: the control partition's own rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::contracts::contract_bytes;
use super::{Decision, Partition};
use crate::command::{
    ContractEntry, ContractMode, DefineCommand, Retirement, StrategyEntry, WorkflowEntry,
};
use crate::digest::Digest;
use crate::effect::{Effect, bounded_detail};
use crate::flags::Flags;
use crate::identity::PartitionId;
use crate::json::Json;
use crate::record::{DefinitionsApplied, DefinitionsRefused, Record};
use crate::strategy::{Action, StrategyDefinition, StrategySet};

/// Bytes of all active definitions together: they are projected as one message
/// of the broker's 1 MiB, and a command's are recorded in one.
const DEFINITIONS_BYTES_MAX: usize = 768 * 1024;

/// Bytes of an entry besides its texts, roughly.
const ENTRY_BYTES: usize = 128;

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

    /// Everything that speaks against `command`; empty when it can be applied.
    #[must_use]
    pub fn problems(&self, command: &DefineCommand) -> Vec<String> {
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
        for strategy in &command.strategies {
            problems.extend(self.strategy_problem(strategy, &command.workflows));
        }
        problems.extend(self.contract_problems(command));
        problems.extend(self.retirement_problems(command));
        let bytes = self.bytes_with(command);
        if bytes > DEFINITIONS_BYTES_MAX {
            problems.push(format!(
                "all definitions together would have {bytes} bytes, at most {DEFINITIONS_BYTES_MAX} can be active"
            ));
        }
        if problems.is_empty() {
            problems.extend(self.compile_problems(command));
        }
        problems
    }

    fn bytes_with(&self, command: &DefineCommand) -> usize {
        let replaced = |name: &Arc<str>| command.strategies.iter().any(|new| new.name == *name);
        let gone = |name: &Arc<str>| command.retire.strategies.contains(name);
        let kept = self.strategies.values();
        let kept = kept.filter(|active| !replaced(&active.name) && !gone(&active.name));
        let strategies = kept.chain(&command.strategies);
        let strategies = strategies.map(|entry| entry.definition.as_str().len() + ENTRY_BYTES);
        let workflows = self.workflows.iter().chain(&command.workflows);
        let workflows = workflows.map(|entry| entry.name.len() + entry.version.len() + ENTRY_BYTES);
        let new = command.contracts.iter().filter(|contract| !self.has_version(contract));
        let contracts = self.contracts.iter().chain(new);
        let modes = self.contract_modes.keys().chain(command.contract_modes.keys());
        let modes = modes.collect::<BTreeSet<_>>().len();
        let retired = self.retired_bytes_with(command);
        let contracts = contract_bytes(contracts, modes);
        strategies.sum::<usize>() + workflows.sum::<usize>() + contracts + retired
    }

    /// Whether all strategies compile together: what is recorded as active must
    /// be what every process can use.
    fn compile_problems(&self, command: &DefineCommand) -> Vec<String> {
        let mut all = self.strategies.clone();
        all.retain(|name, _| !command.retire.strategies.contains(name));
        for new in &command.strategies {
            all.insert(new.name.clone(), new.clone());
        }
        let parsed = all
            .values()
            .map(|entry| serde_json::from_str::<StrategyDefinition>(entry.definition.as_str()))
            .collect::<Result<Vec<_>, _>>();
        match parsed.map(StrategySet::compile) {
            Ok(Ok(_)) => Vec::new(),
            Ok(Err(problems)) => problems.iter().map(ToString::to_string).collect(),
            Err(error) => vec![format!("a strategy cannot be read: {error}")],
        }
    }

    fn strategy_problem(&self, entry: &StrategyEntry, new: &[WorkflowEntry]) -> Option<String> {
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
            || new
                .iter()
                .any(|new| *new.name == *workflow.name && *new.version == *workflow.version);
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
        if !repeated {
            let by = bounded_detail(&command.by);
            let body = if problems.is_empty() {
                DefinitionsApplied {
                    id: command.id,
                    by,
                    revision: self.definitions.revision.saturating_add(1),
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
                .into()
            } else {
                DefinitionsRefused { id: command.id, by, problems: problems.clone() }.into()
            };
            self.emit(Record::of_partition(body), out);
            if problems.is_empty() {
                out.effects.push(Effect::Project);
            }
        }
        if let Some(to) = &command.reply_to {
            let revision = self.definitions.revision;
            let answer = json!({ "revision": revision, "problems": problems });
            out.effects.push(Effect::Reply { to: to.clone(), answer: Json::from_value(&answer) });
        }
    }
}
