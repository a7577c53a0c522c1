//! StrategyMatcher: what is to happen for each event.

mod draw;

use bytes::Bytes;
use fermata_core::command::EventReference;
use fermata_core::digest::Digest;
use fermata_core::event::{Event, EventLimits, Subject, decode_message};
use fermata_core::identity::SourcePosition;
use fermata_core::strategy::{Chosen, Decision, NearMiss, Strategy};
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::{
    Admission, AdmittedEvent, AdmittedFrame, ChosenWorkflow, MatchOutcome, MatchedEvent,
    MatchedFrame, Rejection,
};
use futures_util::future::BoxFuture;

pub(crate) use self::draw::Draws;
use crate::case_replay::not_routed;
use crate::clock::wall_ms;
use crate::definitions::Snapshot;
use crate::hop::Hop;
use crate::listener::file;
use crate::ports::Ports;
use crate::stage::{Durable, Stage};

/// Name of the durable consumer of ADMITTED that all matchers share.
pub const MATCHER_CONSUMER: &str = "matcher";

/// Asks the strategies that are active when a frame comes.
#[derive(Debug)]
pub struct Matcher {
    ports: Ports,
    next: Hop<MatchedFrame>,
    draws: Draws,
}

impl Matcher {
    /// A matcher that passes on to `next`.
    #[must_use]
    pub fn new(ports: Ports, next: Hop<MatchedFrame>) -> Self {
        Self { ports, next, draws: Draws::default() }
    }
}

impl Stage for Matcher {
    type Input = AdmittedFrame;

    fn take(&mut self, frame: AdmittedFrame) -> BoxFuture<'static, Durable> {
        let snapshot = self.ports.definitions.borrow().clone();
        let mut dead = Vec::new();
        let draws = &mut self.draws;
        let events = frame.events.into_iter();
        let events = events.map(|event| matched(&snapshot, event, draws, &mut dead)).collect();
        let (ports, next) = (self.ports.clone(), self.next.clone());
        Box::pin(async move {
            let durable = file(&ports, dead).await && next.pass(MatchedFrame { events }).await;
            durable.into()
        })
    }
}

/// What the strategies say about an event.
pub(crate) fn matched(
    snapshot: &Snapshot,
    admitted: AdmittedEvent,
    draws: &mut Draws,
    dead: &mut Vec<DeadLetter>,
) -> MatchedEvent {
    let AdmittedEvent { event, key, source, replay, admission, correlation } = admitted;
    let outcome = match admission {
        Admission::Rejected(rejection) => MatchOutcome::Rejected(rejection),
        Admission::Admitted { raw } => {
            let tenant = event.tenant.as_str();
            if let Some(strategy) = snapshot.strategies.ignored_by_type(tenant, &event.kind) {
                MatchOutcome::Ignored { strategy: strategy.name().into() }
            } else {
                let outcome = decide(snapshot, tenant, &event.kind, &raw, draws);
                if let MatchOutcome::Rejected(rejection) = &outcome {
                    dead.push(dead_letter("matcher", &event, source, rejection, raw));
                }
                outcome
            }
        }
    };
    MatchedEvent { event, key, source, replay, outcome, correlation }
}

fn decide(
    snapshot: &Snapshot,
    tenant: &str,
    kind: &str,
    raw: &Bytes,
    draws: &mut Draws,
) -> MatchOutcome {
    let decoded = decode_message(None, raw, Subject { tenant, kind }, &EventLimits::default());
    let event = match decoded.into_iter().next() {
        Some(Ok(event)) => event,
        Some(Err(rejected)) => {
            return rejection(rejected.reason.as_str(), rejected.detail, raw);
        }
        None => return rejection("not_json", "the event is empty".to_owned(), raw),
    };
    let decision = snapshot.strategies.decide(&event);
    draws.log(&decision, &event.id);
    match decision {
        Decision::Ignored { strategy, .. } => {
            MatchOutcome::Ignored { strategy: strategy.name().into() }
        }
        Decision::Start { chosen, .. } => {
            let chosen = chosen.into_iter().filter_map(chosen_workflow).collect();
            MatchOutcome::Start { chosen, raw: raw.clone() }
        }
        Decision::Unmatched { near } => {
            MatchOutcome::Unmatched { near: near.into_iter().map(describe).collect() }
        }
        Decision::Failed { strategy, detail } => {
            let detail = format!("strategy `{}`: {detail}", strategy.name());
            rejection("variables_failed", detail, raw)
        }
    }
}

/// What the strategy of this name starts for an event, whatever it asks of it.
pub(crate) fn routed(
    snapshot: &Snapshot,
    strategy: &str,
    event: &Event<'_>,
    raw: &Bytes,
) -> MatchOutcome {
    match snapshot.strategies.route(strategy, event) {
        Ok(chosen) => {
            let chosen = chosen_workflow(chosen).into_iter().collect();
            MatchOutcome::Start { chosen, raw: raw.clone() }
        }
        Err(error) => {
            let (reason, detail) = not_routed(strategy, error);
            rejection(reason, detail, raw)
        }
    }
}

/// The dead letter for an event that a later stage than the listener refused.
pub(crate) fn dead_letter(
    stage: &str,
    event: &EventReference,
    source: SourcePosition,
    rejection: &Rejection,
    original: Bytes,
) -> DeadLetter {
    DeadLetter {
        id: source.to_string(),
        tenant: event.tenant.to_string(),
        stage: stage.to_owned(),
        reason: rejection.reason.to_string(),
        detail: rejection.detail.clone(),
        subject: format!("fermata.events.{}.{}", event.tenant, event.kind),
        original,
        time_ms: wall_ms(),
        headers: Vec::new(),
        attempts: None,
        trace: event.traceparent.as_deref().map(str::to_owned),
    }
}

fn chosen_workflow(chosen: Chosen<'_>) -> Option<ChosenWorkflow> {
    let strategy: &Strategy = chosen.strategy;
    let workflow = strategy.workflow()?;
    Some(ChosenWorkflow {
        strategy: strategy.name().into(),
        strategy_version: strategy.version(),
        workflow: workflow.name.as_str().into(),
        workflow_version: workflow.version.as_str().into(),
        variables: chosen.variables,
    })
}

fn describe(miss: NearMiss<'_>) -> String {
    match miss.error {
        Some(error) => format!("{}: condition failed: {error}", miss.strategy.name()),
        None => format!("{}: its pattern or condition does not hold", miss.strategy.name()),
    }
}

/// The name of the strategy that a near miss, as [`describe`] words it, is about: names hold no
/// colon.
pub(crate) fn strategy_of_near_miss(described: &str) -> &str {
    described.split_once(':').map_or(described, |(name, _)| name)
}

pub(crate) fn rejection(reason: &str, detail: String, raw: &[u8]) -> MatchOutcome {
    MatchOutcome::Rejected(Rejection { reason: reason.into(), detail, original: Digest::of(raw) })
}
