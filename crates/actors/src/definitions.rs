//! Active definitions as every process sees them: the projection of the control
//! partition, watched, compiled once per change.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fermata_core::command::WorkflowEntry;
use fermata_core::digest::Digest;
use fermata_core::flags::Flags;
use fermata_core::partition::Definitions;
use fermata_core::plan::Executable;
use fermata_core::strategy::{StrategyDefinition, StrategySet};
use fermata_jetstream::definitions_store::{DefinitionChange, DefinitionsStore, StoreError};
use fermata_wire::envelope::decode_message;
use fermata_wire::{MessageKind, WireError};
use thiserror::Error;
use tokio::sync::watch;

use crate::contracts::Contracts;

/// Key of the projection in the definitions bucket.
pub const ACTIVE_KEY: &str = "active";

/// Pause before a broken watch is made again.
const WATCH_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Reads in a row that must find a plan missing or broken before that counts: a
/// read may be answered by a server that is behind.
pub const PLAN_READS_MAX: u32 = 4;

/// How long one read of a plan may take; one whose parts are gone never ends.
pub const PLAN_READ_LIMIT: Duration = Duration::from_secs(10);

/// Pause before definitions are compiled again of which some plan could not be
/// used. Default 10 s: a read of a missing plan takes about one.
const UNUSABLE_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Pause before a plan is read again.
const PLAN_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Why a plan cannot be had.
#[derive(Debug, Error)]
pub enum PlanError {
    /// There is none.
    #[error("plan {digest} is not stored")]
    Missing {
        /// What was asked for.
        digest: Digest,
    },
    /// The blob was found and its bytes did not come.
    #[error("the blob under {digest} did not come within {} s", PLAN_READ_LIMIT.as_secs())]
    Silent {
        /// What was asked for.
        digest: Digest,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blob's bytes are not those of its digest.
    #[error("the blob under {digest} has digest {found}; it was changed or cut")]
    Changed {
        /// What was asked for.
        digest: Digest,
        /// What is there.
        found: Digest,
    },
    /// The blob is no plan.
    #[error("the blob under {digest} is no plan")]
    NoPlan {
        /// What was asked for.
        digest: Digest,
        /// Why.
        #[source]
        source: WireError,
    },
    /// The plan is not sound.
    #[error("plan {digest} is not sound: {problem}")]
    Unsound {
        /// What was asked for.
        digest: Digest,
        /// The first problem.
        problem: String,
    },
}

impl PlanError {
    /// Whether nothing is known: the store did not answer. Anything else says
    /// something about the plan.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error, StoreError::Broker { .. }),
            Self::Missing { .. }
            | Self::Silent { .. }
            | Self::Changed { .. }
            | Self::NoPlan { .. }
            | Self::Unsound { .. } => false,
        }
    }
}

/// Compiled plans by digest, fetched once. Plans are immutable and are kept for
/// the life of the process: a few kilobytes per workflow version.
#[derive(Debug, Clone)]
pub struct Plans {
    store: DefinitionsStore,
    cache: Arc<Mutex<HashMap<Digest, Arc<Executable>>>>,
}

impl Plans {
    /// Nothing fetched yet.
    #[must_use]
    pub fn new(store: DefinitionsStore) -> Self {
        Self { store, cache: Arc::default() }
    }

    /// The plan of a digest, by one read that was answered: it waits for a store
    /// that does not answer.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if the store holds no such plan, or something else. One
    /// answer may come from a server that is behind: ask again before it counts.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn find(&self, digest: Digest) -> Result<Arc<Executable>, PlanError> {
        loop {
            match self.read(digest).await {
                Err(error) if error.is_unreachable() => {
                    tracing::warn!(%digest, %error, "the store of plans does not answer; it is tried again");
                    tokio::time::sleep(PLAN_AGAIN_AFTER).await;
                }
                answer => return answer,
            }
        }
    }

    /// The plan of a digest, by [`PLAN_READS_MAX`] reads if they do not find it:
    /// the answer is definite.
    ///
    /// # Errors
    ///
    /// [`PlanError`] if the store holds no such plan, or something else.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn fetch(&self, digest: Digest) -> Result<Arc<Executable>, PlanError> {
        let mut reads = 1;
        loop {
            match self.find(digest).await {
                Err(error) if reads < PLAN_READS_MAX => {
                    tracing::warn!(%digest, %error, reads, "a plan cannot be used; it is read again");
                    tokio::time::sleep(PLAN_AGAIN_AFTER).await;
                    reads += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn read(&self, digest: Digest) -> Result<Arc<Executable>, PlanError> {
        if let Some(plan) = self.cached(&digest) {
            return Ok(plan);
        }
        let name = digest.to_string();
        let blob = tokio::time::timeout(PLAN_READ_LIMIT, self.store.get_blob(&name)).await;
        let blob = blob.map_err(|_| PlanError::Silent { digest })??;
        let bytes = blob.ok_or(PlanError::Missing { digest })?;
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(PlanError::Changed { digest, found });
        }
        let plan = fermata_wire::plan::decode(&bytes)
            .map_err(|source| PlanError::NoPlan { digest, source })?;
        let executable = Executable::new(plan).map_err(|problems| PlanError::Unsound {
            digest,
            problem: problems.first().map_or_else(String::new, ToString::to_string),
        })?;
        let executable = Arc::new(executable);
        self.lock().insert(digest, executable.clone());
        Ok(executable)
    }

    fn cached(&self, digest: &Digest) -> Option<Arc<Executable>> {
        self.lock().get(digest).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<Executable>>> {
        // A map of finished values is sound whatever panicked while holding it.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is active, compiled; immutable, swapped as a whole.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Revision of the control partition.
    pub revision: u64,
    /// Which event starts what.
    pub strategies: StrategySet,
    /// Parts of the engine that are switched off.
    pub flags: Flags,
    /// What the data of events adheres to.
    pub contracts: Contracts,
    workflows: HashMap<Arc<str>, Versions>,
    /// Versions whose plans cannot be used: what starts them is rejected at once.
    unusable: HashSet<(Arc<str>, Arc<str>)>,
}

/// A workflow's plans by version.
type Versions = HashMap<Arc<str>, (Digest, Arc<Executable>)>;

impl Snapshot {
    /// The plan of a workflow's version.
    #[must_use]
    pub fn workflow(&self, name: &str, version: &str) -> Option<&(Digest, Arc<Executable>)> {
        self.workflows.get(name)?.get(version)
    }

    /// Whether the version is defined and its plan cannot be used, so that
    /// waiting for it is of no use.
    #[must_use]
    pub fn is_unusable(&self, name: &Arc<str>, version: &Arc<str>) -> bool {
        !self.unusable.is_empty() && self.unusable.contains(&(name.clone(), version.clone()))
    }
}

/// Watches the projection; the receiver always holds the newest snapshot that
/// compiled. What does not compile, and what is removed, changes nothing: the
/// control partition's owner puts the right one there again.
///
/// The task ends when every receiver is dropped.
#[must_use]
pub fn watch_definitions(store: DefinitionsStore, plans: Plans) -> watch::Receiver<Arc<Snapshot>> {
    let (sender, receiver) = watch::channel(Arc::new(Snapshot::default()));
    tokio::spawn(async move {
        while !sender.is_closed() {
            if let Err(error) = follow(&store, &plans, &sender).await {
                tracing::warn!(%error, "the watch on definitions broke and is made again");
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH_AGAIN_AFTER) => {}
                () = sender.closed() => {}
            }
        }
    });
    receiver
}

async fn follow(
    store: &DefinitionsStore,
    plans: &Plans,
    sender: &watch::Sender<Arc<Snapshot>>,
) -> Result<(), StoreError> {
    let mut watch = store.watch(ACTIVE_KEY).await?;
    let mut warned = false;
    // What was read last, if some of its plans could not be used.
    let mut incomplete = None;
    loop {
        let read = tokio::select! {
            change = watch.next() => match change? {
                None => return Ok(()),
                Some(DefinitionChange::Removed { .. }) => Err("they were removed".to_owned()),
                Some(DefinitionChange::Put(stored)) => Ok(stored.value),
            },
            Some(again) = later(incomplete.clone()) => Ok(again),
            () = sender.closed() => return Ok(()),
        };
        let compiled = match read {
            Ok(bytes) => {
                let known = sender.borrow().clone();
                compile(&bytes, plans, known).await.map(|snapshot| (snapshot, bytes))
            }
            Err(problem) => Err(problem),
        };
        match compiled {
            Ok((snapshot, bytes)) => {
                warned = false;
                incomplete = (!snapshot.unusable.is_empty()).then_some(bytes);
                // Put there again, they are what they were.
                let is_new = snapshot.revision != sender.borrow().revision;
                if is_new {
                    tracing::info!(revision = snapshot.revision, "definitions are active");
                }
                sender.send_replace(Arc::new(snapshot));
            }
            // One warning for a flood of garbage.
            Err(problem) if !std::mem::replace(&mut warned, true) => {
                tracing::warn!(
                    problem,
                    "the projected definitions cannot be used; the old ones stay"
                );
            }
            Err(_) => {}
        }
    }
}

/// What is to be compiled again, when it is time.
async fn later<T>(incomplete: Option<T>) -> Option<T> {
    tokio::time::sleep(UNUSABLE_AGAIN_AFTER).await;
    incomplete
}

async fn compile(bytes: &[u8], plans: &Plans, known: Arc<Snapshot>) -> Result<Snapshot, String> {
    let definitions: Definitions =
        decode_message(MessageKind::Definitions, bytes).map_err(|error| error.to_string())?;
    let flags = definitions.flags.clone();
    let Compiled { strategies, contracts, definitions } = compiled(known, definitions).await?;
    if let Some(problem) = strategies.too_costly() {
        // They were accepted when they were defined, maybe by an earlier version.
        tracing::warn!(%problem, "the active strategies cost more than would be accepted now");
    }
    let mut snapshot = Snapshot {
        revision: definitions.revision,
        strategies,
        flags,
        contracts,
        ..Snapshot::default()
    };
    for WorkflowEntry { name, version, plan } in definitions.workflows {
        match plans.fetch(plan).await {
            Ok(executable) => {
                snapshot.workflows.entry(name).or_default().insert(version, (plan, executable));
            }
            // The others are no worse for it: what starts this one is rejected
            // without waiting, until a later read finds the plan.
            Err(error) => {
                tracing::error!(workflow = &*name, version = &*version, %error, "the plan of a workflow cannot be used");
                snapshot.unusable.insert((name, version));
            }
        }
    }
    Ok(snapshot)
}

/// What takes long to make of definitions.
struct Compiled {
    strategies: StrategySet,
    contracts: Contracts,
    definitions: Definitions,
}

/// Compiles strategies and contracts, away from the threads that everything else runs on.
async fn compiled(known: Arc<Snapshot>, definitions: Definitions) -> Result<Compiled, String> {
    let compiled = tokio::task::spawn_blocking(move || {
        let strategies = strategies_of(&definitions)?;
        let contracts = known.contracts.renewed(&definitions);
        Ok(Compiled { strategies, contracts, definitions })
    });
    compiled.await.map_err(|error| error.to_string())?
}

fn strategies_of(definitions: &Definitions) -> Result<StrategySet, String> {
    let entries = definitions.strategies.values();
    let strategies = entries
        .map(|entry| serde_json::from_str::<StrategyDefinition>(entry.definition.as_str()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    StrategySet::compile_accepted(strategies)
        .map_err(|problems| problems.first().map_or_else(String::new, ToString::to_string))
}

#[cfg(test)]
mod tests {
    use fermata_core::command::StrategyEntry;
    use fermata_core::json::Json;
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn nothing_is_compiled_on_the_threads_of_the_runtime() {
        let compiled = compiled(Arc::default(), Definitions::default());
        let mut compiled = std::pin::pin!(compiled);

        assert!(compiled.as_mut().now_or_never().is_none(), "it was done at the first look");
        assert!(compiled.await.is_ok());
    }

    #[tokio::test]
    async fn nor_are_strategies_that_do_not_compile() {
        let definition = Json::from_value(&serde_json::json!("none"));
        let entry = StrategyEntry { name: "s".into(), version: 1, definition };
        let mut definitions = Definitions::default();
        definitions.strategies.insert("s".into(), entry);
        let compiled = compiled(Arc::default(), definitions);
        let mut compiled = std::pin::pin!(compiled);

        assert!(compiled.as_mut().now_or_never().is_none(), "it was done at the first look");
        assert!(compiled.await.is_err());
    }
}
