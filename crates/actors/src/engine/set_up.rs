//! What an engine finds at the broker, or makes there: its streams, and what all of its workers agree on.

use std::time::{Duration, Instant};

use fermata_jetstream::connection::Replaced;
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_jetstream::engine_config::{
    EngineConfigError, agree_on_engine_config, read_engine_config,
};
use fermata_jetstream::leases::Leases;
use fermata_jetstream::topology::{Drift, journal_stream};
use fermata_jetstream::{Broker, Bytes, Publisher, Topology};

use super::{EngineAgreement, EngineConfig, EngineError, EngineReplaced};
use crate::coordinator::describe;

/// How long a start waits for a broker that is there and not ready: servers that were apart find each
/// other, elect leaders, and an old leader notices that it is none, which takes up to 20 s.
const SET_UP_LIMIT: Duration = Duration::from_secs(30);

/// Pause before it is tried again.
const SET_UP_PAUSE: Duration = Duration::from_millis(500);

/// What all agree on, and what an engine finds at the broker.
pub(super) struct SetUp {
    pub(super) agreement: EngineAgreement,
    /// The same, as it stands at the broker.
    pub(super) agreed: Bytes,
    pub(super) store: DefinitionsStore,
    pub(super) leases: Leases,
    /// What the smallest journal that is there may hold.
    pub(super) journal_bytes: u64,
}

/// Finds or makes all of it, as soon as the broker is ready; from then on the connections stay with this engine.
pub(super) async fn set_up_in_time(
    broker: &Broker,
    publisher: &Publisher,
    config: &EngineConfig,
) -> Result<SetUp, EngineError> {
    let begun = Instant::now();
    let mut told = Told::default();
    let mut before: Option<(EngineAgreement, Bytes)> = None;
    loop {
        let interruptions = broker.interruptions();
        match set_up(broker, publisher, config).await {
            Ok(found) => {
                if let Some((ours, _)) = before.filter(|(_, agreed)| *agreed != found.agreed) {
                    let url = config.nats_url.clone();
                    let replaced = Replaced { url, found: Some(found.agreed) };
                    return Err(EngineError::Replaced(EngineReplaced::of(&ours.engine, replaced)));
                }
                broker.stay_with(found.agreed.clone());
                if broker.interruptions() == interruptions {
                    return Ok(found);
                }
                // What is connected now need not be what was read.
                before = Some((found.agreement, found.agreed));
                if begun.elapsed() >= SET_UP_LIMIT {
                    return Err(EngineError::Agree(EngineConfigError::Unknown));
                }
                tokio::time::sleep(SET_UP_PAUSE).await;
            }
            Err(error) if error.is_transient() && begun.elapsed() < SET_UP_LIMIT => {
                told.warn(describe(&error));
                tokio::time::sleep(SET_UP_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What the log was told last: the same reason is told once.
#[derive(Debug, Default)]
struct Told(Option<String>);

impl Told {
    fn warn(&mut self, error: String) {
        if self.0.as_ref() != Some(&error) {
            let limit = SET_UP_LIMIT;
            tracing::warn!(
                error,
                ?limit,
                "the engine cannot start yet; it is tried again within the limit"
            );
            self.0 = Some(error);
        }
    }
}

async fn set_up(
    broker: &Broker,
    publisher: &Publisher,
    config: &EngineConfig,
) -> Result<SetUp, EngineError> {
    if let Some(ours) = &config.belongs_to {
        check_engine(broker, ours, &config.nats_url).await?;
    }
    let monitor_url = config.monitor_url.as_deref();
    let topology = config.topology.apply_config(broker, monitor_url).await?;
    let (agreement, agreed) = agree(broker, publisher, config).await?;
    let topology = Topology { partitions: agreement.partitions, ..topology };
    let applied = topology.apply_within(broker, monitor_url).await?;
    let journal_bytes = journal_bytes(&topology, &applied.drift);
    // Only what is there from before can drift; sizes are the operator's.
    let drifts = applied.drift.into_iter().filter(|drift| !drift.field.starts_with("max_"));
    let drifts = drifts.collect::<Vec<_>>();
    if !drifts.is_empty() {
        return Err(EngineError::Drift(drifts));
    }
    let store = DefinitionsStore::open(broker);
    let store = store.await.map_err(EngineError::open("the store of definitions"))?;
    let leases = Leases::open(broker).await.map_err(EngineError::open("the leases"))?;
    Ok(SetUp { agreement, agreed, store, leases, journal_bytes })
}

/// Makes sure that the engine at the broker is `ours`, before anything is made there.
async fn check_engine(broker: &Broker, ours: &str, url: &str) -> Result<(), EngineError> {
    let found = match read_engine_config(broker).await {
        Ok(stored) => stored.map(|stored| stored.payload),
        Err(error) if error.is_stream_not_found() => None,
        Err(error) => return Err(EngineError::Agree(error.into())),
    };
    let agreed = found.clone();
    let there = EngineReplaced::of(ours, Replaced { url: url.to_owned(), found });
    match agreed.filter(|_| there.found.as_deref() == Some(ours)) {
        Some(agreed) => {
            // At once: what is made next must not be made where the data has just gone.
            broker.stay_with(agreed);
            Ok(())
        }
        None => Err(EngineError::Replaced(there)),
    }
}

/// How much the smallest journal may hold: whoever created the engine decided, or who enlarged it.
fn journal_bytes(topology: &Topology, drifts: &[Drift]) -> u64 {
    let journals = topology.partition_names().into_iter().map(|name| {
        let stream = journal_stream(&name);
        let found = drifts.iter().find(|one| one.stream == stream && one.field == "max_bytes");
        found.and_then(|one| one.found.as_u64())
    });
    let planned = u64::try_from(topology.limits.journal_bytes).unwrap_or(0);
    journals.map(|found| found.unwrap_or(planned)).min().unwrap_or(planned)
}

/// The engine that is there, or the one that this process creates.
async fn agree(
    broker: &Broker,
    publisher: &Publisher,
    config: &EngineConfig,
) -> Result<(EngineAgreement, Bytes), EngineError> {
    let proposal = EngineAgreement {
        version: 1,
        engine: config.engine.clone(),
        partitions: config.topology.partitions,
        audit_vkey: config.signer.vkey(),
    };
    let bytes = serde_json::to_vec(&proposal).map_err(EngineError::Agreement)?;
    let stored = agree_on_engine_config(broker, publisher, &config.worker, bytes.into()).await?;
    let agreed: EngineAgreement =
        serde_json::from_slice(&stored.payload).map_err(EngineError::Agreement)?;
    if agreed.audit_vkey != proposal.audit_vkey {
        let (own, agreed) = (proposal.audit_vkey, agreed.audit_vkey);
        return Err(EngineError::OtherKey { own, agreed });
    }
    Ok((agreed, stored.payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_journal_that_is_there_counts_whatever_this_process_would_make() {
        let topology = Topology { partitions: 2, ..Topology::default() };
        let drift = |stream: &str, found: u64| Drift {
            stream: stream.to_owned(),
            field: "max_bytes".to_owned(),
            expected: topology.limits.journal_bytes.into(),
            found: found.into(),
        };
        let all =
            ["JOURNAL_control", "JOURNAL_0", "JOURNAL_1"].map(|stream| drift(stream, 4 << 30));

        assert_eq!(journal_bytes(&topology, &[]), 1 << 30);
        assert_eq!(journal_bytes(&topology, &[drift("JOURNAL_1", 7), drift("AUDIT_1", 3)]), 7);
        assert_eq!(journal_bytes(&topology, &all[..2]), 1 << 30);
        assert_eq!(journal_bytes(&topology, &all), 4 << 30);
    }
}
