//! Ranges of numbers.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Bound;

use crate::event::number::Number;

/// Numbers from one bound to another, at least one of which there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::strategy) struct Range {
    pub lower: Bound<Number<'static>>,
    pub upper: Bound<Number<'static>>,
}

impl Range {
    pub fn contains(&self, number: &Number<'_>) -> bool {
        begins_by(&self.lower, number) && ends_after(&self.upper, number)
    }

    /// Whether no number is in it.
    pub fn is_empty(&self) -> bool {
        match (&self.lower, &self.upper) {
            (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
            (Bound::Included(lower) | Bound::Excluded(lower), Bound::Excluded(upper))
            | (Bound::Excluded(lower), Bound::Included(upper)) => lower >= upper,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        }
    }
}

/// Whether a range with this lower bound has begun at `number`.
pub(in crate::strategy) fn begins_by(lower: &Bound<Number<'static>>, number: &Number<'_>) -> bool {
    match lower {
        Bound::Included(bound) => bound <= number,
        Bound::Excluded(bound) => bound < number,
        Bound::Unbounded => true,
    }
}

/// Whether a range with this upper bound has not ended before `number`.
pub(in crate::strategy) fn ends_after(upper: &Bound<Number<'static>>, number: &Number<'_>) -> bool {
    match upper {
        Bound::Included(bound) => bound >= number,
        Bound::Excluded(bound) => bound > number,
        Bound::Unbounded => true,
    }
}

/// Which of two lower bounds lets numbers in first.
pub(in crate::strategy) fn compare_lower(
    one: &Bound<Number<'static>>,
    two: &Bound<Number<'static>>,
) -> Ordering {
    match (one, two) {
        (Bound::Unbounded, Bound::Unbounded) => Ordering::Equal,
        (Bound::Unbounded, _) => Ordering::Less,
        (_, Bound::Unbounded) => Ordering::Greater,
        (Bound::Included(one), Bound::Included(two))
        | (Bound::Excluded(one), Bound::Excluded(two)) => one.cmp(two),
        (Bound::Included(one), Bound::Excluded(two)) => one.cmp(two).then(Ordering::Less),
        (Bound::Excluded(one), Bound::Included(two)) => one.cmp(two).then(Ordering::Greater),
    }
}

/// Which of two upper bounds keeps numbers out first.
pub(in crate::strategy) fn compare_upper(
    one: &Bound<Number<'static>>,
    two: &Bound<Number<'static>>,
) -> Ordering {
    match (one, two) {
        (Bound::Unbounded, Bound::Unbounded) => Ordering::Equal,
        (Bound::Unbounded, _) => Ordering::Greater,
        (_, Bound::Unbounded) => Ordering::Less,
        (Bound::Included(one), Bound::Included(two))
        | (Bound::Excluded(one), Bound::Excluded(two)) => one.cmp(two),
        (Bound::Included(one), Bound::Excluded(two)) => one.cmp(two).then(Ordering::Greater),
        (Bound::Excluded(one), Bound::Included(two)) => one.cmp(two).then(Ordering::Less),
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Bound::Included(lower), Bound::Included(upper)) = (&self.lower, &self.upper)
            && lower == upper
        {
            return write!(formatter, "= {}", lower.as_str());
        }
        let lower = match &self.lower {
            Bound::Included(bound) => Some((">=", bound)),
            Bound::Excluded(bound) => Some((">", bound)),
            Bound::Unbounded => None,
        };
        let upper = match &self.upper {
            Bound::Included(bound) => Some(("<=", bound)),
            Bound::Excluded(bound) => Some(("<", bound)),
            Bound::Unbounded => None,
        };
        for (place, (operator, bound)) in lower.into_iter().chain(upper).enumerate() {
            let and = if place == 0 { "" } else { " and " };
            write!(formatter, "{and}{operator} {}", bound.as_str())?;
        }
        Ok(())
    }
}
