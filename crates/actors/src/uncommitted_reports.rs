//! Outcomes of attempts on their way into a journal.
//!
//! Whoever holds some and ends, however it ends, leaves them to the node
//! runner, which sends them to the partition's commands: an outcome that was
//! forgotten would be an effect that is done again, or one that nobody knows.

use fermata_core::identity::PartitionId;
use fermata_core::partition::Report;
use ractor::ActorRef;

use crate::node_runner::NodeRunnerMessage;

/// Reports that are not committed; what is left in it when it is dropped goes
/// to the partition's commands.
#[derive(Debug)]
pub struct UncommittedReports {
    partition: PartitionId,
    runner: ActorRef<NodeRunnerMessage>,
    reports: Vec<Report>,
}

impl UncommittedReports {
    /// Reports of `partition`, brought by `runner`.
    #[must_use]
    pub fn new(
        partition: PartitionId,
        runner: ActorRef<NodeRunnerMessage>,
        reports: Vec<Report>,
    ) -> Self {
        Self { partition, runner, reports }
    }

    /// Takes them out; from here on the caller answers for them.
    #[must_use]
    pub fn take(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Adds some.
    pub fn extend(&mut self, reports: impl IntoIterator<Item = Report>) {
        self.reports.extend(reports);
    }

    /// Those that are held now.
    pub fn iter(&self) -> impl Iterator<Item = &Report> {
        self.reports.iter()
    }

    /// Sends those that are held now to the partition's commands.
    pub fn publish(&mut self) {
        let reports = self.take();
        if !reports.is_empty() {
            // A runner that is gone ends with its process: the next owner
            // orders again.
            let _ = self.runner.cast(NodeRunnerMessage::Publish(self.partition, reports));
        }
    }
}

impl Drop for UncommittedReports {
    fn drop(&mut self) {
        self.publish();
    }
}
