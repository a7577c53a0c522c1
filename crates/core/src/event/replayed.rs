//! Who asks for an event to be decided once more, and why: extension attributes of
//! the event that is asked for, so that they are within what is signed.

use std::sync::Arc;

use super::Event;
use super::attribute::check_text;
use crate::command::Replayed;

/// The extension attribute that names who asks.
pub const REPLAYED_BY_ATTRIBUTE: &str = "replayedby";
/// The extension attribute that says why.
pub const REPLAY_REASON_ATTRIBUTE: &str = "replayreason";
/// The extension attribute that says under which condition the event is decided once more: its only value is
/// [`UNLESS_STARTED`].
pub const REPLAY_UNLESS_ATTRIBUTE: &str = "replayunless";
/// Unless the event's key is claimed when the replay is decided: by a start, or by a signal to whoever waits.
pub const UNLESS_STARTED: &str = "started";
/// Longest name of who asks, in bytes.
pub const REPLAYED_BY_BYTES_MAX: usize = 128;
/// Longest reason, in bytes: it stands in the record of the event and of each run
/// that it starts.
pub const REPLAY_REASON_BYTES_MAX: usize = 512;

impl Event<'_> {
    /// Who asks and why, where the event says either. It means something in a request
    /// whose signature was verified, and nowhere else.
    ///
    /// # Errors
    ///
    /// What is wrong with an attribute: each is text that is not empty and within its
    /// limit, without control characters.
    pub fn replayed(&self) -> Result<Option<Replayed>, String> {
        let by = self.said(REPLAYED_BY_ATTRIBUTE, REPLAYED_BY_BYTES_MAX)?;
        let reason = self.said(REPLAY_REASON_ATTRIBUTE, REPLAY_REASON_BYTES_MAX)?;
        let unless = self.said(REPLAY_UNLESS_ATTRIBUTE, UNLESS_STARTED.len())?;
        if let Some(other) = unless.as_deref().filter(|unless| *unless != UNLESS_STARTED) {
            return Err(format!(
                "`{REPLAY_UNLESS_ATTRIBUTE}` is `{other}`; only `{UNLESS_STARTED}` is known"
            ));
        }
        let unless_started = unless.is_some();
        let says_something = by.is_some() || reason.is_some() || unless_started;
        Ok(says_something.then_some(Replayed { by, reason, unless_started }))
    }

    fn said(&self, name: &str, bytes_max: usize) -> Result<Option<Arc<str>>, String> {
        let Some((_, value)) = self.extensions.iter().find(|(found, _)| found == name) else {
            return Ok(None);
        };
        let text = serde_json::from_str::<String>(value.get())
            .map_err(|_| format!("`{name}` is not a string"))?;
        check_text(name, &text, bytes_max).map_err(|problem| problem.detail)?;
        Ok(Some(Arc::from(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventLimits, Subject, decode_message};

    /// What an event with these members says; the code of what it is refused with.
    fn replayed(members: &str) -> Result<Option<Replayed>, String> {
        let text = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/t","type":"a"{members},"data":1}}"#
        );
        let subject = Subject { tenant: "acme", kind: "a" };
        let decoded = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
        match decoded.into_iter().next().expect("an outcome") {
            Ok(event) => event.replayed(),
            Err(rejected) => Err(rejected.detail),
        }
    }

    #[test]
    fn who_asks_and_why_are_read_where_they_are_said() {
        let said = |by: Option<&str>, reason: Option<&str>| {
            let (by, reason) = (by.map(Arc::from), reason.map(Arc::from));
            Ok(Some(Replayed { by, reason, unless_started: false }))
        };
        let unless = Replayed { unless_started: true, ..Replayed::default() };

        assert_eq!(replayed(""), Ok(None));
        assert_eq!(replayed(r#","replayedby":null"#), Ok(None));
        assert_eq!(replayed(r#","replayedby":"ann""#), said(Some("ann"), None));
        assert_eq!(replayed(r#","replayreason":"a \"typo\"""#), said(None, Some("a \"typo\"")));
        assert_eq!(
            replayed(r#","replayedby":"ann","replayreason":"typo""#),
            said(Some("ann"), Some("typo"))
        );
        assert_eq!(replayed(r#","replayunless":"started""#), Ok(Some(unless)));
        for other in [r#""ended""#, r#""Started""#, "true", r#""started ""#] {
            let refused = replayed(&format!(r#","replayunless":{other}"#)).expect_err(other);
            assert!(refused.contains("replayunless"), "{refused}");
        }
    }

    #[test]
    fn what_is_no_text_within_its_limit_is_refused() {
        for (name, bytes_max) in [
            (REPLAYED_BY_ATTRIBUTE, REPLAYED_BY_BYTES_MAX),
            (REPLAY_REASON_ATTRIBUTE, REPLAY_REASON_BYTES_MAX),
        ] {
            let longest = format!(r#","{name}":"{}""#, "x".repeat(bytes_max));
            assert!(replayed(&longest).is_ok(), "{name}");
            let too_long = format!("\"{}\"", "x".repeat(bytes_max + 1));
            for value in ["1", "true", r#""""#, r#""a\u0007b""#, r#""a\nb""#, &too_long] {
                let refused = replayed(&format!(r#","{name}":{value}"#)).expect_err(value);
                assert!(refused.contains(name), "{refused}");
            }
        }
    }
}
