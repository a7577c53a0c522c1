//! What somebody does to a scene for a while, beside all else: garbage, events again, cancels.

use std::collections::BTreeSet;
use std::time::Duration;

use fermata_core::identity::PartitionId;
use fermata_jetstream::{PublishOutcome, Publisher, StreamReader};
use fermata_tests::garbage;
use fermata_tests::journal::JournalWatch;
use fermata_wire::MessageKind;
use fermata_wire::commands::CommandFrame;
use fermata_wire::subjects;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::cancels::{begun, cancel};
use crate::faults::Fault;
use crate::load::{Past, publish_until_stored};
use crate::scene::PARTITIONS;

/// Pause between two rounds of garbage.
const LITTER_PAUSE: Duration = Duration::from_millis(300);

/// Pause between two events that are published again.
const REPEAT_PAUSE: Duration = Duration::from_millis(20);

/// One of so many runs is cancelled.
const CANCEL_ONE_OF: u64 = 3;

/// Pause between two looks for runs that have begun; and how long after it one is cancelled at the
/// most, milliseconds.
const LOOK: Duration = Duration::from_millis(50);
const CANCEL_AFTER_MS: u64 = 300;

/// What was done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Disturbed {
    /// Garbage that was published to COMMANDS.
    pub commands_tried: usize,
    /// Of that, what is known to be stored.
    pub commands_stored: usize,
    /// Events that were published again.
    pub repeats: usize,
    /// Runs that were asked to be cancelled.
    pub cancels: usize,
}

impl Disturbed {
    /// All of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            commands_tried: self.commands_tried + other.commands_tried,
            commands_stored: self.commands_stored + other.commands_stored,
            repeats: self.repeats + other.repeats,
            cancels: self.cancels + other.cancels,
        }
    }
}

/// Somebody who disturbs until told to stop.
pub struct Disturbance {
    pub fault: Fault,
    stop: watch::Sender<bool>,
    task: JoinHandle<Disturbed>,
}

impl Disturbance {
    fn start<F: Future<Output = Disturbed> + Send + 'static>(
        fault: Fault,
        disturb: impl FnOnce(watch::Receiver<bool>) -> F,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { fault, stop, task: tokio::spawn(disturb(stopped)) }
    }

    /// Garbage into every stream.
    pub fn garbage(publisher: Publisher, seed: u64) -> Self {
        Self::start(Fault::Garbage, |stopped| litter(publisher, seed, stopped))
    }

    /// Past events once more.
    pub fn repeats(publisher: Publisher, past: Past, seed: u64) -> Self {
        Self::start(Fault::Repeats, |stopped| repeat(publisher, past, seed, stopped))
    }

    /// Runs are cancelled shortly after they have begun.
    pub fn cancels(
        publisher: Publisher,
        reader: StreamReader,
        watches: Vec<JournalWatch>,
        seed: u64,
    ) -> Self {
        Self::start(Fault::Cancels, |stopped| {
            cancel_some(publisher, reader, watches, seed, stopped)
        })
    }

    /// Tells it to stop.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until it has, with everything done that it began.
    pub async fn stopped(self) -> Disturbed {
        self.stop();
        self.task.await.expect("a disturbance that does not panic")
    }
}

/// Where messages of ours go that anybody may litter.
pub fn littered() -> Vec<String> {
    let partitions = (0..PARTITIONS).map(PartitionId).chain([PartitionId::CONTROL]);
    let of_partition = |partition| {
        [
            subjects::commands(partition),
            subjects::journal(partition),
            subjects::audit_log(partition),
            subjects::checkpoints(partition),
        ]
    };
    let stages = [subjects::ADMITTED, subjects::MATCHED, "fermata.events.acme.load.call"];
    partitions.flat_map(of_partition).chain(stages.map(str::to_owned)).collect()
}

/// Whether garbage there is taken for a command.
pub fn is_of_commands(subject: &str) -> bool {
    let partitions = (0..PARTITIONS).map(PartitionId).chain([PartitionId::CONTROL]);
    partitions.map(subjects::commands).any(|commands| commands == subject)
}

async fn litter(publisher: Publisher, seed: u64, stopped: watch::Receiver<bool>) -> Disturbed {
    let sound = CommandFrame { floor: 0, commands: Vec::new() }.encode().expect("a frame");
    let (mut dice, mut disturbed) = (StdRng::seed_from_u64(seed), Disturbed::default());
    while !*stopped.borrow() {
        let messages = garbage::messages(MessageKind::Commands, &sound, dice.random());
        for subject in littered() {
            if *stopped.borrow() {
                break;
            }
            let (_, bytes) = &messages[dice.random_range(0..messages.len())];
            let is_command = is_of_commands(&subject);
            let outcome = publisher.publish(subject, None, bytes.clone()).await.await;
            disturbed.commands_tried += usize::from(is_command);
            let is_stored = matches!(outcome, PublishOutcome::Stored { .. });
            disturbed.commands_stored += usize::from(is_command && is_stored);
        }
        tokio::time::sleep(LITTER_PAUSE).await;
    }
    disturbed
}

async fn repeat(
    publisher: Publisher,
    past: Past,
    seed: u64,
    stopped: watch::Receiver<bool>,
) -> Disturbed {
    let (mut dice, mut repeats) = (StdRng::seed_from_u64(seed), 0);
    while !*stopped.borrow() {
        let (subject, bytes) = past.event(dice.random_range(0..past.count().max(1)));
        publish_until_stored(&publisher, subject, &bytes).await;
        repeats += 1;
        tokio::time::sleep(REPEAT_PAUSE).await;
    }
    Disturbed { repeats, ..Disturbed::default() }
}

async fn cancel_some(
    publisher: Publisher,
    reader: StreamReader,
    mut watches: Vec<JournalWatch>,
    seed: u64,
    stopped: watch::Receiver<bool>,
) -> Disturbed {
    let (mut dice, mut seen) = (StdRng::seed_from_u64(seed), BTreeSet::new());
    // Those that began before it are let alone.
    let _ = begun(&reader, &mut watches, &mut seen).await;
    let mut cancels = JoinSet::new();
    while !*stopped.borrow() {
        for run in begun(&reader, &mut watches, &mut seen).await {
            if dice.random_range(0..CANCEL_ONE_OF) > 0 {
                continue;
            }
            let after = Duration::from_millis(dice.random_range(0..CANCEL_AFTER_MS));
            let publisher = publisher.clone();
            cancels.spawn(async move {
                tokio::time::sleep(after).await;
                cancel(&publisher, run).await;
            });
        }
        tokio::time::sleep(LOOK).await;
    }
    Disturbed { cancels: cancels.join_all().await.len(), ..Disturbed::default() }
}
