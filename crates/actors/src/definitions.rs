//! Active definitions as every process sees them: the projection of the control
//! partition, watched, compiled once per change.

mod plans;
mod projected;

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use fermata_core::command::WorkflowEntry;
use fermata_core::digest::Digest;
use fermata_core::flags::Flags;
use fermata_core::partition::Definitions;
use fermata_core::plan::Executable;
use fermata_core::strategy::{StrategyDefinition, StrategySet};
use fermata_jetstream::definitions_store::{
    DefinitionChange, DefinitionWatch, DefinitionsStore, StoreError,
};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::watch;

use crate::contracts::Contracts;
use crate::doubling::Doubling;

pub use plans::{PLAN_READ_LIMIT, PLAN_READS_MAX, PlanError, Plans};
pub use projected::{OBJECTS_FOLDER, ProjectionError, active_definitions, read_projection};

/// Key of the projection in the definitions bucket.
pub const ACTIVE_KEY: &str = "active";

/// Pause before a broken watch is made again.
const WATCH_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Pause before definitions are compiled again of which some plan could not be
/// used. Default 10 s: a read of a missing plan takes about one.
const UNUSABLE_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Pause before an object of definitions is read again that could not be used; doubled up to
/// [`OBJECT_AGAIN_AFTER_MAX`], for each read may be of all 16 MiB, in every process. Whoever stores
/// it again writes its message again, which is read at once.
const OBJECT_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Longest pause before an object of definitions is read again, or stored again by its owner.
pub(crate) const OBJECT_AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);

/// Plans that are read at once: a worker that starts reads up to
/// [`WORKFLOWS_MAX`](fermata_core::partition::WORKFLOWS_MAX), and for one that is missing it asks
/// [`PLAN_READS_MAX`] times. Each takes a consumer of the broker while it is read.
const PLANS_AT_ONCE: usize = 16;

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

/// Where definitions are read.
struct Reading {
    store: DefinitionsStore,
    plans: Plans,
}

/// Watches the projection; the receiver always holds the newest snapshot that
/// compiled. What does not compile, and what is removed, changes nothing: the
/// control partition's owner puts the right one there again.
///
/// The task ends when every receiver is dropped.
#[must_use]
pub fn watch_definitions(store: DefinitionsStore, plans: Plans) -> watch::Receiver<Arc<Snapshot>> {
    let (sender, receiver) = watch::channel(Arc::new(Snapshot::default()));
    let reading = Reading { store, plans };
    tokio::spawn(async move {
        while !sender.is_closed() {
            if let Err(error) = follow(&reading, &sender).await {
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
    reading: &Reading,
    sender: &watch::Sender<Arc<Snapshot>>,
) -> Result<(), StoreError> {
    let mut watch = reading.store.watch(ACTIVE_KEY).await?;
    let mut warned = false;
    // What was read last, if it is to be read again, and when.
    let mut again = None;
    let mut pauses = Doubling::new(OBJECT_AGAIN_AFTER, OBJECT_AGAIN_AFTER_MAX);
    loop {
        let read = tokio::select! {
            // While one set was compiled others may have followed it: the newest alone counts.
            change = next_of(&mut watch) => {
                pauses.reset();
                match change? {
                    None => return Ok(()),
                    Some(DefinitionChange::Removed { .. }) => Err("they were removed".to_owned()),
                    Some(DefinitionChange::Put(stored)) => Ok(stored.value),
                }
            }
            Some(again) = later(again.clone()) => Ok(again),
            () = sender.closed() => return Ok(()),
        };
        let known = sender.borrow().clone();
        let compiled = match read {
            Ok(message) => match compile(&message, reading, known).await {
                Ok(snapshot) => {
                    again =
                        (!snapshot.unusable.is_empty()).then_some((UNUSABLE_AGAIN_AFTER, message));
                    Ok(snapshot)
                }
                Err(error) => {
                    let pause = pauses.pause();
                    // Who stores an object again writes its message again; a broker that comes back
                    // tells nobody.
                    let pause = if error.is_told_when_it_passes() {
                        pause
                    } else {
                        OBJECT_AGAIN_AFTER.min(pause)
                    };
                    again = error.may_pass().then_some((pause, message));
                    Err(told(&error))
                }
            },
            Err(problem) => Err(problem),
        };
        match compiled {
            Ok(snapshot) => {
                warned = false;
                // Put there again, they are what they were.
                let revision = snapshot.revision;
                let before = sender.send_replace(Arc::new(snapshot));
                // Whoever reads this may count on it.
                if revision != before.revision {
                    tracing::info!(revision, "definitions are active");
                }
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

/// The next change, or, of those that are there already, the last.
///
/// # Cancel safety
///
/// Nothing is lost when dropped.
async fn next_of(watch: &mut DefinitionWatch) -> Result<Option<DefinitionChange>, StoreError> {
    let first = watch.next().await?;
    newest(first, || watch.next().now_or_never())
}

/// The last of changes; `ready` gives those that are there already.
fn newest<T, E>(
    first: Option<T>,
    mut ready: impl FnMut() -> Option<Result<Option<T>, E>>,
) -> Result<Option<T>, E> {
    let mut newest = first;
    while newest.is_some() {
        match ready() {
            Some(change) => newest = change?,
            None => break,
        }
    }
    Ok(newest)
}

fn told(error: &ProjectionError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What is to be compiled again, when it is time.
async fn later<T>(again: Option<(Duration, T)>) -> Option<T> {
    let (after, again) = again?;
    tokio::time::sleep(after).await;
    Some(again)
}

async fn compile(
    message: &[u8],
    reading: &Reading,
    known: Arc<Snapshot>,
) -> Result<Snapshot, ProjectionError> {
    let definitions = read_projection(&reading.store, message).await?;
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
    let mut plans = stream::iter(definitions.workflows)
        .map(async |WorkflowEntry { name, version, plan }| {
            (name, version, plan, reading.plans.fetch(plan).await)
        })
        .buffer_unordered(PLANS_AT_ONCE);
    while let Some((name, version, plan, fetched)) = plans.next().await {
        match fetched {
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
async fn compiled(
    known: Arc<Snapshot>,
    definitions: Definitions,
) -> Result<Compiled, ProjectionError> {
    let compiled = tokio::task::spawn_blocking(move || {
        let strategies = strategies_of(&definitions)?;
        let contracts = known.contracts.renewed(&definitions);
        Ok(Compiled { strategies, contracts, definitions })
    });
    compiled.await.map_err(|error| ProjectionError::Unsound(error.to_string()))?
}

fn strategies_of(definitions: &Definitions) -> Result<StrategySet, ProjectionError> {
    let entries = definitions.strategies.values();
    let strategies = entries
        .map(|entry| serde_json::from_str::<StrategyDefinition>(entry.definition.as_str()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ProjectionError::Unsound(error.to_string()))?;
    StrategySet::compile_accepted(strategies).map_err(|problems| {
        let first = problems.first().map_or_else(String::new, ToString::to_string);
        ProjectionError::Unsound(first)
    })
}

#[cfg(test)]
mod tests {
    use fermata_core::command::StrategyEntry;
    use fermata_core::json::Json;

    use super::*;

    #[test]
    fn nothing_is_compiled_on_the_threads_of_the_runtime() {
        assert!(compiled_once_let_go(Definitions::default()).is_ok());
    }

    #[test]
    fn nor_are_strategies_that_do_not_compile() {
        let definition = Json::from_value(&serde_json::json!("none"));
        let entry = StrategyEntry { name: "s".into(), version: 1, definition };
        let mut definitions = Definitions::default();
        definitions.strategies.insert("s".into(), entry);

        assert!(compiled_once_let_go(definitions).is_err());
    }

    /// Compiles where the one thread for work that blocks is taken: nothing can be done there
    /// until it is let go, so what is done by then was done on a thread of the runtime.
    fn compiled_once_let_go(definitions: Definitions) -> Result<Compiled, ProjectionError> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.max_blocking_threads(1).build().unwrap().block_on(async {
            let (let_go, held) = std::sync::mpsc::channel::<()>();
            tokio::task::spawn_blocking(move || held.recv());
            let mut compiled = std::pin::pin!(compiled(Arc::default(), definitions));

            assert!(compiled.as_mut().now_or_never().is_none(), "it was done at the first look");
            drop(let_go);
            compiled.await
        })
    }

    #[test]
    fn of_sets_that_followed_each_other_the_newest_alone_is_compiled() {
        let (sender, mut sets) = tokio::sync::mpsc::unbounded_channel();
        (1..=40).for_each(|revision| sender.send(revision).unwrap());
        let mut next =
            |first| newest(first, || sets.recv().now_or_never().map(Ok::<_, StoreError>)).unwrap();

        assert_eq!(next(Some(0)), Some(40));
        assert_eq!(next(Some(41)), Some(41));
        sender.send(42).unwrap();
        drop(sender);
        // That the watch has ended is told at once: whoever makes it again reads the newest.
        assert_eq!(next(Some(0)), None);
    }
}
