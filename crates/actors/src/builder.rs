//! WorkflowBuilder: from what matched to commands for partitions.
//!
//! Names the plan that each run will keep, checks the run's input against the
//! workflow, and publishes one command per event with the complete outcome.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fermata_core::command::{Command, EventCommand, EventReference, StartRun, Verdict};
use fermata_core::digest::Digest;
use fermata_core::identity::{PartitionId, RunId};
use fermata_core::json::Json;
use fermata_core::plan::input;
use fermata_core::run::OUTPUT_BYTES_MAX;
use fermata_jetstream::PublishOutcome;
use fermata_wire::commands::CommandFrameBuilder;
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::{
    ChosenWorkflow, MatchOutcome, MatchedEvent, MatchedFrame, NO_KEY, Rejection,
};
use fermata_wire::subjects;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::watch;

use crate::definitions::Snapshot;
use crate::floor::Floor;
use crate::hop::publish_known;
use crate::listener::file;
use crate::matcher::dead_letter;
use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::stage::{Durable, Stage};
use crate::trace;

/// Bytes that the records decided for one frame of commands may take, roughly:
/// what is ready is put together up to this. All of them share one journal
/// message with what was decided before them.
pub const COMMAND_FRAME_BYTES_TARGET: usize = 128 * 1024;

/// Most runs that one event starts. Each is recorded with the event's
/// attributes, and all of them share a journal message.
pub const RUNS_OF_EVENT_MAX: usize = 64;

/// Bytes that the records of one event's start may take in the journal. A
/// larger one is rejected as `too_large`.
pub const START_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a record besides its payload's own texts, roughly.
const RECORD_BYTES: usize = 320;

/// What a frame says of the floor that stands behind no message of EVENTS.
const NO_FLOOR: u64 = 0;

/// How long a definition that a strategy names may be missing here, because
/// this process has not seen the newest ones, before the event is rejected.
pub const DEFINITION_WAIT: Duration = Duration::from_secs(60);

/// Name of the durable consumer of MATCHED that all builders share.
pub const BUILDER_CONSUMER: &str = "builder";

/// Builds with the definitions that are active when a frame comes.
#[derive(Debug)]
pub struct Builder {
    ports: Ports,
    floor: Floor,
    metrics: Metrics,
}

impl Builder {
    /// A builder; its frames tell partitions the `floor`.
    #[must_use]
    pub fn new(ports: Ports, floor: Floor, metrics: Metrics) -> Self {
        Self { ports, floor, metrics }
    }
}

impl Stage for Builder {
    type Input = MatchedFrame;

    fn take(&mut self, frame: MatchedFrame) -> BoxFuture<'static, Durable> {
        let snapshot = self.ports.definitions.borrow().clone();
        let (ports, metrics) = (self.ports.clone(), self.metrics.clone());
        // Read before the frames are published: they stand behind what it speaks of.
        let floor = self.floor.get();
        if frame.events.iter().all(|event| is_known(&snapshot, event)) {
            let built = build(&ports, &snapshot, &frame, floor, &metrics);
            return Box::pin(async move { store(&ports, built).await.into() });
        }
        Box::pin(async move {
            let snapshot = wait_for_definitions(ports.definitions.clone(), &frame).await;
            let built = build(&ports, &snapshot, &frame, floor, &metrics);
            store(&ports, built).await.into()
        })
    }
}

/// Waits until every workflow that the frame names is known here, or gives up.
async fn wait_for_definitions(
    mut definitions: watch::Receiver<Arc<Snapshot>>,
    frame: &MatchedFrame,
) -> Arc<Snapshot> {
    let known =
        definitions.wait_for(|snapshot| frame.events.iter().all(|event| is_known(snapshot, event)));
    if let Ok(Ok(snapshot)) = tokio::time::timeout(DEFINITION_WAIT, known).await {
        return snapshot.clone();
    }
    definitions.borrow().clone()
}

fn is_known(snapshot: &Snapshot, event: &MatchedEvent) -> bool {
    match &event.outcome {
        MatchOutcome::Start { chosen, .. } => chosen.iter().all(|chosen| {
            let (name, version) = (&chosen.workflow, &chosen.workflow_version);
            snapshot.workflow(name, version).is_some() || snapshot.is_unusable(name, version)
        }),
        MatchOutcome::Ignored { .. }
        | MatchOutcome::Unmatched { .. }
        | MatchOutcome::Rejected(_) => true,
    }
}

/// A frame of commands for a partition.
#[derive(Debug)]
struct CommandsFor {
    partition: PartitionId,
    commands: u32,
    frame: Vec<u8>,
}

/// What comes of a frame.
#[derive(Debug, Default)]
struct Built {
    frames: Vec<CommandsFor>,
    dead: Vec<DeadLetter>,
    /// Something could not be encoded: the source must come again.
    failed: bool,
}

impl Built {
    fn finish(&mut self, partition: PartitionId, builder: &mut CommandFrameBuilder, floor: u64) {
        if builder.is_empty() {
            return;
        }
        let commands = builder.len();
        match builder.finish(floor) {
            Ok(frame) => self.frames.push(CommandsFor { partition, commands, frame }),
            Err(error) => {
                tracing::error!(%partition, %error, "a frame of commands cannot be encoded");
                self.failed = true;
            }
        }
    }
}

/// Bytes that the records of a command's start take, roughly.
fn record_bytes(command: &Command) -> usize {
    let Command::Event(event) = command else { return RECORD_BYTES };
    let reference = reference_bytes(&event.event);
    let signal = event.correlation.as_ref().map_or(0, |correlation| {
        reference + correlation.key.len() + correlation.data.json.as_str().len()
    });
    signal + verdict_bytes(&event.verdict, reference)
}

fn verdict_bytes(verdict: &Verdict, reference: usize) -> usize {
    match verdict {
        Verdict::Start { runs } => start_bytes(reference, runs.iter().map(|run| &run.input)),
        Verdict::Ignored { .. } => reference,
        Verdict::Unmatched { .. } | Verdict::Rejected { .. } => reference + 2 * RECORD_BYTES,
    }
}

fn reference_bytes(event: &EventReference) -> usize {
    RECORD_BYTES + event.bytes()
}

fn start_bytes<'a>(reference: usize, inputs: impl Iterator<Item = &'a Json>) -> usize {
    inputs.map(|input| reference + input.as_str().len()).sum::<usize>() + reference
}

fn build(
    ports: &Ports,
    snapshot: &Snapshot,
    frame: &MatchedFrame,
    floor: u64,
    metrics: &Metrics,
) -> Built {
    let mut builders: BTreeMap<PartitionId, (CommandFrameBuilder, usize)> = BTreeMap::new();
    let mut built = Built::default();
    let mut generated = 0;
    for event in &frame.events {
        let verdict = verdict(snapshot, event);
        match (&verdict, &event.outcome) {
            (Verdict::Start { runs }, _) => generated += runs.len(),
            (Verdict::Rejected { reason, detail, original }, MatchOutcome::Start { raw, .. }) => {
                let (reason, detail, original) = (reason.clone(), detail.clone(), *original);
                let rejection = Rejection { reason, detail, original };
                let letter =
                    dead_letter("builder", &event.event, event.source, &rejection, raw.clone());
                built.dead.push(letter);
            }
            _ => {}
        }
        let partition = partition_of(ports, event);
        trace_strategies(partition, event, &verdict);
        let command = Command::Event(EventCommand {
            event: event.event.clone(),
            key: u128::from_be_bytes(event.key),
            source: event.source,
            replay: event.replay,
            verdict,
            correlation: event.correlation.clone(),
        });
        let (builder, bytes) = builders.entry(partition).or_default();
        let next = record_bytes(&command);
        if *bytes + next > COMMAND_FRAME_BYTES_TARGET {
            built.finish(partition, builder, floor);
            *bytes = 0;
        }
        *bytes += next;
        if let Err(error) = builder.push(&command) {
            tracing::error!(source = %event.source, %error, "a command cannot be encoded");
            built.failed = true;
        }
    }
    for (partition, (mut builder, _)) in builders {
        built.finish(partition, &mut builder, floor);
    }
    metrics.generated(generated as u64);
    built
}

/// Shows in the event's trace which strategies start runs for it.
fn trace_strategies(partition: PartitionId, matched: &MatchedEvent, verdict: &Verdict) {
    let Verdict::Start { runs } = verdict else { return };
    if !trace::is_exporting() {
        return;
    }
    let MatchedEvent { event, source, replay, .. } = matched;
    let key = u128::from_be_bytes(matched.key);
    for started in runs {
        let strategy = &started.strategy;
        let run = RunId::new(partition, &event.tenant, key, *source, strategy, *replay);
        let traceparent = event.traceparent.as_deref();
        trace::strategy(run, traceparent, strategy, started.strategy_version);
    }
}

/// An event is placed by its key, whatever becomes of it, so that one partition
/// decides it even when matching changes between two deliveries. What could not
/// be decoded has no key and is placed by where it stood.
fn partition_of(ports: &Ports, event: &MatchedEvent) -> PartitionId {
    let tenant = event.event.tenant.as_str();
    match event.key {
        NO_KEY => ports.facts.partition_of(tenant, event.source.to_string().as_bytes()),
        key => ports.facts.partition_of(tenant, &key),
    }
}

fn verdict(snapshot: &Snapshot, event: &MatchedEvent) -> Verdict {
    match &event.outcome {
        MatchOutcome::Ignored { strategy } => Verdict::Ignored { strategy: strategy.clone() },
        MatchOutcome::Unmatched { near } => Verdict::Unmatched { near: near.clone() },
        MatchOutcome::Rejected(rejection) => Verdict::Rejected {
            reason: rejection.reason.clone(),
            detail: rejection.detail.clone(),
            original: rejection.original,
        },
        MatchOutcome::Start { chosen, raw } => start(snapshot, &event.event, chosen, raw),
    }
}

fn start(
    snapshot: &Snapshot,
    event: &EventReference,
    chosen: &[ChosenWorkflow],
    raw: &[u8],
) -> Verdict {
    if chosen.len() > RUNS_OF_EVENT_MAX {
        let runs = chosen.len();
        let detail = format!("the event would start {runs} runs, at most {RUNS_OF_EVENT_MAX}");
        return rejected("too_many_runs", detail, raw);
    }
    let inputs = chosen.iter().map(|chosen| &chosen.variables);
    let bytes = start_bytes(reference_bytes(event), inputs);
    if bytes > START_BYTES_MAX {
        let detail = format!("starting its runs takes {bytes} bytes, at most {START_BYTES_MAX}");
        return rejected("too_large", detail, raw);
    }
    let runs = chosen.iter().map(|chosen| start_run(snapshot, chosen)).collect();
    match runs {
        Ok(runs) => Verdict::Start { runs },
        Err((reason, detail)) => rejected(reason, detail, raw),
    }
}

fn start_run(
    snapshot: &Snapshot,
    chosen: &ChosenWorkflow,
) -> Result<StartRun, (&'static str, String)> {
    let (workflow, version) = (&chosen.workflow, &chosen.workflow_version);
    let Some((digest, executable)) = snapshot.workflow(workflow, version) else {
        let detail = format!("workflow `{workflow}` version `{version}` is not defined");
        return Err(("definition_missing", detail));
    };
    if chosen.variables.as_str().len() > OUTPUT_BYTES_MAX {
        let bytes = chosen.variables.as_str().len();
        return Err((
            "too_large",
            format!("the run's input has {bytes} bytes, at most {OUTPUT_BYTES_MAX}"),
        ));
    }
    if let Some(schema) = &executable.plan().input_schema {
        let problems = input::check(&schema.parse(), &chosen.variables.parse());
        if let Err(problems) = problems {
            let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Err(("input_invalid", format!("workflow `{workflow}`: {text}")));
        }
    }
    Ok(StartRun {
        strategy: chosen.strategy.clone(),
        strategy_version: chosen.strategy_version,
        plan: *digest,
        input: chosen.variables.clone(),
    })
}

fn rejected(reason: &str, detail: String, raw: &[u8]) -> Verdict {
    Verdict::Rejected { reason: reason.into(), detail, original: Digest::of(raw) }
}

/// Builds a frame that comes from no stream; true once what comes of it is stored.
pub(crate) async fn store_commands(ports: &Ports, frame: &MatchedFrame, metrics: &Metrics) -> bool {
    let snapshot = wait_for_definitions(ports.definitions.clone(), frame).await;
    let built = build(ports, &snapshot, frame, NO_FLOOR, metrics);
    store(ports, built).await
}

/// Publishes all frames at once, each as soon as there is room for it; true once every one is
/// stored.
async fn store(ports: &Ports, built: Built) -> bool {
    if built.failed || !file(ports, built.dead).await {
        return false;
    }
    let publishes = built.frames.into_iter().map(|commands_for| async move {
        let CommandsFor { partition, commands, frame } = commands_for;
        let admitted = ports.room.wait_for(partition, frame.len(), commands.into()).await;
        let Some(admitted) = admitted else { return false };
        let subject = subjects::commands(partition);
        let outcome = publish_known(&ports.publisher, &subject, frame.into()).await;
        let stored = matches!(outcome, PublishOutcome::Stored { .. });
        admitted.ended(outcome);
        stored
    });
    join_all(publishes).await.into_iter().all(|stored| stored)
}
