//! How long a `delay` waits.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The last millisecond of the year 9999, since 1970: RFC 3339 knows no later one.
const MILLISECONDS_1970_TO_9999_MAX: u64 = 253_402_300_799_999;

/// The first millisecond of 2001, since 1970. As seconds, it is the year 32969: a number below is one of
/// seconds, and taken for milliseconds it would be a time in 1970 that is no wait at all.
const NUMBER_MIN: u64 = 978_307_200_000;

/// What a delay waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delay {
    /// So many milliseconds from when the node was ready.
    Milliseconds(u64),
    /// CEL: a point of time as RFC 3339 text or in milliseconds since 1970; one
    /// that has passed is no wait.
    Until(String),
}

/// The point of time, in milliseconds since 1970, that `value` names: a whole
/// number of them from 2001 on, or RFC 3339 text; what lies before 1970 is 1970.
///
/// # Errors
///
/// What `value` should have been.
pub(crate) fn point_of_time(value: &Value) -> Result<u64, String> {
    let found = match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            // CEL's arithmetic may have made a double of a whole number.
            let number = number.as_f64()?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the range is checked; a fraction of a millisecond is dropped"
            )]
            (0.0..2.6e14).contains(&number).then_some(number as u64)
        }),
        Value::String(text) => milliseconds_of_rfc_3339(text),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    if let (Value::Number(_), Some(number)) =
        (value, found.filter(|found| (1..NUMBER_MIN).contains(found)))
    {
        return Err(format!(
            "{number} lies before 2001 as milliseconds since 1970, so it is taken for seconds: multiply them by \
             1000, or give RFC 3339 text such as `2026-11-21T02:02:11Z`"
        ));
    }
    found.filter(|milliseconds| *milliseconds <= MILLISECONDS_1970_TO_9999_MAX).ok_or_else(|| {
        "expected a point of time: RFC 3339 text such as `2026-11-21T02:02:11Z`, or whole \
         milliseconds since 1970"
            .to_owned()
    })
}

/// RFC 3339, section 5.6; a leap second counts as the second that follows it.
fn milliseconds_of_rfc_3339(text: &str) -> Option<u64> {
    if !crate::event::is_rfc3339(text) {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let rest = text.get(19..)?;
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, zone) = rest.split_at_checked(zone)?;
    let digits = fraction.strip_prefix('.').unwrap_or_default();
    let thousandths = format!("{digits}000").get(..3)?.parse::<i64>().ok()?;
    let offset_minutes = match zone.strip_prefix(['Z', 'z']) {
        Some(_) => 0,
        None => {
            let hours = zone.get(1..3)?.parse::<i64>().ok()?;
            let minutes = zone.get(4..6)?.parse::<i64>().ok()?;
            let magnitude = hours * 60 + minutes;
            if zone.starts_with('-') { -magnitude } else { magnitude }
        }
    };
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    let milliseconds = (minutes * 60 + second) * 1_000 + thousandths;
    Some(u64::try_from(milliseconds).unwrap_or(0))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, by counting years
/// from March, so that the leap day is a year's last (Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms").
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_point_of_time_is_text_with_a_zone_or_whole_milliseconds() {
        for (value, milliseconds) in [
            (json!("1970-01-01T00:00:00Z"), 0),
            (json!("2000-02-29T23:59:59.5Z"), 951_868_799_500),
            (json!("2026-11-21T02:02:11.123456Z"), 1_795_226_531_123),
            (json!("2026-11-21T02:02:11+05:30"), 1_795_206_731_000),
            (json!("2026-11-20T21:02:11-05:00"), 1_795_226_531_000),
            (json!("2016-12-31T23:59:60Z"), 1_483_228_800_000),
            (json!("1969-12-31T23:59:59Z"), 0),
            (json!("9999-12-31T23:59:59.999Z"), MILLISECONDS_1970_TO_9999_MAX),
            (json!(1_795_226_531_000_u64), 1_795_226_531_000),
            (json!(1_795_226_531_000.0), 1_795_226_531_000),
        ] {
            assert_eq!(point_of_time(&value), Ok(milliseconds), "{value}");
        }
    }

    #[test]
    fn a_number_of_seconds_is_refused_with_what_to_do() {
        for value in [json!(1_795_226_531), json!(1_795_226_531.0), json!(1), json!(NUMBER_MIN - 1)]
        {
            let told = point_of_time(&value).unwrap_err();
            assert!(told.contains("taken for seconds: multiply them by 1000"), "{told}");
        }
        assert_eq!(point_of_time(&json!(NUMBER_MIN)), Ok(NUMBER_MIN));
        // No clock says it, and nobody means a second: it is no wait.
        assert_eq!(point_of_time(&json!(0)), Ok(0));
        // Text says itself what it is.
        assert_eq!(point_of_time(&json!("2000-12-31T00:00:00Z")), Ok(978_220_800_000));
    }

    #[test]
    fn what_is_no_point_of_time_is_refused() {
        for value in [
            json!(null),
            json!(true),
            json!(-1),
            json!(1e300),
            json!(u64::MAX),
            json!("tomorrow"),
            json!("2026-11-21"),
            json!("2026-11-21T02:02:11"),
            json!("2026-02-30T00:00:00Z"),
            json!(["2026-11-21T02:02:11Z"]),
        ] {
            assert!(point_of_time(&value).is_err(), "{value}");
        }
    }
}
