//! Points in time as people type them.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Reads a point in time, in milliseconds since 1970: RFC 3339, or how long ago (`90s`, `30m`,
/// `2h`, `7d`).
///
/// # Errors
///
/// What is expected.
pub fn moment(text: &str) -> Result<u64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    moment_at(text, u64::try_from(now).unwrap_or(u64::MAX))
}

fn moment_at(text: &str, now_ms: u64) -> Result<u64, String> {
    let expected = || {
        format!(
            "`{text}` is no point in time; expected one as in `2026-11-21T10:00:00Z`, or how long \
             ago as in `90s`, `30m`, `2h`, `7d`"
        )
    };
    if let Some(ago_ms) = span_ms(text) {
        return Ok(now_ms.saturating_sub(ago_ms));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| expected())?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).map_err(|_| expected())
}

fn span_ms(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
    count.checked_mul(seconds * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_or_how_long_ago() {
        assert_eq!(moment_at("1970-01-01T00:00:01.5Z", 0), Ok(1_500));
        assert_eq!(moment_at("1970-01-01T01:00:00+01:00", 0), Ok(0));
        assert_eq!(moment_at("2h", 10_000_000), Ok(2_800_000));
        assert_eq!(moment_at("7d", 5), Ok(0));
        for refused in ["", "yesterday", "5", "h", "1969-12-31T23:59:59Z", "99999999999999999999d"]
        {
            let error = moment_at(refused, 0).unwrap_err();
            assert!(error.contains("expected one as in"), "{error}");
        }
    }
}
