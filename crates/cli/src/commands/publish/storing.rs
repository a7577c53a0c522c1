//! The data that events refer to on its way into the store of payloads, which takes its time: a signal may
//! come before all of it is there.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::claim::Claim;
use super::full;
use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::CliError;
use crate::local_engine::EndRequests;
use crate::output::Output;

/// How long an upload that a signal ends may take to remove what it has stored; longer, the next upload an
/// hour later removes it. Default 5 s: as long as the broker may take to acknowledge the part under way.
const CLEAN_LIMIT: Duration = Duration::from_secs(5);

/// What became of the data that events refer to.
pub(super) enum Claims {
    Stored,
    /// A signal came, and nothing of it is left.
    Removed,
    /// A signal came, and some of it may be left.
    Left,
}

/// Stores the data that events refer to. When a signal comes before all of it is stored, what was stored of
/// the one under way is removed, for which [`CLEAN_LIMIT`] or a second signal is waited.
pub(super) async fn store_claims(
    claims: &[&Claim],
    session: &BrokerSession,
    global: &GlobalArguments,
    requests: &mut EndRequests,
    output: &Output,
) -> Result<Claims, CliError> {
    let stop = AtomicBool::new(false);
    let whole = Cell::new(0_usize);
    let mut storing = std::pin::pin!(async {
        full::refuse_too_large(claims, session, global).await?;
        for claim in claims {
            if let Err(error) = claim.store(session.broker(), &stop, output).await {
                return Err(full::explained(error, claim, session, global).await);
            }
            whole.set(whole.get() + 1);
        }
        Ok(())
    });
    tokio::select! {
        stored = &mut storing => return stored.map(|()| Claims::Stored),
        () = requests.next() => stop.store(true, Ordering::Relaxed),
    }
    let ended = tokio::select! {
        ended = tokio::time::timeout(CLEAN_LIMIT, &mut storing) => ended.ok(),
        () = requests.next() => None,
    };
    Ok(match ended {
        Some(Err(_)) if whole.get() == 0 => Claims::Removed,
        Some(Ok(()) | Err(_)) | None => Claims::Left,
    })
}
