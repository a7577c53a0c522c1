//! Operators on values.

use std::cmp::Ordering;
use std::rc::Rc;

use super::datum::{Datum, Fuel, Key};
use super::scope::EvaluationError;
use super::tree::Operator;

type Evaluated<'a> = Result<Datum<'a>, EvaluationError>;

pub(super) fn wrong_type(
    operation: &'static str,
    operands: &[&Datum<'_>],
    hint: &'static str,
) -> EvaluationError {
    let names: Vec<_> = operands.iter().map(|operand| operand.type_name()).collect();
    EvaluationError::WrongType { operation, operands: names.join(" and "), hint }
}

fn out_of_range(operation: &'static str, reason: &'static str) -> EvaluationError {
    EvaluationError::OutOfRange { operation, reason }
}

pub(super) fn binary<'a>(
    operator: Operator,
    left: &Datum<'a>,
    right: &Datum<'a>,
    fuel: &mut Fuel,
) -> Evaluated<'a> {
    match operator {
        Operator::Add => add(left, right, fuel),
        Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => {
            arithmetic(operator, left, right)
        }
        Operator::Equal => Ok(Datum::Bool(equal(left, right, fuel)?)),
        Operator::NotEqual => Ok(Datum::Bool(!equal(left, right, fuel)?)),
        Operator::Less => ordered(operator, left, right, fuel, Ordering::is_lt),
        Operator::LessOrEqual => ordered(operator, left, right, fuel, Ordering::is_le),
        Operator::Greater => ordered(operator, left, right, fuel, Ordering::is_gt),
        Operator::GreaterOrEqual => ordered(operator, left, right, fuel, Ordering::is_ge),
        Operator::In => contains(left, right, fuel),
    }
}

fn add<'a>(left: &Datum<'a>, right: &Datum<'a>, fuel: &mut Fuel) -> Evaluated<'a> {
    match (left, right) {
        (Datum::Text(left), Datum::Text(right)) => {
            let (left, right) = (left.as_str(), right.as_str());
            fuel.bytes(left.len().saturating_add(right.len()))?;
            Ok(Datum::text([left, right].concat()))
        }
        (Datum::List(_) | Datum::JsonList(_), Datum::List(_) | Datum::JsonList(_)) => {
            let mut items = left.range(fuel)?.unwrap_or_default();
            items.extend(right.range(fuel)?.unwrap_or_default());
            Ok(Datum::List(Rc::new(items)))
        }
        _ => arithmetic(Operator::Add, left, right),
    }
}

/// Arithmetic within one type, as CEL has it: nothing is converted silently.
fn arithmetic<'a>(operator: Operator, left: &Datum<'a>, right: &Datum<'a>) -> Evaluated<'a> {
    let Some(functions) = Arithmetic::of(operator) else {
        return Err(wrong_type(operator.symbol(), &[left, right], ""));
    };
    let checked = |result: Option<Datum<'a>>, right_is_zero: bool| {
        let divides = matches!(operator, Operator::Divide | Operator::Remainder);
        let reason = if right_is_zero && divides {
            "division by zero"
        } else {
            "the number is out of range"
        };
        result.ok_or_else(|| out_of_range(operator.symbol(), reason))
    };
    match (left, right, functions.double) {
        (Datum::Int(left), Datum::Int(right), _) => {
            checked((functions.int)(*left, *right).map(Datum::Int), *right == 0)
        }
        (Datum::Uint(left), Datum::Uint(right), _) => {
            checked((functions.uint)(*left, *right).map(Datum::Uint), *right == 0)
        }
        (Datum::Double(left), Datum::Double(right), Some(double)) => {
            Ok(Datum::Double(double(*left, *right)))
        }
        _ => {
            let text = matches!(left, Datum::Text(_)) || matches!(right, Datum::Text(_));
            let hint = if is_number(left) && is_number(right) {
                "; convert one of them with `int(…)` or `double(…)`"
            } else if text && operator == Operator::Add {
                "; convert the other with `string(…)`"
            } else {
                ""
            };
            Err(wrong_type(operator.symbol(), &[left, right], hint))
        }
    }
}

/// One arithmetic operator on each type of number.
struct Arithmetic {
    int: fn(i64, i64) -> Option<i64>,
    uint: fn(u64, u64) -> Option<u64>,
    /// CEL has no remainder of doubles.
    double: Option<fn(f64, f64) -> f64>,
}

impl Arithmetic {
    fn of(operator: Operator) -> Option<Self> {
        use std::ops::{Add as _, Div as _, Mul as _, Sub as _};
        if operator == Operator::Add {
            Some(Self { int: i64::checked_add, uint: u64::checked_add, double: Some(f64::add) })
        } else if operator == Operator::Subtract {
            Some(Self { int: i64::checked_sub, uint: u64::checked_sub, double: Some(f64::sub) })
        } else if operator == Operator::Multiply {
            Some(Self { int: i64::checked_mul, uint: u64::checked_mul, double: Some(f64::mul) })
        } else if operator == Operator::Divide {
            Some(Self { int: i64::checked_div, uint: u64::checked_div, double: Some(f64::div) })
        } else if operator == Operator::Remainder {
            Some(Self { int: i64::checked_rem, uint: u64::checked_rem, double: None })
        } else {
            None
        }
    }
}

fn is_number(datum: &Datum<'_>) -> bool {
    matches!(datum, Datum::Int(_) | Datum::Uint(_) | Datum::Double(_))
}

pub(super) fn negate<'a>(operand: &Datum<'a>) -> Evaluated<'a> {
    if let Datum::Int(value) = operand {
        let negated = value.checked_neg().map(Datum::Int);
        negated.ok_or_else(|| out_of_range("-", "the number is out of range"))
    } else if let Datum::Double(value) = operand {
        Ok(Datum::Double(-value))
    } else {
        Err(wrong_type("-", &[operand], ""))
    }
}

/// Numbers of different types are equal when they are the same number; other
/// values of different types are not equal.
pub(super) fn equal(
    left: &Datum<'_>,
    right: &Datum<'_>,
    fuel: &mut Fuel,
) -> Result<bool, EvaluationError> {
    fuel.step()?;
    Ok(match (left, right) {
        (Datum::Null, Datum::Null) => true,
        (Datum::Bool(left), Datum::Bool(right)) => left == right,
        (Datum::Text(left), Datum::Text(right)) => {
            let (left, right) = (left.as_str(), right.as_str());
            if left.len() == right.len() {
                fuel.bytes(left.len())?;
            }
            left == right
        }
        _ if is_number(left) && is_number(right) => {
            compare_numbers(left, right) == Some(Ordering::Equal)
        }
        _ => match (left.length(), right.length()) {
            (Some(length), Some(other)) if length == other && left.is_map() == right.is_map() => {
                if left.is_map() {
                    return equal_maps(left, right, fuel);
                }
                for index in 0..length {
                    let (Some(left), Some(right)) = (left.item(index), right.item(index)) else {
                        return Ok(false);
                    };
                    if !equal(&left, &right, fuel)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => false,
        },
    })
}

/// Maps of the same length.
fn equal_maps<'a>(
    left: &Datum<'a>,
    right: &Datum<'a>,
    fuel: &mut Fuel,
) -> Result<bool, EvaluationError> {
    for key in left.range(fuel)?.unwrap_or_default() {
        let Some(key) = key.key() else { return Ok(false) };
        let (Some(left), Some(right)) = (left.entry(&key), right.entry(&key)) else {
            return Ok(false);
        };
        if !equal(&left, &right, fuel)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn ordered<'a>(
    operator: Operator,
    left: &Datum<'a>,
    right: &Datum<'a>,
    fuel: &mut Fuel,
    holds: fn(Ordering) -> bool,
) -> Evaluated<'a> {
    let ordering = match (left, right) {
        (Datum::Bool(left), Datum::Bool(right)) => Some(left.cmp(right)),
        (Datum::Text(left), Datum::Text(right)) => {
            let (left, right) = (left.as_str(), right.as_str());
            fuel.bytes(left.len().min(right.len()))?;
            Some(left.cmp(right))
        }
        _ if is_number(left) && is_number(right) => {
            // Nothing is less or greater than what is no number.
            return Ok(Datum::Bool(compare_numbers(left, right).is_some_and(holds)));
        }
        _ => None,
    };
    match ordering {
        Some(ordering) => Ok(Datum::Bool(holds(ordering))),
        None => Err(wrong_type(operator.symbol(), &[left, right], "")),
    }
}

/// Compares two numbers by value, without rounding either.
fn compare_numbers(left: &Datum<'_>, right: &Datum<'_>) -> Option<Ordering> {
    match (left, right) {
        (Datum::Double(left), Datum::Double(right)) => left.partial_cmp(right),
        (Datum::Double(left), right) => compare_whole(whole(right)?, *left).map(Ordering::reverse),
        (left, Datum::Double(right)) => compare_whole(whole(left)?, *right),
        (left, right) => Some(whole(left)?.cmp(&whole(right)?)),
    }
}

fn whole(number: &Datum<'_>) -> Option<i128> {
    if let Datum::Int(value) = number {
        Some(i128::from(*value))
    } else if let Datum::Uint(value) = number {
        Some(i128::from(*value))
    } else {
        None
    }
}

fn compare_whole(whole: i128, double: f64) -> Option<Ordering> {
    // Every 64-bit integer lies well inside these bounds, and every double
    // inside of them has an exact whole part.
    const BOUND: f64 = 1e30;
    if double.is_nan() {
        return None;
    }
    if double.abs() > BOUND {
        return Some(if double > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    #[expect(clippy::cast_possible_truncation, reason = "the bound was checked above")]
    let floor = double.floor() as i128;
    Some(whole.cmp(&floor).then(if double.fract() == 0.0 {
        Ordering::Equal
    } else {
        Ordering::Less
    }))
}

fn contains<'a>(item: &Datum<'a>, container: &Datum<'a>, fuel: &mut Fuel) -> Evaluated<'a> {
    if container.is_map() {
        let found = item.key().is_some_and(|key| container.entry(&key).is_some());
        return Ok(Datum::Bool(found));
    }
    let Some(length) = container.length() else {
        return Err(wrong_type("in", &[item, container], ""));
    };
    for index in 0..length {
        if let Some(candidate) = container.item(index)
            && equal(item, &candidate, fuel)?
        {
            return Ok(Datum::Bool(true));
        }
    }
    Ok(Datum::Bool(false))
}

pub(super) fn index<'a>(operand: &Datum<'a>, index: &Datum<'a>, fuel: &mut Fuel) -> Evaluated<'a> {
    fuel.step()?;
    let key = index.key();
    if operand.is_map() {
        let Some(key) = key else { return Err(wrong_type("[]", &[operand, index], "")) };
        return operand.entry(&key).ok_or_else(|| EvaluationError::MissingKey(shown(&key)));
    }
    match (operand.length(), key) {
        (Some(length), Some(Key::Number(place))) => usize::try_from(place)
            .ok()
            .and_then(|place| operand.item(place))
            .ok_or_else(|| EvaluationError::OutOfBounds { index: place.to_string(), length }),
        _ => Err(wrong_type("[]", &[operand, index], "")),
    }
}

/// A key for an error message, of bounded length.
fn shown(key: &Key<'_>) -> String {
    const CHARACTERS_MAX: usize = 80;
    match key {
        Key::Text(text) => text.as_str().chars().take(CHARACTERS_MAX).collect(),
        Key::Bool(_) | Key::Number(_) => key.to_string(),
    }
}
