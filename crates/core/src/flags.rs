//! Feature flags of an engine: parts of it that an operator can switch off.
//!
//! They are part of the definitions: recorded, audited and seen by every worker
//! as those are. All are on unless somebody switched them off.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One part that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Starting work: while off, events are accepted into EVENTS and wait there.
    Orchestration,
    /// Matching: while off, events wait as above, since nothing can be told
    /// unmatched by strategies that are not asked.
    StrategyLibrary,
    /// The feed of audit entries to subscribers; the audit log itself goes on.
    AuditFeed,
}

impl Flag {
    /// Every flag there is.
    pub const ALL: [Self; 3] = [Self::Orchestration, Self::StrategyLibrary, Self::AuditFeed];

    /// The name as written and typed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orchestration => "orchestration",
            Self::StrategyLibrary => "strategy_library",
            Self::AuditFeed => "audit_feed",
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Text that is no flag.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a flag; the flags are orchestration, strategy_library, audit_feed")]
pub struct NotAFlag(String);

impl FromStr for Flag {
    type Err = NotAFlag;

    fn from_str(text: &str) -> Result<Self, NotAFlag> {
        let found = Self::ALL.into_iter().find(|flag| flag.as_str() == text);
        found.ok_or_else(|| NotAFlag(text.chars().take(40).collect()))
    }
}

/// The flags that were ever set; one that was not is on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(BTreeMap<Flag, bool>);

impl Flags {
    /// Whether a part is on.
    #[must_use]
    pub fn is_on(&self, flag: Flag) -> bool {
        self.0.get(&flag).copied().unwrap_or(true)
    }

    /// Whether events are taken in: everything that starts work is on.
    #[must_use]
    pub fn takes_events(&self) -> bool {
        self.is_on(Flag::Orchestration) && self.is_on(Flag::StrategyLibrary)
    }

    /// Switches a part on or off.
    pub fn set(&mut self, flag: Flag, on: bool) {
        self.0.insert(flag, on);
    }

    /// Takes over what `changes` set.
    pub fn apply(&mut self, changes: &Self) {
        self.0.extend(&changes.0);
    }

    /// Whether nothing was ever set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_on_until_it_is_switched_off_and_on_again() {
        let mut flags = Flags::default();
        assert!(Flag::ALL.into_iter().all(|flag| flags.is_on(flag)));

        let mut off = Flags::default();
        off.set(Flag::StrategyLibrary, false);
        flags.apply(&off);
        assert!(!flags.takes_events() && flags.is_on(Flag::AuditFeed));

        off.set(Flag::StrategyLibrary, true);
        flags.apply(&off);
        assert!(flags.takes_events());
    }

    #[test]
    fn a_flag_is_read_as_it_is_written() {
        for flag in Flag::ALL {
            assert_eq!(flag.to_string().parse(), Ok(flag));
        }
        assert!("orchestra".parse::<Flag>().is_err());
    }
}
