//! Which definitions a process waits for before it decides anything.

use fermata_wire::projection::Projected;

use super::Awaited;
use crate::definitions::ACTIVE_KEY;
use crate::ports::Ports;

/// Whether the projection is ahead of what is active here.
pub(crate) async fn missing_definitions(ports: &Ports) -> Option<Awaited> {
    let (written, message) = match ports.store.newest(ACTIVE_KEY).await {
        Ok(newest) => newest,
        Err(error) => return Some(Awaited::Broker(error.to_string())),
    };
    let active = ports.definitions.borrow().revision;
    missing(written > 0, message.as_deref(), active)
}

/// What is missing at the revision that is active. A message that cannot be read, and one that was
/// removed, is the control partition's to repair: who has definitions goes on with them, and who
/// has none would decide events as if nothing were defined.
fn missing(was_written: bool, message: Option<&[u8]>, active: u64) -> Option<Awaited> {
    let unreadable = |problem| (active == 0).then_some(Awaited::UnreadableDefinitions(problem));
    match message.map(Projected::decode) {
        None if was_written => unreadable("they were removed".to_owned()),
        None => None,
        Some(Ok(projected)) => {
            let projected = projected.revision();
            (active < projected).then_some(Awaited::Definitions(projected))
        }
        Some(Err(error)) => unreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::partition::Definitions;
    use fermata_wire::projection::Projection;
    use fermata_wire::{Envelope, MessageKind};

    use super::*;

    fn unreadable(awaited: Option<Awaited>) -> String {
        match awaited {
            Some(Awaited::UnreadableDefinitions(problem)) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_projected_is_waited_for_until_it_is_active() {
        let definitions = Definitions { revision: 7, ..Definitions::default() };
        let message = Projection::of(&definitions).unwrap().message;

        for (active, expected) in [(0, true), (6, true), (7, false), (8, false)] {
            let awaited = missing(true, Some(&message), active);
            assert_eq!(awaited, expected.then_some(Awaited::Definitions(7)), "{active}");
        }
        assert_eq!(missing(false, None, 0), None);
    }

    #[test]
    fn a_process_without_definitions_waits_for_those_that_it_cannot_read() {
        let newer = Envelope { version: 9, ..Envelope::new(MessageKind::Definitions, None, &[]) };
        let newer = newer.encode().unwrap();

        let told = unreadable(missing(true, Some(&newer), 0));
        assert!(told.contains("version 9") && told.contains("upgrade it"), "{told}");
        let told = unreadable(missing(true, Some(b"garbage"), 0));
        assert!(told.contains("cannot be decoded"), "{told}");
        assert_eq!(unreadable(missing(true, None, 0)), "they were removed");
        // Whoever has some goes on with them.
        for message in [Some(newer.as_slice()), Some(b"garbage".as_slice()), None] {
            assert_eq!(missing(true, message, 1), None);
        }
    }
}
