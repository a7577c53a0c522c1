//! Whether somebody switched parts of the engine off.

use fermata_core::flags::{Flag, Flags};

use super::Check;
use crate::broker_session::BrokerSession;
use crate::commands::flags::off_means;

/// Nothing to tell where all parts are on.
pub(super) async fn parts(session: &BrokerSession) -> Option<Check> {
    // That definitions cannot be read, other checks tell.
    judge(&session.active_definitions().await.ok()?.flags)
}

fn judge(flags: &Flags) -> Option<Check> {
    let off = Flag::ALL.into_iter().filter(|flag| !flags.is_on(*flag)).collect::<Vec<_>>();
    if off.is_empty() {
        return None;
    }
    let found = off.iter().map(|flag| format!("`{flag}` is switched off: {}", off_means(*flag)));
    let changes = off.iter().map(|flag| format!(" {flag}=on")).collect::<String>();
    let hint = format!("when that is no longer meant: `fermata flags set{changes}`");
    let check = Check::warn("flags", found.collect::<Vec<_>>().join("; "), hint);
    Some(check.code("switched_off").details(off.iter().map(|flag| flag.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_off_is_told_with_what_switches_it_on() {
        let mut flags = Flags::default();
        assert_eq!(judge(&flags), None);
        flags.set(Flag::AuditFeed, true);
        assert_eq!(judge(&flags), None);

        flags.set(Flag::Orchestration, false);
        let check = judge(&flags).unwrap();

        assert!(check.found.starts_with("`orchestration` is switched off: events are accepted"));
        assert!(check.hint.unwrap().ends_with("`fermata flags set orchestration=on`"));
        assert_eq!(check.details, ["orchestration"]);
    }
}
