//! Commands to other partitions: published until their COMMANDS holds them.

use std::time::Duration;

use fermata_jetstream::PublishOutcome;
use fermata_partition::message::AppendOutcome;
use fermata_partition::owner::Relay;
use fermata_wire::subjects;
use ractor::ActorRef;

use super::{Answer, Coordinator, CoordinatorMessage, CoordinatorState};

impl Coordinator {
    /// Publishes a frame; the owner says whether it is sent again.
    pub(super) fn relay(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        relay: Relay,
        pause: Duration,
        state: &CoordinatorState,
    ) {
        let publisher = self.ports.publisher.clone();
        self.ask(myself, state, async move {
            let Relay { target, up_to, frame } = relay;
            tokio::time::sleep(pause).await;
            let subject = subjects::commands(target);
            let outcome = match publisher.publish(subject, None, frame).await.await {
                PublishOutcome::Stored { sequence, .. } => AppendOutcome::Stored { sequence },
                PublishOutcome::Unknown => AppendOutcome::Unknown,
                PublishOutcome::Refused { description, code, .. } => {
                    tracing::warn!(
                        partition = %target, code, description,
                        "a partition's commands take nothing; they are sent again"
                    );
                    AppendOutcome::Refused
                }
            };
            Answer::Relayed(target, up_to, outcome)
        });
    }
}
