//! How much a strategy asks of an event: among equal priorities, who asks more goes first.

use serde_json::Value;

use super::definition::{StrategyDefinition, TENANT_ANY};
use super::type_pattern::{Token, parse_pattern};

/// How much a strategy asks of an event. Compared from the first field to the last:
///
/// 1. `tenant`: whether it names one;
/// 2. `exact_type`: whether its type pattern has no wildcard;
/// 3. `type_tokens`: tokens of the type pattern that are no wildcards;
/// 4. `fields`: fields that its event pattern names, of an `$or` those of the branch with the
///    fewest;
/// 5. `condition`: whether it has one.
///
/// What values a field may take is not weighed: nobody could tell by looking which of two
/// lists of values is the narrower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Specificity {
    /// Whether the strategy names a tenant.
    pub tenant: bool,
    /// Whether the type pattern has no wildcard.
    pub exact_type: bool,
    /// Tokens of the type pattern that are no wildcards.
    pub type_tokens: u32,
    /// Fields that the event pattern names.
    pub fields: u32,
    /// Whether it has a condition.
    pub condition: bool,
}

impl Specificity {
    /// How much `definition` asks; one that does not compile asks for something, too.
    #[must_use]
    pub fn of(definition: &StrategyDefinition) -> Self {
        let tokens = parse_pattern(&definition.on).unwrap_or_default();
        let literals = tokens.iter().filter(|token| matches!(token, Token::Literal(_))).count();
        Self {
            tenant: definition.tenant != TENANT_ANY,
            exact_type: literals == tokens.len(),
            type_tokens: u32::try_from(literals).unwrap_or(u32::MAX),
            fields: definition.pattern.as_ref().map_or(0, fields),
            condition: definition.when.is_some(),
        }
    }
}

/// Fields of a pattern. How deep a pattern goes is bounded when it is read.
fn fields(pattern: &Value) -> u32 {
    let Value::Object(members) = pattern else { return 1 };
    let of = |(name, wanted): (&String, &Value)| {
        if let (Value::Array(branches), "$or") = (wanted, name.as_str()) {
            return branches.iter().map(fields).min().unwrap_or(0);
        }
        fields(wanted)
    };
    members.iter().map(of).fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::definition;
    use super::*;

    fn asks(change: impl FnOnce(&mut StrategyDefinition)) -> Specificity {
        let mut asked = StrategyDefinition { tenant: "*".to_owned(), ..definition("s", "a.b") };
        change(&mut asked);
        Specificity::of(&asked)
    }

    #[test]
    fn who_asks_more_is_more_specific() {
        let ascending = [
            asks(|s| s.on = ">".to_owned()),
            asks(|s| s.on = "a.>".to_owned()),
            asks(|s| s.on = "a.*".to_owned()).max(asks(|s| s.on = "a.>".to_owned())),
            asks(|s| s.on = "a.*.c".to_owned()),
            asks(|_| ()),
            asks(|s| s.when = Some("true".to_owned())),
            asks(|s| s.pattern = Some(json!({ "data": { "a": ["x"] } }))),
            asks(|s| s.pattern = Some(json!({ "data": { "a": ["x"], "b": [1, 2, 3] } }))),
            asks(|s| {
                s.tenant = "acme".to_owned();
                s.on = ">".to_owned();
            }),
        ];

        assert!(ascending.is_sorted(), "{ascending:#?}");
    }

    #[test]
    fn of_branches_the_one_with_the_fewest_fields_counts() {
        let pattern = json!({ "$or": [{ "id": ["1"], "data": { "a": [1] } }, { "id": ["2"] }] });

        assert_eq!(asks(|s| s.pattern = Some(pattern)).fields, 1);
    }
}
