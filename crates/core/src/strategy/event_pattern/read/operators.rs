//! Values and operators.

use std::ops::Bound;

use serde_json::Value;

use super::super::network::Network;
use super::super::predicate::{Folded, Literal, Predicate};
use super::super::range::Range;
use super::super::wildcard::Wildcard;
use super::super::{
    PATTERN_ALTERNATIVES_MAX, PATTERN_DIGITS_MAX, PATTERN_TEXT_BYTES_MAX, WILDCARD_STARS_MAX,
};
use super::{Reader, kind};
use crate::event::number::Number;

const OPERATORS: &str = "`prefix`, `suffix`, `wildcard`, `exists`, `anything-but`, `numeric`, \
                         `cidr` and `equals-ignore-case`";

impl Reader {
    pub(super) fn predicate(&mut self, path: &str, value: &Value) -> Option<Predicate> {
        let Value::Object(members) = value else {
            return self.literal(path, value).map(Predicate::Equals);
        };
        let mut entries = members.iter();
        let (Some((operator, operand)), None) = (entries.next(), entries.next()) else {
            let message = format!("expected one operator, found {}", members.len());
            self.report(path, message, Some(&format!("known are {OPERATORS}")));
            return None;
        };
        let path = &format!("{path}.{operator}");
        match operator.as_str() {
            "prefix" | "suffix" | "equals-ignore-case" | "wildcard" => {
                self.text_predicate(path, operator, operand)
            }
            "exists" => {
                let wanted = operand.as_bool();
                if wanted.is_none() {
                    let message = format!("expected true or false, found {}", kind(operand));
                    self.report(path, message, None);
                }
                wanted.map(Predicate::Exists)
            }
            "numeric" => self.numeric(path, operand).map(Predicate::Numeric),
            "cidr" => {
                let text = self.text(path, operand)?;
                match Network::read(text) {
                    Ok(network) => Some(Predicate::Cidr(network)),
                    Err((message, hint)) => {
                        self.report(path, message, hint.as_deref());
                        None
                    }
                }
            }
            "anything-but" => self.anything_but(path, operand).map(Predicate::AnythingBut),
            other => {
                let shown: String = other.chars().take(80).collect();
                let hint = format!("known are {OPERATORS}");
                self.report(path, format!("`{shown}` is no operator"), Some(&hint));
                None
            }
        }
    }

    fn text_predicate(&mut self, path: &str, operator: &str, operand: &Value) -> Option<Predicate> {
        if let Some((inner, folded)) = ignoring_case(operand)
            && matches!(operator, "prefix" | "suffix")
        {
            let text = Folded::new(self.text(&format!("{path}.{inner}"), folded)?);
            return Some(match operator {
                "prefix" => Predicate::PrefixIgnoreCase(text),
                _ => Predicate::SuffixIgnoreCase(text),
            });
        }
        let text = self.text(path, operand)?;
        match operator {
            "equals-ignore-case" => Some(Predicate::EqualsIgnoreCase(Folded::new(text))),
            "wildcard" => self.wildcard(path, text),
            "prefix" => Some(Predicate::Prefix(text.into())),
            _ => Some(Predicate::Suffix(text.into())),
        }
        .filter(|_| {
            let empty = text.is_empty() && operator != "equals-ignore-case";
            if empty {
                let hint = "`exists: true` holds for every value";
                self.report(path, format!("`{operator}` is empty"), Some(hint));
            }
            !empty
        })
    }

    fn wildcard(&mut self, path: &str, text: &str) -> Option<Predicate> {
        let wildcard = match Wildcard::read(text) {
            Ok(wildcard) => wildcard,
            Err(rule) => {
                self.report(path, rule, None);
                return None;
            }
        };
        let (stars, max) = (wildcard.stars(), WILDCARD_STARS_MAX);
        if usize::try_from(stars).is_ok_and(|stars| stars <= max) {
            return Some(Predicate::Wildcard(wildcard));
        }
        self.report(path, format!("the wildcard has {stars} `*`, the limit is {max}"), None);
        None
    }

    fn anything_but(&mut self, path: &str, operand: &Value) -> Option<Vec<Predicate>> {
        match operand {
            Value::Array(values) => {
                let found = self.each(path, values, |reader, path, value| {
                    reader.literal(path, value).map(Predicate::Equals)
                });
                found.filter(|found| found.len() == values.len())
            }
            Value::Object(members) => {
                let mut entries = members.iter();
                let known = ["prefix", "suffix", "equals-ignore-case", "wildcard"];
                let entry = (entries.next(), entries.next());
                let (Some((operator, operand)), None) = entry else {
                    self.report(path, "expected one operator", None);
                    return None;
                };
                let path = &format!("{path}.{operator}");
                if !known.contains(&operator.as_str()) {
                    let hint = format!("known here are `{}`", known.join("`, `"));
                    self.report(path, format!("`{operator}` cannot be negated"), Some(&hint));
                    return None;
                }
                let Value::Array(values) = operand else {
                    self.values += 1;
                    return self.text_predicate(path, operator, operand).map(|one| vec![one]);
                };
                self.each(path, values, |reader, path, value| {
                    reader.text_predicate(path, operator, value)
                })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.values += 1;
                Some(vec![Predicate::Equals(self.literal(path, operand)?)])
            }
        }
    }

    /// Reads each value of a list, which has some.
    pub(super) fn each(
        &mut self,
        path: &str,
        values: &[Value],
        mut read: impl FnMut(&mut Self, &str, &Value) -> Option<Predicate>,
    ) -> Option<Vec<Predicate>> {
        if !(1..=PATTERN_ALTERNATIVES_MAX).contains(&values.len()) {
            let count = values.len();
            let message =
                format!("the list has {count} values; it needs 1 to {PATTERN_ALTERNATIVES_MAX}");
            self.report(path, message, None);
            return None;
        }
        self.values += values.len();
        let values = values.iter().enumerate();
        Some(values.filter_map(|(at, value)| read(self, &format!("{path}[{at}]"), value)).collect())
    }

    fn literal(&mut self, path: &str, value: &Value) -> Option<Literal> {
        match value {
            Value::Null => Some(Literal::Null),
            Value::Bool(value) => Some(Literal::Truth(*value)),
            Value::Number(number) => self.number(path, number).map(Literal::Number),
            Value::String(_) => self.text(path, value).map(|text| Literal::Text(text.into())),
            Value::Array(_) | Value::Object(_) => {
                let message = format!("expected a value, found {}", kind(value));
                let hint = "a value is a text, a number, true, false, null or an operator";
                self.report(path, message, Some(hint));
                None
            }
        }
    }

    fn number(&mut self, path: &str, number: &serde_json::Number) -> Option<Number<'static>> {
        let read = Number::new(number.to_string())?;
        let exact = number.is_i64() || number.is_u64();
        if exact || read.significant_digits() <= PATTERN_DIGITS_MAX {
            return Some(read);
        }
        let message = format!(
            "the number has more than {PATTERN_DIGITS_MAX} digits and is no integer of 64 bits"
        );
        self.report(path, message, Some("compare it in `when`, or send it as a text"));
        None
    }

    fn text<'v>(&mut self, path: &str, value: &'v Value) -> Option<&'v str> {
        match value {
            Value::String(text) if text.len() <= PATTERN_TEXT_BYTES_MAX => Some(text),
            Value::String(_) => {
                let message = format!("the text is longer than {PATTERN_TEXT_BYTES_MAX} bytes");
                self.report(path, message, None);
                None
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                let message = format!("expected a text, found {}", kind(value));
                self.report(path, message, None);
                None
            }
        }
    }

    fn numeric(&mut self, path: &str, operand: &Value) -> Option<Range> {
        const HINT: &str = "write one comparison or two: `[\">\", 0]`, `[\">=\", 0, \"<\", 10]`";
        let Value::Array(parts) = operand else {
            self.report(path, format!("expected a list, found {}", kind(operand)), Some(HINT));
            return None;
        };
        let mut range = Range { lower: Bound::Unbounded, upper: Bound::Unbounded };
        let mut sound = matches!(parts.len(), 2 | 4);
        for pair in parts.chunks_exact(2) {
            let [Value::String(operator), Value::Number(number)] = pair else {
                sound = false;
                continue;
            };
            let number = self.number(path, number)?;
            let open = |bound: &Bound<_>| matches!(bound, Bound::Unbounded);
            match operator.as_str() {
                ">" if open(&range.lower) => range.lower = Bound::Excluded(number),
                ">=" if open(&range.lower) => range.lower = Bound::Included(number),
                "<" if open(&range.upper) => range.upper = Bound::Excluded(number),
                "<=" if open(&range.upper) => range.upper = Bound::Included(number),
                "=" if parts.len() == 2 => {
                    range.lower = Bound::Included(number.clone());
                    range.upper = Bound::Included(number);
                }
                _ => sound = false,
            }
        }
        if !sound {
            self.report(path, "this is no comparison with numbers", Some(HINT));
        } else if range.is_empty() {
            self.report(path, "no number is in this range", None);
            sound = false;
        }
        sound.then_some(range)
    }
}

fn ignoring_case(operand: &Value) -> Option<(&str, &Value)> {
    let Value::Object(members) = operand else { return None };
    let (name, text) = members.iter().next()?;
    (members.len() == 1 && name == "equals-ignore-case").then_some((name, text))
}
