//! The attempts that a runner has been given and that have not ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use fermata_core::effect::EffectKey;
use fermata_core::identity::{PartitionId, RunId, Tenant};
use fermata_core::run::AttemptReport;
use tokio::task::AbortHandle;

/// Whether an attempt has begun to touch the world: decided once, by its task
/// that begins or by its runner that withdraws it, whoever is first.
#[derive(Debug, Default)]
pub(super) struct Start(AtomicU8);

const WAITS: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Start {
    /// The attempt begins; false when it was withdrawn.
    pub(super) fn begin(&self) -> bool {
        self.settle(BEGUN)
    }

    /// The attempt must not begin any more; false when it has begun.
    fn withdraw(&self) -> bool {
        self.settle(WITHDRAWN)
    }

    fn settle(&self, to: u8) -> bool {
        self.0.compare_exchange(WAITS, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct RunningAttempt {
    pub(super) tenant: Tenant,
    pub(super) node: Arc<str>,
    pub(super) attempt: u32,
    pub(super) start: Arc<Start>,
    pub(super) task: AbortHandle,
}

/// All of them, by run.
#[derive(Debug, Default)]
pub(super) struct Running(HashMap<RunId, Vec<RunningAttempt>>);

impl Running {
    pub(super) fn add(&mut self, run: RunId, attempt: RunningAttempt) {
        self.0.entry(run).or_default().push(attempt);
    }

    /// What a new owner of `partition` adopts.
    pub(super) fn live(&self, partition: PartitionId) -> HashSet<(EffectKey, u32)> {
        let runs = self.0.iter().filter(|(run, _)| run.partition() == partition);
        runs.flat_map(|(run, attempts)| {
            let key = |node: &Arc<str>| EffectKey::of_node(*run, node.clone(), 1);
            attempts.iter().map(move |attempt| (key(&attempt.node), attempt.attempt))
        })
        .collect()
    }

    /// An attempt has ended.
    pub(super) fn forget(&mut self, report: &AttemptReport) {
        if let Some(attempts) = self.0.get_mut(&report.run) {
            attempts
                .retain(|attempt| attempt.node != report.node || attempt.attempt != report.attempt);
            if attempts.is_empty() {
                self.0.remove(&report.run);
            }
        }
    }

    /// Takes out what is under way for `run`.
    pub(super) fn take(&mut self, run: RunId) -> Vec<RunningAttempt> {
        self.0.remove(&run).unwrap_or_default()
    }

    /// Takes back the attempts of `partition` that have not begun: whoever owns
    /// it next finds that nobody works on them, and orders them again.
    pub(super) fn withdraw(&mut self, partition: PartitionId) -> usize {
        let mut withdrawn = 0;
        for (_, attempts) in self.0.iter_mut().filter(|(run, _)| run.partition() == partition) {
            attempts.retain(|attempt| {
                let is_withdrawn = attempt.start.withdraw();
                if is_withdrawn {
                    attempt.task.abort();
                    withdrawn += 1;
                }
                !is_withdrawn
            });
        }
        self.0.retain(|_, attempts| !attempts.is_empty());
        withdrawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_begins_or_is_withdrawn_and_never_both() {
        let (begins, withdrawn) = (Start::default(), Start::default());

        assert!(begins.begin());
        assert!(!begins.withdraw());
        assert!(withdrawn.withdraw());
        assert!(!withdrawn.begin());
    }
}
