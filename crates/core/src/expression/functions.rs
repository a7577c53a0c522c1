//! The functions: conversions, sizes and searches. None has a clock, a random
//! number or a regular expression.

use super::datum::{Datum, Fuel};
use super::operators::wrong_type;
use super::scope::EvaluationError;
use super::tree::Function;

type Evaluated<'a> = Result<Datum<'a>, EvaluationError>;

pub(super) fn call<'a>(
    function: Function,
    arguments: &[Datum<'a>],
    fuel: &mut Fuel,
) -> Evaluated<'a> {
    let refused = || {
        let operands: Vec<_> = arguments.iter().collect();
        wrong_type(function.name(), &operands, "")
    };
    match (function, arguments) {
        (Function::Dyn, [value]) => Ok(value.clone()),
        (Function::Size, [value]) => size(value, fuel)?.ok_or_else(refused),
        (Function::Contains, [Datum::Text(text), Datum::Text(part)]) => {
            let (text, part) = (text.as_str(), part.as_str());
            // The search is linear in both (Two-Way).
            fuel.bytes(text.len().saturating_add(part.len()))?;
            Ok(Datum::Bool(text.contains(part)))
        }
        (Function::StartsWith, [Datum::Text(text), Datum::Text(part)]) => {
            fuel.bytes(part.as_str().len())?;
            Ok(Datum::Bool(text.as_str().starts_with(part.as_str())))
        }
        (Function::EndsWith, [Datum::Text(text), Datum::Text(part)]) => {
            fuel.bytes(part.as_str().len())?;
            Ok(Datum::Bool(text.as_str().ends_with(part.as_str())))
        }
        (Function::Text, [value]) => to_text(value).ok_or_else(refused),
        (Function::Int | Function::Uint | Function::Double, [value]) => {
            let parsed = if let Datum::Text(text) = value {
                fuel.bytes(text.as_str().len())?;
                parse(function, text.as_str())
            } else {
                convert(function, value).ok_or_else(refused)?
            };
            parsed.ok_or(EvaluationError::OutOfRange {
                operation: function.name(),
                reason: "the value is no number of that type",
            })
        }
        (Function::Bool, [Datum::Bool(value)]) => Ok(Datum::Bool(*value)),
        (Function::Bool, [Datum::Text(text)]) => match text.as_str() {
            "1" | "t" | "true" | "TRUE" | "True" => Ok(Datum::Bool(true)),
            "0" | "f" | "false" | "FALSE" | "False" => Ok(Datum::Bool(false)),
            _ => Err(EvaluationError::OutOfRange {
                operation: "bool",
                reason: "the text is neither `true` nor `false`",
            }),
        },
        _ => Err(refused()),
    }
}

fn size<'a>(value: &Datum<'a>, fuel: &mut Fuel) -> Result<Option<Datum<'a>>, EvaluationError> {
    let size = if let Datum::Text(text) = value {
        fuel.bytes(text.as_str().len())?;
        Some(text.as_str().chars().count())
    } else {
        value.length()
    };
    Ok(size.map(|size| Datum::Int(i64::try_from(size).unwrap_or(i64::MAX))))
}

fn to_text<'a>(value: &Datum<'a>) -> Option<Datum<'a>> {
    match value {
        Datum::Text(_) => Some(value.clone()),
        Datum::Bool(value) => Some(Datum::text(value.to_string())),
        Datum::Int(value) => Some(Datum::text(value.to_string())),
        Datum::Uint(value) => Some(Datum::text(value.to_string())),
        Datum::Double(value) => Some(Datum::text(value.to_string())),
        Datum::Null | Datum::List(_) | Datum::JsonList(_) | Datum::Map(_) | Datum::JsonMap(_) => {
            None
        }
    }
}

fn parse<'a>(function: Function, text: &str) -> Option<Datum<'a>> {
    if function == Function::Int {
        text.parse().ok().map(Datum::Int)
    } else if function == Function::Uint {
        text.parse().ok().map(Datum::Uint)
    } else {
        text.parse().ok().map(Datum::Double)
    }
}

/// `None` when `value` is no number, `Some(None)` when it does not fit.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the range is checked; rounding to the nearest double and towards zero is the meaning"
)]
fn convert<'a>(function: Function, value: &Datum<'a>) -> Option<Option<Datum<'a>>> {
    const INT_END: f64 = 9_223_372_036_854_775_808.0;
    const UINT_END: f64 = 18_446_744_073_709_551_616.0;
    Some(match (function, value) {
        (Function::Int, Datum::Int(_))
        | (Function::Uint, Datum::Uint(_))
        | (Function::Double, Datum::Double(_)) => Some(value.clone()),
        (Function::Int, Datum::Uint(value)) => i64::try_from(*value).ok().map(Datum::Int),
        (Function::Uint, Datum::Int(value)) => u64::try_from(*value).ok().map(Datum::Uint),
        (Function::Double, Datum::Int(value)) => Some(Datum::Double(*value as f64)),
        (Function::Double, Datum::Uint(value)) => Some(Datum::Double(*value as f64)),
        (Function::Int, Datum::Double(value)) => {
            (*value > -INT_END && *value < INT_END).then_some(Datum::Int(*value as i64))
        }
        (Function::Uint, Datum::Double(value)) => {
            (*value > -1.0 && *value < UINT_END).then_some(Datum::Uint(*value as u64))
        }
        _ => return None,
    })
}
