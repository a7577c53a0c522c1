//! How many events of runs led to an event: what ends a loop of workflows that
//! start each other.

use super::Event;

/// The extension attribute that counts them; a run's event has one more than the
/// event that started the run. Absent means none.
pub const HOPS_ATTRIBUTE: &str = "fermatahops";

/// Most events of runs in one chain; a run that an event with so many has started
/// publishes none (`too_many_hops`). Processes hand work on a few times, and a
/// loop is found out before it costs much.
pub const HOPS_MAX: u32 = 16;

impl Event<'_> {
    /// How many events of runs led to this one: [`HOPS_ATTRIBUTE`], a whole
    /// number or its text, at most [`HOPS_MAX`]. Anything else counts as the
    /// most, so that no mistake makes a loop endless.
    #[must_use]
    pub fn hops(&self) -> u32 {
        let found = self.extensions.iter().find(|(name, _)| name == HOPS_ATTRIBUTE);
        let Some((_, value)) = found else { return 0 };
        let text = value.get().trim_matches('"');
        text.parse().map_or(HOPS_MAX, |hops: u32| hops.min(HOPS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventLimits, Subject, decode_message};

    fn hops(attribute: &str) -> u32 {
        let text = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/t","type":"a"{attribute},"data":1}}"#
        );
        let subject = Subject { tenant: "acme", kind: "a" };
        let decoded = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
        let event = decoded.into_iter().next().unwrap();
        event.unwrap().hops()
    }

    #[test]
    fn what_is_no_count_of_hops_counts_as_the_most() {
        for (attribute, expected) in [
            ("", 0),
            (r#","fermatahops":null"#, 0),
            (r#","fermatahops":3"#, 3),
            (r#","fermatahops":"3""#, 3),
            (r#","fermatahops":99"#, HOPS_MAX),
            (r#","fermatahops":-1"#, HOPS_MAX),
            (r#","fermatahops":"""#, HOPS_MAX),
            (r#","fermatahops":true"#, HOPS_MAX),
        ] {
            assert_eq!(hops(attribute), expected, "{attribute}");
        }
    }
}
