//! Whether the broker lets us do what we must. A refused subject shows to the
//! client as a time-out alone, so the connection's notices are asked.

use std::collections::BTreeSet;

use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::{Bytes, ConnectionEvent, ConnectionNotice};
use futures_util::future::join_all;
use tokio::sync::broadcast::Receiver;

use super::Check;
use crate::broker_session::BrokerSession;

/// A last sequence that no stream has: what is published with it is refused and
/// never stored, and the permission is asked all the same.
const NEVER: u64 = 1 << 62;

/// Subjects that the command line publishes to.
const PUBLISHED: [&str; 3] =
    ["fermata.events.doctor.probe", "fermata.commands.control", "fermata.dead.doctor.probe"];

/// Subjects that a worker publishes to as well.
const PUBLISHED_BY_WORKERS: [&str; 8] = [
    "fermata.admitted",
    "fermata.matched",
    "fermata.waiting.0",
    "fermata.replays.doctor",
    "fermata.journal.control",
    "fermata.auditlog.control",
    "fermata.checkpoints.control",
    "$KV.fermata-leases.doctor",
];

/// Subjects that people and programs listen on.
const LISTENED: [&str; 3] = ["fermata.audit.*", "fermata.escalation.*.*", "fermata.status"];

/// Tries every subject without storing anything.
pub(super) async fn probe(session: &BrokerSession, as_worker: bool) {
    let core = CoreMessages::new(session.broker());
    let listened = LISTENED.map(|subject| core.subscribe(subject));
    let published = async {
        let Ok(publisher) = session.publisher().await else { return };
        let more = if as_worker { PUBLISHED_BY_WORKERS.as_slice() } else { &[] };
        let subjects = PUBLISHED.iter().chain(more);
        join_all(subjects.map(|subject| publisher.append(*subject, NEVER, "doctor", Bytes::new())))
            .await;
    };
    // Who is refused is told by the notices.
    let _ = tokio::join!(join_all(listened), published);
}

/// What the server refused since `notices` began.
pub(super) fn judge(notices: &mut Receiver<ConnectionNotice>) -> Check {
    let mut refused = BTreeSet::new();
    while let Ok(notice) = notices.try_recv() {
        if let ConnectionEvent::PermissionDenied(text) = notice.event {
            refused.insert(text);
        }
    }
    if refused.is_empty() {
        return Check::ok("permissions", "nothing was refused");
    }
    let found = refused.iter().cloned().collect::<Vec<_>>().join("; ");
    let hint = "give the user these subjects in the broker's configuration; whoever is refused sees a time-out alone";
    Check::fail("permissions", found, hint).code("permission_missing").details(refused)
}
