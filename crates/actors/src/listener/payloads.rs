//! Whether the data is there that events refer to.
//!
//! What is asked for is the description of the object, not its bytes: the engine hands
//! references on, and reads only what a contract is about (`stored`). A payload that is not there, or is another
//! one, is a rejection like any other. While the store does not answer, the messages
//! that refer to it are held back, and no others.

use std::collections::HashMap;
use std::time::Duration;

use fermata_core::digest::Digest;
use fermata_core::event::PayloadReference;
use fermata_core::identity::Tenant;
use fermata_jetstream::payloads::{PayloadFacts, find_payload};
use fermata_jetstream::reader::ReadError;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use super::outcomes::Pending;
use crate::ports::Ports;

/// Payloads that are asked for at the same time, of one batch.
const LOOKUPS_AT_ONCE: usize = 32;

/// How long all answers of a batch may take together. Default 2 s, of which the other
/// events of the batch wait no more; what is not answered then is held back.
const LOOKUPS_LIMIT: Duration = Duration::from_secs(2);

/// Reason code of an event whose payload is not there.
pub(super) const PAYLOAD_MISSING: &str = "payload_missing";

/// Reason code of an event whose payload is not what the event says.
pub(super) const PAYLOAD_CHANGED: &str = "payload_changed";

/// What is wrong with a payload: a reason code, and a text.
type Problem = (&'static str, String);

/// What came of look-ups.
#[derive(Debug, Default)]
pub(super) struct LookedFor {
    pub(super) problems: Vec<(Pending, Problem)>,
    /// Sequences of messages of which nobody knows.
    pub(super) held_back: Vec<u64>,
}

/// Looks for the payloads of a batch.
pub(super) async fn looked_for(
    ports: &Ports,
    referring: Vec<(Pending, PayloadReference)>,
) -> LookedFor {
    let find = |tenant: Tenant, digest: Digest| -> Answer {
        let reader = ports.reader.clone();
        Box::pin(async move { find_payload(&reader, tenant.as_str(), &digest.to_string()).await })
    };
    asked(find, referring).await
}

/// What the store says of a payload.
type Answer = BoxFuture<'static, Result<Option<PayloadFacts>, ReadError>>;

/// Asks for each payload once.
async fn asked(
    find: impl Fn(Tenant, Digest) -> Answer,
    referring: Vec<(Pending, PayloadReference)>,
) -> LookedFor {
    let mut looked_for = LookedFor::default();
    let mut wanted: HashMap<(Tenant, Digest), Vec<Pending>> = HashMap::new();
    for (pending, PayloadReference { digest }) in referring {
        wanted.entry((pending.tenant.clone(), digest)).or_default().push(pending);
    }
    let until = Instant::now() + LOOKUPS_LIMIT;
    let answers = wanted.into_iter().map(|((tenant, digest), waiting)| {
        let answer = find(tenant.clone(), digest);
        async move { (tenant, digest, waiting, timeout_at(until, answer).await) }
    });
    let mut answers = stream::iter(answers).buffer_unordered(LOOKUPS_AT_ONCE);
    while let Some((tenant, digest, waiting, answer)) = answers.next().await {
        let facts = match answer {
            Ok(Ok(facts)) => facts,
            Ok(Err(error)) => {
                tracing::debug!(%tenant, %digest, %error, "a payload could not be looked for");
                looked_for.held_back.extend(waiting.iter().map(|pending| pending.sequence));
                continue;
            }
            Err(_) => {
                tracing::debug!(%tenant, %digest, "a payload was not found or missed in time");
                looked_for.held_back.extend(waiting.iter().map(|pending| pending.sequence));
                continue;
            }
        };
        let problem = problem(&PayloadReference { digest }, tenant.as_str(), facts);
        let problems = waiting.into_iter().filter_map(|pending| Some((pending, problem.clone()?)));
        looked_for.problems.extend(problems);
    }
    if !looked_for.held_back.is_empty() {
        let events = looked_for.held_back.len();
        tracing::warn!(events, "the payloads of events could not be looked for; they come again");
    }
    looked_for
}

/// What is wrong with a payload.
fn problem(
    reference: &PayloadReference,
    tenant: &str,
    facts: Option<PayloadFacts>,
) -> Option<Problem> {
    let uri = reference.uri(tenant);
    match facts {
        None => Some((PAYLOAD_MISSING, format!("there is no `{uri}`, or it is no longer kept"))),
        Some(facts) if facts.digest == Some(reference.digest.0) => None,
        Some(facts) => {
            let bytes = facts.bytes;
            let detail = format!("`{uri}` has {bytes} bytes with another digest than its name");
            Some((PAYLOAD_CHANGED, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn referring(tenant: &str, sequence: u64, bytes: &[u8]) -> (Pending, PayloadReference) {
        let reference = PayloadReference { digest: Digest::of(bytes) };
        (Pending::testing(tenant, sequence), reference)
    }

    fn facts(digest: Digest) -> PayloadFacts {
        PayloadFacts { bytes: 1, digest: Some(digest.0) }
    }

    #[tokio::test]
    async fn a_payload_is_asked_for_once_however_many_events_refer_to_it() {
        let told = Mutex::new(Vec::new());
        let find = |tenant: Tenant, digest: Digest| -> Answer {
            told.lock().expect("sound").push((tenant.to_string(), digest));
            Box::pin(async move { Ok(Some(facts(digest))) })
        };
        let mut events: Vec<_> = (1..=100).map(|at| referring("acme", at, b"one")).collect();
        events.push(referring("other", 101, b"one"));

        let LookedFor { problems, held_back } = asked(find, events).await;
        assert!(problems.is_empty() && held_back.is_empty());
        let mut told = told.into_inner().expect("sound");
        told.sort();
        let digest = Digest::of(b"one");
        assert_eq!(told, [("acme".to_owned(), digest), ("other".to_owned(), digest)]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_not_answered_in_time_is_held_back() {
        let find = |tenant: Tenant, digest: Digest| -> Answer {
            match tenant.as_str() {
                "silent" => Box::pin(std::future::pending()),
                "missing" => Box::pin(async { Ok(None) }),
                _ => Box::pin(async move { Ok(Some(facts(digest))) }),
            }
        };
        // Far more than are asked for at once, and each would take for ever.
        let silent = (1..=200_u64).map(|at| referring("silent", at, &at.to_be_bytes()));
        let others = [referring("missing", 201, b"a"), referring("there", 202, b"a")];
        let begun = Instant::now();

        let LookedFor { problems, mut held_back } =
            asked(find, silent.chain(others).collect()).await;
        assert_eq!(begun.elapsed().as_secs(), LOOKUPS_LIMIT.as_secs());
        held_back.sort_unstable();
        // What waits behind the silent ones may have its answer too late.
        assert!(held_back.iter().filter(|at| **at <= 200).count() == 200, "{held_back:?}");
        let missing = problems
            .iter()
            .all(|(pending, problem)| pending.sequence == 201 && problem.0 == PAYLOAD_MISSING);
        assert!(missing, "{problems:?}");
    }
}
