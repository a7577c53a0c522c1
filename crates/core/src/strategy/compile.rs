//! From definitions to a set that decides.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::definition::{
    Action, NAME_BYTES_MAX, SCORE_MAX, STRATEGIES_MAX, StrategyDefinition, TENANT_ANY,
    VARIABLES_MAX, WEIGHT_MAX, WorkflowRef,
};
use super::event_pattern::{EventPattern, PatternProblem};
use super::index::{Bucket, Certainty, Index, Member};
use super::problem::{StrategyProblem, StrategyProblemKind};
use super::specificity::Specificity;
use super::type_pattern::parse_pattern;
use crate::expression::Expression;
use crate::identity::Tenant;

/// Strategies that are named of those which cost too much together.
const COSTLY_NAMED_MAX: usize = 5;

/// A compiled strategy.
#[derive(Clone)]
pub struct Strategy {
    definition: StrategyDefinition,
    pub(super) pattern: Option<EventPattern>,
    /// Whether the index finds it only when its pattern holds.
    pub(super) certainty: Certainty,
    /// Place in the bundle.
    place: usize,
    /// Place of its bucket in the index.
    pub(super) bucket: usize,
    pub(super) when: Option<Expression>,
    /// Absent: the event's data are the variables.
    pub(super) variables: Option<Vec<(String, Expression)>>,
    pub(super) specificity: Specificity,
}

impl Strategy {
    /// What it was compiled from.
    #[must_use]
    pub fn definition(&self) -> &StrategyDefinition {
        &self.definition
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.definition.version
    }

    /// How much it asks of an event.
    #[must_use]
    pub fn specificity(&self) -> Specificity {
        self.specificity
    }

    /// Who wins: the highest; equals are drawn by weight.
    pub(super) fn precedence(&self) -> (i64, Specificity) {
        (self.definition.priority, self.specificity)
    }

    /// The workflow that it starts; absent with [`Action::Ignore`].
    #[must_use]
    pub fn workflow(&self) -> Option<&WorkflowRef> {
        match &self.definition.action {
            Action::Run { workflow, .. } => Some(workflow),
            Action::Ignore => None,
        }
    }
}

impl std::fmt::Debug for Strategy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Strategy").field(&self.definition).finish()
    }
}

/// An immutable, indexed set of strategies.
#[derive(Debug, Default)]
pub struct StrategySet {
    /// By rank: highest priority first, then highest specificity, then by name.
    strategies: Vec<Strategy>,
    pub(super) index: Index,
    /// The last rank that runs beside a winner, if any does.
    pub(super) last_beside: Option<u32>,
}

impl StrategySet {
    /// Compiles a bundle, all or nothing.
    ///
    /// # Errors
    ///
    /// Every problem of every definition, in the order of the bundle; with
    /// more than [`STRATEGIES_MAX`] definitions that one problem alone, and where nothing else is
    /// wrong what costs too much.
    pub fn compile(definitions: Vec<StrategyDefinition>) -> Result<Self, Vec<StrategyProblem>> {
        let set = Self::compile_accepted(definitions)?;
        set.too_costly().map_or(Ok(set), |problem| Err(vec![problem]))
    }

    /// Compiles a bundle that was accepted before, whatever it costs: how that is estimated may
    /// have changed, and what is active stays so.
    ///
    /// # Errors
    ///
    /// As [`StrategySet::compile`].
    pub fn compile_accepted(
        definitions: Vec<StrategyDefinition>,
    ) -> Result<Self, Vec<StrategyProblem>> {
        let count = definitions.len();
        if count > STRATEGIES_MAX {
            let kind = StrategyProblemKind::TooMany { count, limit: STRATEGIES_MAX };
            let (strategy, field) = (String::new(), "strategies".to_owned());
            return Err(vec![StrategyProblem { index: STRATEGIES_MAX, strategy, field, kind }]);
        }
        let mut problems = find_duplicates(&definitions);
        let mut strategies = Vec::with_capacity(count);
        for (index, definition) in definitions.into_iter().enumerate() {
            let (name, problems) = (excerpt(&definition.name), &mut problems);
            let mut check = Check { index, name, problems };
            strategies.push(check.compile(definition));
        }
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.index);
            return Err(problems);
        }
        strategies.sort_by(|a, b| rank_order(a).cmp(&rank_order(b)));
        let index = build_index(&mut strategies);
        let beside = (0..).zip(&strategies).filter(|(_, strategy)| strategy.definition.fan_out);
        let last_beside = beside.map(|(rank, _)| rank).last();
        Ok(Self { strategies, index, last_beside })
    }

    /// What is wrong when one event can make strategies be tried that score more than
    /// [`SCORE_MAX`].
    #[must_use]
    pub fn too_costly(&self) -> Option<StrategyProblem> {
        let load = self.index.heaviest().filter(|load| load.score > SCORE_MAX)?;
        let mut tried: Vec<_> = load
            .bucket
            .tried
            .iter()
            .filter_map(|rank| self.strategies.get(usize::try_from(*rank).ok()?))
            .filter(|strategy| strategy.pattern.is_some() || strategy.when.is_some())
            .collect();
        let last = *tried.iter().max_by_key(|strategy| strategy.place)?;
        // The dearest first.
        tried.sort_by_key(|strategy| {
            (Reverse(strategy.when.as_ref().map(Expression::price)), strategy.place)
        });
        let names = tried.iter().take(COSTLY_NAMED_MAX);
        let names = names.map(|strategy| excerpt(&strategy.definition.name)).collect();
        Some(StrategyProblem {
            index: last.place,
            strategy: excerpt(&last.definition.name),
            field: if last.pattern.is_some() { "match" } else { "when" }.to_owned(),
            kind: StrategyProblemKind::TooCostly {
                on: excerpt(&last.definition.on),
                names,
                count: tried.len(),
                score: load.score,
                limit: SCORE_MAX,
            },
        })
    }

    /// Every strategy in the order in which they are considered: highest
    /// priority first, then highest [`Specificity`], then by name.
    #[must_use]
    pub fn strategies(&self) -> &[Strategy] {
        &self.strategies
    }
}

fn rank_order(strategy: &Strategy) -> (Reverse<(i64, Specificity)>, &str, &str) {
    (Reverse(strategy.precedence()), &strategy.definition.name, &strategy.definition.tenant)
}

fn build_index(strategies: &mut [Strategy]) -> Index {
    let mut groups: BTreeMap<(String, String), Vec<(u32, &mut Strategy)>> = BTreeMap::new();
    for (rank, strategy) in (0..).zip(strategies) {
        let StrategyDefinition { tenant, on, .. } = &strategy.definition;
        groups.entry((tenant.clone(), on.clone())).or_default().push((rank, strategy));
    }
    let mut index = Index::default();
    for ((tenant, on), mut group) in groups {
        let mut members: Vec<_> = group
            .iter_mut()
            .map(|(rank, strategy)| Member {
                rank: *rank,
                condition_steps: strategy.when.as_ref().map(Expression::price),
                pattern: strategy.pattern.as_mut(),
            })
            .collect();
        let (bucket, certainties) = Bucket::build(&mut members);
        // Each pattern was read before, when its definition was checked.
        let tokens = parse_pattern(&on).unwrap_or_default();
        let place = index.insert(&tenant, &on, &tokens, bucket);
        for ((_, strategy), certainty) in group.into_iter().zip(certainties) {
            strategy.bucket = place;
            strategy.certainty = certainty;
        }
    }
    index
}

/// Names that one event could meet twice: a run's id is made from the name.
fn find_duplicates(definitions: &[StrategyDefinition]) -> Vec<StrategyProblem> {
    let mut taken: HashMap<&str, HashMap<&str, usize>> = HashMap::new();
    let mut problems = Vec::new();
    for (index, definition) in definitions.iter().enumerate() {
        let tenants = taken.entry(&definition.name).or_default();
        let tenant = definition.tenant.as_str();
        let other = if tenant == TENANT_ANY {
            tenants.values().min()
        } else {
            tenants.get(tenant).or_else(|| tenants.get(TENANT_ANY))
        };
        if let Some(&other) = other {
            problems.push(StrategyProblem {
                index,
                strategy: excerpt(&definition.name),
                field: "name".to_owned(),
                kind: StrategyProblemKind::DuplicateName { other },
            });
        }
        tenants.entry(tenant).or_insert(index);
    }
    problems
}

/// Checks one definition and collects what is wrong with it.
struct Check<'p> {
    index: usize,
    name: String,
    problems: &'p mut Vec<StrategyProblem>,
}

impl Check<'_> {
    fn compile(&mut self, definition: StrategyDefinition) -> Strategy {
        use StrategyProblemKind as Kind;

        let StrategyDefinition {
            name,
            version,
            tenant,
            on,
            pattern,
            when,
            weight,
            fan_out,
            action,
            ..
        } = &definition;
        self.require(is_name(name), "name", || Kind::BadName(excerpt(name)));
        self.require(*version > 0, "version", || Kind::BadVersion);
        let tenant_known = tenant == TENANT_ANY || tenant.parse::<Tenant>().is_ok();
        self.require(tenant_known, "tenant", || Kind::BadTenant(excerpt(tenant)));
        if let Err(why) = parse_pattern(on) {
            self.report("on", Kind::BadPattern { pattern: excerpt(on), why });
        }
        self.require((1..=WEIGHT_MAX).contains(weight), "weight", || Kind::BadWeight(*weight));
        let pattern = pattern.as_ref().and_then(|pattern| self.pattern(pattern));
        let when = when.as_deref().and_then(|source| self.expression("when", source));
        let variables = match action {
            Action::Run { workflow, variables } => {
                self.workflow(workflow);
                variables.as_ref().map(|variables| {
                    let count = variables.len();
                    self.require(count <= VARIABLES_MAX, "variables", || Kind::TooManyVariables {
                        count,
                        limit: VARIABLES_MAX,
                    });
                    variables
                        .iter()
                        .filter_map(|(name, source)| self.variable(name, source))
                        .collect()
                })
            }
            Action::Ignore => {
                self.require(!fan_out, "fan_out", || Kind::FanOutOfNothing);
                None
            }
        };
        let (certainty, bucket, place) = (Certainty::MayMatch, 0, self.index);
        let specificity = Specificity::of(&definition);
        Strategy { when, pattern, certainty, bucket, place, variables, specificity, definition }
    }

    fn pattern(&mut self, pattern: &Value) -> Option<EventPattern> {
        match EventPattern::read(pattern) {
            Ok(pattern) => Some(pattern),
            Err(problems) => {
                for PatternProblem { path, message, hint } in problems {
                    self.report(&path, StrategyProblemKind::BadMatch { message, hint });
                }
                None
            }
        }
    }

    fn workflow(&mut self, workflow: &WorkflowRef) {
        use StrategyProblemKind as Kind;

        let WorkflowRef { name, version } = workflow;
        self.require(is_name(name), "workflow.name", || Kind::BadName(excerpt(name)));
        let sound = (1..=NAME_BYTES_MAX).contains(&version.len())
            && version.bytes().all(|byte| byte.is_ascii_graphic());
        self.require(sound, "workflow.version", || Kind::BadWorkflowVersion(excerpt(version)));
    }

    fn variable(&mut self, name: &str, source: &str) -> Option<(String, Expression)> {
        let field = format!("variables.{}", excerpt(name));
        self.require(is_variable(name), &field, || {
            StrategyProblemKind::BadVariableName(excerpt(name))
        });
        let expression = self.expression(&field, source)?;
        Some((name.to_owned(), expression))
    }

    fn expression(&mut self, field: &str, source: &str) -> Option<Expression> {
        match Expression::compile(source) {
            Ok(expression) => {
                for root in &expression.references().roots {
                    let root: &str = root;
                    self.require(root == "event", field, || {
                        StrategyProblemKind::UnknownReference(excerpt(root))
                    });
                }
                Some(expression)
            }
            Err(error) => {
                self.report(field, StrategyProblemKind::BadExpression(error.to_string()));
                None
            }
        }
    }

    fn require(&mut self, holds: bool, field: &str, kind: impl FnOnce() -> StrategyProblemKind) {
        if !holds {
            self.report(field, kind());
        }
    }

    fn report(&mut self, field: &str, kind: StrategyProblemKind) {
        let (index, strategy, field) = (self.index, self.name.clone(), field.to_owned());
        self.problems.push(StrategyProblem { index, strategy, field, kind });
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= NAME_BYTES_MAX
        && name.bytes().all(allowed)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

fn is_variable(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() <= NAME_BYTES_MAX
        && name.bytes().all(allowed)
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
