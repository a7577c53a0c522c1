//! JSON numbers, compared by what they say and not by what a double holds of it.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::iter;

/// A JSON number. `1e2` equals `100`, and every digit of a long one counts.
#[derive(Debug, Clone)]
pub(crate) struct Number<'a> {
    text: Cow<'a, str>,
    /// The double closest to it. Rounding keeps order, so that doubles that
    /// differ decide, and only numbers with the same one need their digits.
    nearest: f64,
}

impl<'a> Number<'a> {
    /// The number that `text` says; nothing when it is no JSON number.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Option<Self> {
        let text = text.into();
        let nearest: f64 = text.parse().ok()?;
        // The parser takes `inf` and `nan` too, which JSON does not know; and
        // adding zero takes the sign off a negative zero.
        let is_json = text.bytes().last().is_some_and(|byte| byte.is_ascii_digit());
        is_json.then_some(Self { text, nearest: nearest + 0.0 })
    }

    /// What equal numbers have in common; others may have it too.
    pub fn key(&self) -> u64 {
        self.nearest.to_bits()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How many digits matter: neither leading nor trailing zeros do.
    pub fn significant_digits(&self) -> usize {
        let digits = Decimal::of(&self.text);
        let count = digits.significant().count();
        let zeros = digits.significant().collect::<Vec<_>>().into_iter().rev();
        count - zeros.take_while(|digit| *digit == b'0').count()
    }
}

impl Ord for Number<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nearest
            .partial_cmp(&other.nearest)
            .filter(|order| order.is_ne())
            .unwrap_or_else(|| compare_digits(&self.text, &other.text))
    }
}

impl PartialOrd for Number<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number<'_> {}

fn compare_digits(one: &str, two: &str) -> Ordering {
    if one == two {
        return Ordering::Equal;
    }
    let (one, two) = (Decimal::of(one), Decimal::of(two));
    match (one.sign(), two.sign()) {
        (-1, -1) => two.compare_size(&one),
        (1, 1) => one.compare_size(&two),
        (one, two) => one.cmp(&two),
    }
}

/// The parts of a number's text.
struct Decimal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn of(text: &'a str) -> Self {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        // Out of range only where the number is infinite or zero for any double.
        let beyond = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
        let exponent = exponent.parse().unwrap_or(beyond);
        Self { negative, whole, fraction, exponent }
    }

    fn leading_zeros(&self) -> usize {
        self.digits().take_while(|digit| *digit == b'0').count()
    }

    fn digits(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    fn significant(&self) -> impl Iterator<Item = u8> + use<'a> {
        self.digits().skip_while(|digit| *digit == b'0')
    }

    fn sign(&self) -> i8 {
        match (self.significant().next(), self.negative) {
            (None, _) => 0,
            (Some(_), true) => -1,
            (Some(_), false) => 1,
        }
    }

    /// Where the first digit that matters stands, the unit's place being 1.
    fn magnitude(&self) -> i64 {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX / 4);
        (count(self.whole.len()) - count(self.leading_zeros())).saturating_add(self.exponent)
    }

    /// Compares two that are not zero, signs aside.
    fn compare_size(&self, other: &Self) -> Ordering {
        let places = self.whole.len() + self.fraction.len();
        let places = places.max(other.whole.len() + other.fraction.len());
        let digits = |decimal: &Self| decimal.significant().chain(iter::repeat(b'0')).take(places);
        self.magnitude().cmp(&other.magnitude()).then_with(|| digits(self).cmp(digits(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number<'_> {
        Number::new(text).unwrap()
    }

    #[test]
    fn a_number_is_what_it_says_however_it_is_written() {
        for (one, two) in [
            ("100", "1e2"),
            ("100", "1.00E+2"),
            ("-0", "0.000"),
            ("0e999999999999999999999", "0"),
            ("0.1", "1e-1"),
            ("1200e-2", "12.0"),
            ("12345678901234567890123", "1234567890123456789012.3e1"),
        ] {
            assert_eq!(number(one), number(two), "{one} {two}");
        }
    }

    #[test]
    fn every_digit_counts() {
        for (less, more) in [
            ("9007199254740992", "9007199254740993"),
            ("-9007199254740993", "-9007199254740992"),
            ("0.1", "0.1000000000000000000001"),
            ("-1", "1"),
            ("-1e-400", "0"),
            ("0", "1e-400"),
            ("1e308", "1e999"),
            ("1e999", "1e99999999999999999999"),
            ("9", "10"),
            ("1e-400", "2e-400"),
        ] {
            assert_eq!(number(less).cmp(&number(more)), Ordering::Less, "{less} {more}");
            assert_eq!(number(more).cmp(&number(less)), Ordering::Greater, "{less} {more}");
        }
    }

    #[test]
    fn what_json_does_not_know_is_no_number() {
        for text in ["inf", "nan", "", "-", "x"] {
            assert!(Number::new(text).is_none(), "{text}");
        }
        assert_eq!(number("-00120.50").significant_digits(), 4);
        assert_eq!(number("0").significant_digits(), 0);
    }
}
