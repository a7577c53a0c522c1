//! From definitions to a set that decides.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::definition::{
    Action, NAME_BYTES_MAX, STRATEGIES_MAX, StrategyDefinition, TENANT_ANY, VARIABLES_MAX,
    WEIGHT_MAX, WorkflowRef,
};
use super::index::Index;
use super::pattern::parse_pattern;
use super::problem::{StrategyProblem, StrategyProblemKind};
use crate::expression::Expression;
use crate::identity::Tenant;

/// A compiled strategy.
#[derive(Clone)]
pub struct Strategy {
    definition: StrategyDefinition,
    pub(super) when: Option<Expression>,
    /// Absent: the event's data are the variables.
    pub(super) variables: Option<Vec<(String, Expression)>>,
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
    /// By rank: highest priority first, then by name.
    strategies: Vec<Strategy>,
    pub(super) index: Index,
}

impl StrategySet {
    /// Compiles a bundle, all or nothing.
    ///
    /// # Errors
    ///
    /// Every problem of every definition, in the order of the bundle; with
    /// more than [`STRATEGIES_MAX`] definitions that one problem alone.
    pub fn compile(definitions: Vec<StrategyDefinition>) -> Result<Self, Vec<StrategyProblem>> {
        let count = definitions.len();
        if count > STRATEGIES_MAX {
            let kind = StrategyProblemKind::TooMany { count, limit: STRATEGIES_MAX };
            let (strategy, field) = (String::new(), "strategies".to_owned());
            return Err(vec![StrategyProblem { index: STRATEGIES_MAX, strategy, field, kind }]);
        }
        let mut problems = find_duplicates(&definitions);
        let mut strategies = Vec::with_capacity(count);
        for (index, definition) in definitions.into_iter().enumerate() {
            let mut check =
                Check { index, name: excerpt(&definition.name), problems: &mut problems };
            strategies.push(check.compile(definition));
        }
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.index);
            return Err(problems);
        }
        strategies.sort_by(|a, b| rank_order(&a.definition).cmp(&rank_order(&b.definition)));
        let index = build_index(&strategies);
        Ok(Self { strategies, index })
    }

    /// Every strategy in the order in which they are considered: highest
    /// priority first, then by name.
    #[must_use]
    pub fn strategies(&self) -> &[Strategy] {
        &self.strategies
    }
}

fn rank_order(definition: &StrategyDefinition) -> (Reverse<i64>, &str, &str) {
    (Reverse(definition.priority), &definition.name, &definition.tenant)
}

fn build_index(strategies: &[Strategy]) -> Index {
    let mut index = Index::default();
    for (rank, strategy) in (0..).zip(strategies) {
        let StrategyDefinition { tenant, on, .. } = &strategy.definition;
        // Each pattern was read before, when its definition was checked.
        index.insert(tenant, on, &parse_pattern(on).unwrap_or_default(), rank);
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

        let StrategyDefinition { name, version, tenant, on, when, weight, fan_out, action, .. } =
            &definition;
        self.require(is_name(name), "name", || Kind::BadName(excerpt(name)));
        self.require(*version > 0, "version", || Kind::BadVersion);
        let tenant_known = tenant == TENANT_ANY || tenant.parse::<Tenant>().is_ok();
        self.require(tenant_known, "tenant", || Kind::BadTenant(excerpt(tenant)));
        if let Err(why) = parse_pattern(on) {
            self.report("on", Kind::BadPattern { pattern: excerpt(on), why });
        }
        self.require((1..=WEIGHT_MAX).contains(weight), "weight", || Kind::BadWeight(*weight));
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
        Strategy { when, variables, definition }
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
