//! What the description of patterns says, tried on one strategy after the other.

use std::cmp::Ordering;
use std::net::IpAddr;

use fermata_core::strategy::{Action, NEAR_MISSES_MAX, StrategyDefinition};
use serde_json::{Map, Value};

use super::document::Document;
use super::generate::TestEvent;
use super::{Outcome, Tally};

/// What becomes of an event of the tenant `acme`.
pub fn decide(strategies: &[StrategyDefinition], event: &TestEvent, tally: &mut Tally) -> Outcome {
    let mut seeing: Vec<_> = strategies
        .iter()
        .filter(|strategy| matches!(strategy.tenant.as_str(), "*" | "acme"))
        .filter(|strategy| strategy.on == event.kind || strategy.on == ">" || strategy.on == "t.*")
        .collect();
    seeing.sort_by_key(|strategy| (precedence(strategy), &strategy.name));
    let mut matching = Vec::new();
    let mut near = Vec::new();
    for strategy in seeing {
        let fits = strategy.pattern.as_ref().is_none_or(|pattern| {
            let holds = group(members(pattern), Some(&event.whole), tally);
            tally.pairs += 1;
            tally.held += u64::from(holds);
            holds
        });
        let failed = fits && strategy.when.as_deref() == Some("event.nothing == 1");
        if fits && !failed && strategy.when.as_deref() != Some("false") {
            matching.push(strategy);
        } else {
            near.push((strategy.name.clone(), failed));
        }
    }
    if matching.is_empty() {
        near.truncate(NEAR_MISSES_MAX);
        return Outcome::Unmatched(near);
    }
    let (beside, rivals): (Vec<_>, Vec<_>) =
        matching.into_iter().partition(|strategy| strategy.fan_out);
    let highest = rivals.first().map(|strategy| precedence(strategy));
    // As many tickets as its weight for each.
    let tickets: Vec<_> = rivals
        .into_iter()
        .filter(|strategy| Some(precedence(strategy)) == highest)
        .flat_map(|strategy| (0..strategy.weight).map(move |_| strategy))
        .collect();
    let winner = (!tickets.is_empty()).then(|| tickets[ticket(event, tickets.len())]);
    let starts = winner.filter(|winner| winner.action != Action::Ignore);
    match (winner, starts) {
        (Some(winner), None) if beside.is_empty() => Outcome::Ignored(winner.name.clone()),
        _ => Outcome::Start(
            starts.into_iter().chain(beside).map(|strategy| strategy.name.clone()).collect(),
        ),
    }
}

/// The highest priority first, then who asks more: a tenant by name, a type without a
/// wildcard, more tokens of a type, more fields of a pattern, a condition.
fn precedence(
    strategy: &StrategyDefinition,
) -> std::cmp::Reverse<(i64, bool, bool, usize, usize, bool)> {
    let literals = strategy.on.split('.').filter(|token| !["*", ">"].contains(token)).count();
    let exact = literals == strategy.on.split('.').count();
    let fields = strategy.pattern.as_ref().map_or(0, |pattern| fields(members(pattern)));
    let (priority, tenant) = (strategy.priority, strategy.tenant != "*");
    std::cmp::Reverse((priority, tenant, exact, literals, fields, strategy.when.is_some()))
}

fn fields(pattern: &Map<String, Value>) -> usize {
    let mut count = 0;
    for (name, wanted) in pattern {
        count += match wanted {
            Value::Array(branches) if name == "$or" => {
                branches.iter().map(|branch| fields(members(branch))).min().unwrap_or(0)
            }
            Value::Object(inside) => fields(inside),
            _ => 1,
        };
    }
    count
}

/// The ticket that the event's key draws.
fn ticket(event: &TestEvent, tickets: usize) -> usize {
    use fermata_core::event::{EventLimits, Subject, decode_message};
    let subject = Subject { tenant: "acme", kind: &event.kind };
    let decoded = decode_message(None, event.text.as_bytes(), subject, &EventLimits::default());
    let key = decoded[0].as_ref().expect("the event is sound").idempotency();
    usize::try_from(key % tickets as u128).expect("a ticket's number is small")
}

fn members(pattern: &Value) -> &Map<String, Value> {
    pattern.as_object().expect("a pattern is an object")
}

/// All fields must match; of a list, all fields of one value.
fn group(pattern: &Map<String, Value>, value: Option<&Document>, tally: &mut Tally) -> bool {
    if let Some(Document::List(values)) = value
        && !values.is_empty()
    {
        return values.iter().any(|value| group(pattern, Some(value), tally));
    }
    pattern.iter().all(|(name, wanted)| match wanted {
        Value::Array(branches) if name == "$or" => {
            branches.iter().any(|branch| group(members(branch), value, tally))
        }
        Value::Array(wanted) => {
            let value = value.and_then(|value| value.field(name));
            one_of(wanted, value, tally)
        }
        inside => group(members(inside), value.and_then(|value| value.field(name)), tally),
    })
}

fn one_of(wanted: &[Value], value: Option<&Document>, tally: &mut Tally) -> bool {
    let mut scalars = Vec::new();
    value.into_iter().for_each(|value| collect(value, &mut scalars));
    wanted.iter().any(|wanted| {
        let absent = *wanted == serde_json::json!({ "exists": false });
        let holds = if absent {
            scalars.is_empty()
        } else {
            scalars.iter().any(|scalar| holds(wanted, scalar))
        };
        let operator = wanted.as_object().and_then(|operator| operator.keys().next());
        let operator = operator.map_or("value", |name| name);
        if holds {
            *tally.operators.entry(operator.to_owned()).or_default() += 1;
        }
        holds
    })
}

fn collect<'d>(value: &'d Document, scalars: &mut Vec<&'d Document>) {
    match value {
        Document::List(values) => values.iter().for_each(|value| collect(value, scalars)),
        Document::Object(_) => {}
        scalar => scalars.push(scalar),
    }
}

/// Whether a value of a pattern's list holds for a scalar of the event.
fn holds(wanted: &Value, found: &Document) -> bool {
    let Value::Object(operator) = wanted else { return equals(wanted, found) };
    let (name, operand) = operator.iter().next().expect("an operator has a name");
    match (name.as_str(), found) {
        ("exists", _) => operand == &Value::Bool(true),
        ("anything-but", _) => !listed(operand).iter().any(|value| holds(value, found)),
        ("numeric", Document::Number(number)) => {
            let pairs = operand.as_array().expect("comparisons are listed");
            pairs.chunks(2).all(|pair| {
                let order = compare(number, &pair[1].to_string());
                match pair[0].as_str() {
                    Some("<") => order.is_lt(),
                    Some("<=") => order.is_le(),
                    Some(">") => order.is_gt(),
                    Some(">=") => order.is_ge(),
                    _ => order.is_eq(),
                }
            })
        }
        ("prefix" | "suffix" | "equals-ignore-case", Document::Text(found)) => {
            let any_case = operand.get("equals-ignore-case").or(Some(operand));
            let any_case = any_case.filter(|_| operand.is_object() || name == "equals-ignore-case");
            let (found, wanted) = match any_case.and_then(Value::as_str) {
                Some(wanted) => (lower(found), lower(wanted)),
                None => (found.clone(), operand.as_str().unwrap_or_default().to_owned()),
            };
            match name.as_str() {
                "prefix" => found.starts_with(&wanted),
                "suffix" => found.ends_with(&wanted),
                _ => found == wanted,
            }
        }
        ("wildcard", Document::Text(found)) => {
            let wanted: Vec<char> = operand.as_str().unwrap_or_default().chars().collect();
            is_like(&wanted, &found.chars().collect::<Vec<_>>())
        }
        ("cidr", Document::Text(found)) => {
            let (network, length) =
                operand.as_str().and_then(|text| text.split_once('/')).expect("a length");
            let length: usize = length.parse().expect("the length is a number");
            match (bits(network), bits(found)) {
                (Some(network), Some(found)) => {
                    network.len() == found.len() && network[..length] == found[..length]
                }
                _ => false,
            }
        }
        _ => false,
    }
}

/// What is negated, as values and operators with one operand each.
fn listed(operand: &Value) -> Vec<Value> {
    match operand {
        Value::Array(values) => values.clone(),
        Value::Object(operator) => {
            let (name, operand) = operator.iter().next().expect("an operator has a name");
            let operands = operand.as_array().cloned().unwrap_or_else(|| vec![operand.clone()]);
            operands.into_iter().map(|operand| serde_json::json!({ name: operand })).collect()
        }
        value => vec![value.clone()],
    }
}

fn equals(wanted: &Value, found: &Document) -> bool {
    match (wanted, found) {
        (Value::Null, Document::Null) => true,
        (Value::Bool(wanted), Document::Truth(found)) => wanted == found,
        (Value::String(wanted), Document::Text(found)) => wanted == found,
        (Value::Number(wanted), Document::Number(found)) => {
            compare(found, &wanted.to_string()).is_eq()
        }
        _ => false,
    }
}

fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

fn is_like(wanted: &[char], found: &[char]) -> bool {
    match (wanted, found) {
        ([], found) => found.is_empty(),
        (['*', wanted @ ..], found) => {
            (0..=found.len()).any(|skipped| is_like(wanted, &found[skipped..]))
        }
        (['\\', character, wanted @ ..], [first, found @ ..]) => {
            character == first && is_like(wanted, found)
        }
        ([character, wanted @ ..], [first, found @ ..]) => {
            character == first && is_like(wanted, found)
        }
        (_, []) => false,
    }
}

/// The bits of an address.
fn bits(text: &str) -> Option<Vec<bool>> {
    let octets = match text.parse().ok()? {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    Some(
        octets
            .iter()
            .flat_map(|octet| (0..8).map(move |bit| octet >> (7 - bit) & 1 == 1))
            .collect(),
    )
}

/// Compares two numbers as fractions of a power of ten.
fn compare(one: &str, two: &str) -> Ordering {
    let ((one, one_exponent), (two, two_exponent)) = (fraction(one), fraction(two));
    if one.signum() != two.signum() || one == 0 {
        return one.signum().cmp(&two.signum());
    }
    let size = |digits: i128, exponent: i32| {
        exponent + i32::try_from(digits.unsigned_abs().to_string().len()).expect("few digits")
    };
    let by_size = size(one, one_exponent).cmp(&size(two, two_exponent));
    let order = by_size.then_with(|| {
        let lowest = one_exponent.min(two_exponent);
        let scaled = |digits: i128, exponent: i32| {
            let places = u32::try_from(exponent - lowest).expect("not below the lowest");
            digits.abs() * 10_i128.pow(places)
        };
        scaled(one, one_exponent).cmp(&scaled(two, two_exponent))
    });
    if one < 0 { order.reverse() } else { order }
}

/// Digits and the power of ten that they are multiplied by.
fn fraction(text: &str) -> (i128, i32) {
    let lower = text.to_lowercase();
    let (digits, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let exponent: i32 = exponent.parse().expect("the exponent is small");
    let places = digits.split_once('.').map_or(0, |(_, places)| places.len());
    let digits: i128 = digits.replace('.', "").parse().expect("the digits are few");
    (digits, exponent - i32::try_from(places).expect("the digits are few"))
}
