//! Whether everything happened that the figures are about, each thing once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fermata_core::identity::RunId;
use fermata_core::record::Kind;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::DEAD_STREAM;
use fermata_wire::dead::DeadLetter;
use miette::{IntoDiagnostic as _, miette};

use super::noisy::Noisy;
use super::poison::Poison;
use super::quiet::Quiet;
use super::{noisy, poison, quiet};
use crate::client::Client;
use crate::journals;
use crate::setup::Setup;

/// How long the journals may take to hold everything: nothing is published any more.
const LIMIT: Duration = Duration::from_secs(30);

/// How often they are read meanwhile.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// Messages read at once.
const BATCH: usize = 1_000;

/// What became of events and runs: how many records, by tenant and kind.
type Ends = BTreeMap<(String, &'static str), u64>;

/// Dead letters, by stage and id.
type Letters = BTreeMap<(String, String), u64>;

/// Fails unless each run ended as it should, once, and each thing that is to have a dead letter has
/// exactly one.
pub async fn check(
    setup: &Setup,
    quiet: &Quiet,
    noisy: &Noisy,
    poison: &Poison,
) -> miette::Result<()> {
    let client = &setup.broker.client;
    let count = |set: usize| u64::try_from(set).unwrap_or(u64::MAX);
    let rejected = poison.malformed.len() + poison.unusable.len();
    let expected = [
        (quiet::TENANT, Kind::EventStarted, count(quiet.runs.len())),
        (quiet::TENANT, Kind::RunSucceeded, count(quiet.runs.len())),
        (noisy::TENANT, Kind::EventStarted, noisy.runs()),
        (noisy::TENANT, Kind::RunSucceeded, noisy.runs()),
        (poison::TENANT, Kind::EventStarted, poison.failing),
        (poison::TENANT, Kind::RunFailed, poison.failing),
        (poison::TENANT, Kind::EventRejected, count(rejected)),
        (poison::TENANT, Kind::EventUnmatched, poison.unmatched),
    ];
    let expected = expected.map(|(tenant, kind, n)| ((tenant.to_owned(), kind.as_str()), n));
    let expected = Ends::from(expected);
    let begun = Instant::now();
    let quiet_runs = loop {
        let (ends, quiet_runs) = ends(client, setup.partitions).await?;
        if ends == expected {
            break quiet_runs;
        }
        if begun.elapsed() > LIMIT {
            return Err(miette!("expected {expected:?}, the journals hold {ends:?}"));
        }
        tokio::time::sleep(READ_INTERVAL).await;
    };
    // As many as there should be, so each of them once.
    if quiet_runs != quiet.runs {
        return Err(miette!("the journals hold other runs of the quiet tenant than the feed told"));
    }
    check_letters(client, poison).await
}

/// What became of events and runs, and which runs of the quiet tenant succeeded.
async fn ends(client: &Client, partitions: u16) -> miette::Result<(Ends, BTreeSet<RunId>)> {
    let (mut ends, mut quiet_runs) = (Ends::new(), BTreeSet::new());
    journals::each(client, partitions, |header| {
        let Some(tenant) = &header.tenant else { return };
        if !header.kind.ends_run() && !header.kind.is_event_outcome() {
            return;
        }
        *ends.entry((tenant.to_string(), header.kind.as_str())).or_default() += 1;
        if tenant.as_str() == quiet::TENANT {
            quiet_runs.extend(header.run);
        }
    })
    .await?;
    Ok((ends, quiet_runs))
}

async fn check_letters(client: &Client, poison: &Poison) -> miette::Result<()> {
    let one = |stage: &str, id: String| ((stage.to_owned(), id), 1);
    let event = |stage: &'static str| move |sequence: &u64| one(stage, format!("{sequence}.0"));
    let task = |sequence: &u64| one("tasks", format!("TASKS.{sequence}.all"));
    let expected = poison.malformed.iter().map(event("listener"));
    let expected = expected.chain(poison.unusable.iter().map(event("matcher")));
    let expected = expected.chain(poison.tasks.iter().map(task)).collect::<Letters>();
    let mut found = Letters::new();
    let replay = client.reader.replay(DEAD_STREAM, 1, Holes::Allowed).await;
    let mut replay = replay.into_diagnostic()?;
    loop {
        let batch = replay.next_batch(BATCH).await.into_diagnostic()?;
        if batch.is_empty() {
            break;
        }
        for message in batch {
            let letter = DeadLetter::decode(&message.payload).into_diagnostic()?;
            *found.entry((letter.stage, letter.id)).or_default() += 1;
        }
    }
    let other = expected.iter().find(|(letter, count)| found.get(letter) != Some(count));
    match other.or_else(|| found.iter().find(|(letter, _)| !expected.contains_key(letter))) {
        None => Ok(()),
        Some((letter @ (stage, id), _)) => {
            let count = found.get(letter).copied().unwrap_or_default();
            let wanted = expected.get(letter).copied().unwrap_or_default();
            Err(miette!("{count} dead letters of stage {stage} for {id}, not {wanted}"))
        }
    }
}
