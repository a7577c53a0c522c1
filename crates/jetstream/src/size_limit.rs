//! How many bytes a stream may hold, as its configuration says: the one place that reads `max_bytes`.

use serde::Deserialize;
use serde_json::Value;

/// The field of a stream's configuration that bounds its bytes.
pub(crate) const MAX_BYTES: &str = "max_bytes";

/// What `max_bytes` says: a number of bytes, or none where it is absent, 0 or less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "i64")]
pub(crate) struct SizeLimit(Option<i64>);

impl From<i64> for SizeLimit {
    fn from(max_bytes: i64) -> Self {
        Self(Some(max_bytes).filter(|bytes| *bytes > 0))
    }
}

impl SizeLimit {
    /// Of a configuration as the broker tells it.
    pub(crate) fn of(config: &Value) -> Self {
        config.get(MAX_BYTES).and_then(Value::as_i64).map(Self::from).unwrap_or_default()
    }

    /// As the broker's API has it; nothing where there is no limit.
    pub(crate) fn signed(self) -> Option<i64> {
        self.0
    }

    /// Nothing where there is no limit.
    pub(crate) fn bytes(self) -> Option<u64> {
        self.0.and_then(|bytes| u64::try_from(bytes).ok())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        max_bytes: SizeLimit,
    }

    #[test]
    fn what_is_absent_or_not_above_0_is_no_limit_however_it_is_read() {
        for (config, limit) in [
            (json!({ "max_bytes": 7 }), Some(7)),
            (json!({ "max_bytes": 0 }), None),
            (json!({ "max_bytes": -1 }), None),
            (json!({}), None),
        ] {
            assert_eq!(SizeLimit::of(&config).bytes(), limit, "{config}");
            assert_eq!(SizeLimit::of(&config).signed(), limit.map(|_| 7), "{config}");
            let read: Config = serde_json::from_value(config).expect("a configuration");
            assert_eq!(read.max_bytes.bytes(), limit);
        }
    }
}
