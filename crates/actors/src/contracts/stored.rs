//! A check of data that is in the store of payloads.

use std::sync::Arc;

use fermata_core::command::ContractMode;
use fermata_core::contract::DataSize;
use fermata_core::event::EVENT_DEPTH_MAX;
use serde_json::Value;

use super::{Breach, Contract, TOO_COSTLY, UNCHECKED, VIOLATION, breach, too_costly};

/// Largest data in the store of payloads that is read to be checked, in bytes. Default 2 MiB:
/// eight times what an event holds, and as JSON values some tens of megabytes of memory.
pub const STORED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A check that is to be done when the data was read.
#[derive(Debug, Clone)]
pub struct StoredCheck {
    pub(super) mode: ContractMode,
    pub(super) version: Arc<str>,
    pub(super) contract: Arc<Contract>,
}

impl StoredCheck {
    /// What is said of data that is not looked at.
    #[must_use]
    pub fn unchecked(&self, why: &str) -> Option<Breach> {
        breach(self.mode, UNCHECKED, format!("version `{}`: not checked: {why}", self.version))
    }

    /// What the contract says against the bytes. It may take a second. Takes the check's
    /// steps from `steps`.
    #[must_use]
    pub fn breach(&self, bytes: &[u8], steps: &mut u64) -> Option<Breach> {
        let violation = |detail| breach(self.mode, VIOLATION, detail);
        let Ok(data) = std::str::from_utf8(bytes) else {
            return violation(format!("version `{}`: the data is not UTF-8", self.version));
        };
        let cost = self.contract.price().steps(DataSize::of(data));
        if cost > *steps {
            return breach(self.mode, TOO_COSTLY, too_costly(&self.version, cost, *steps));
        }
        *steps -= cost;
        // What is no JSON, the check tells. The depth of data bounds the stack that it takes.
        match serde_json::from_str::<Value>(data) {
            Ok(value) if depth(&value) >= EVENT_DEPTH_MAX => self.unchecked(&format!(
                "the data is nested deeper than the {EVENT_DEPTH_MAX} levels of an event"
            )),
            Ok(_) | Err(_) => violation(self.contract.detail(&self.version, data)?),
        }
    }
}

/// The parser goes no deeper than 128.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
