//! What the owner does to the world, once the records that order it are durable.

use fermata_core::effect::{DeadCommand, Effect, Outcome, RunEnded};
use fermata_core::partition::Report;
use fermata_core::record::Kind;
use fermata_core::run::AttemptReport;
use fermata_wire::dead::DeadLetter;
use ractor::{ActorProcessingErr, ActorRef};

use super::dead_events::file_event;
use super::readers::Reader;
use super::{AGAIN_AFTER, Coordinator, CoordinatorMessage, CoordinatorState};
use crate::case_replay::replay_case;
use crate::clock::wall_ms;
use crate::listener::file;
use crate::node_runner::NodeRunnerMessage;
use crate::trace;

impl Coordinator {
    pub(super) async fn effect(
        &self,
        myself: &ActorRef<CoordinatorMessage>,
        effect: Effect,
        state: &mut CoordinatorState,
    ) -> Result<(), ActorProcessingErr> {
        match effect {
            Effect::Start(attempt) => {
                self.runner.cast(NodeRunnerMessage::Start(myself.get_id(), vec![attempt]))?;
            }
            Effect::Abort(run) => self.runner.cast(NodeRunnerMessage::Abort(run))?,
            Effect::HandleCase(notice) => {
                self.metrics.escalated();
                let run = notice.run.map(tracing::field::display);
                tracing::info!(
                    partition = %self.partition, run, case = %notice.case, tier = notice.tier,
                    reason = &*notice.reason, attempt = notice.attempt, "a case is open"
                );
                state.cases.add(notice);
                self.tell_cases(myself, state).await?;
            }
            Effect::FileDead(dead) => {
                state.errands.send(myself.clone(), file_dead(self.reader(), dead));
            }
            Effect::Ended(ended) => self.tell_instruments(&ended, state),
            Effect::Project => self.project(state),
            Effect::ReplayCase(replay) => {
                let replay = replay_case(self.ports.clone(), self.metrics.clone(), replay);
                let report = async move { Report::CaseReplayed(replay.await) };
                state.errands.send(myself.clone(), report);
            }
            Effect::FileEvent(dead) => {
                state.errands.send(myself.clone(), file_event(self.ports.clone(), *dead));
            }
            Effect::Matched(matched) => self.metrics.event_matched(&matched),
            Effect::Enqueue(queued) => self.enqueue(queued, state),
            Effect::Recall(recall) => self.recall(myself, *recall, state).await,
            Effect::Reply { to, answer } => {
                let payload = answer.as_str().to_owned().into();
                if let Err(error) = self.ports.core.publish_core(to.to_string(), payload).await {
                    tracing::warn!(partition = %self.partition, to = &*to, %error, "an answer could not be sent");
                }
            }
        }
        Ok(())
    }

    /// Tells metrics, traces and the log that a run has ended.
    pub(super) fn tell_instruments(&self, ended: &RunEnded, state: &mut CoordinatorState) {
        self.metrics.nodes_succeeded(u64::from(ended.nodes_succeeded));
        let took_ms = ended.ended_ms.saturating_sub(ended.started_ms);
        self.metrics.run_ended(took_ms, ended.strategy.as_deref());
        trace::run_ended(ended);
        let (partition, run, workflow) = (self.partition, ended.run, &*ended.workflow);
        let trace = || trace::id(run, ended.traceparent.as_deref());
        if ended.failed {
            if let Some(left_out) = state.failed_runs.line() {
                tracing::warn!(%partition, %run, trace = %trace(), workflow, took_ms, left_out, "a run ended, and not well");
            }
        } else {
            tracing::debug!(%partition, %run, trace = %trace(), workflow, took_ms, "a run succeeded");
        }
    }

    /// Says in the log what follows from an attempt that failed, as the owner
    /// will decide: another one, or the end of its node.
    pub(super) fn log_failure(&self, report: &AttemptReport, state: &mut CoordinatorState) {
        let Outcome::Failed { class, detail } = &report.outcome else { return };
        if !tracing::enabled!(tracing::Level::WARN) {
            return;
        }
        let AttemptReport { run: id, node, attempt, .. } = report;
        let partition = state.owner.as_ref().map(fermata_partition::owner::Owner::partition);
        let Some((partition, run)) = partition.and_then(|found| Some((found, found.run(*id)?)))
        else {
            return;
        };
        let index = run.executable.find(node);
        let follows = index.and_then(|index| {
            run.conclude(*id, index, *attempt, &report.outcome, partition.time())
        });
        let Some(follows) = follows.map(|record| record.body.kind()) else { return };
        let (partition, class, node) = (self.partition, class.as_str(), &**node);
        let trace = || trace::id(*id, run.traceparent.as_deref());
        if follows == Kind::NodeRetrying {
            tracing::debug!(%partition, run = %id, node, attempt, trace = %trace(), class, detail, "an attempt failed; it is tried again");
        } else if let Some(left_out) = state.failed_nodes.line() {
            tracing::warn!(%partition, run = %id, node, attempt, trace = %trace(), class, detail, left_out, "a node failed");
        }
    }
}

/// Files the bytes of a command that could not be decided.
async fn file_dead(reader: Reader, dead: DeadCommand) -> Report {
    let stream = &reader.commands_stream;
    let DeadCommand { sequence, index, reason, detail } = dead;
    let original = loop {
        match reader.ports.reader.read_one(stream, sequence).await {
            Ok(message) => break message.map_or_else(bytes::Bytes::new, |message| message.payload),
            Err(error) => {
                tracing::warn!(stream, sequence, %error, "a poisoned command cannot be read yet");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    };
    let place = index.map_or_else(|| "all".to_owned(), |index| index.to_string());
    let letter = DeadLetter {
        id: format!("{stream}.{sequence}.{place}"),
        tenant: "_engine".to_owned(),
        stage: "coordinator".to_owned(),
        reason: reason.to_string(),
        detail,
        subject: stream.clone(),
        original,
        time_ms: wall_ms(),
        headers: Vec::new(),
        attempts: None,
        trace: None,
    };
    while !file(&reader.ports, vec![letter.clone()]).await {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    Report::DeadFiled { sequence, index }
}
