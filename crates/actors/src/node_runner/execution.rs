//! Carries one attempt out.

use std::sync::Arc;
use std::time::Duration;

use fermata_core::effect::{Attempt, AttemptWork, Outcome};
use fermata_core::json::Json;
use fermata_core::plan::{Completion, FailureClass};
use fermata_core::run::AttemptReport;
use fermata_executors::{
    CallbackTokens, CommandCall, EffectKind, EffectOutcome, EffectRequest, Executors, HttpCall,
};
use fermata_jetstream::Publisher;
use fermata_jetstream::core_messages::CoreMessages;
use tracing::Instrument as _;

use super::{emit, nats};
use crate::ports::Ports;
use crate::trace;

/// What attempts are carried out with.
#[derive(Debug, Clone)]
pub(crate) struct Means {
    pub(super) executors: Arc<Executors>,
    pub(super) publisher: Publisher,
    pub(super) core: CoreMessages,
    pub(super) tokens: CallbackTokens,
}

impl Means {
    /// What this process carries attempts out with.
    pub(crate) fn of(ports: &Ports, executors: Arc<Executors>) -> Self {
        let (publisher, core) = (ports.publisher.clone(), ports.core.clone());
        Self { executors, publisher, core, tokens: ports.facts.callback_tokens() }
    }

    /// The token of an attempt whose outcome comes by callback.
    pub(super) fn token(&self, attempt: &Attempt) -> Option<String> {
        let key = attempt.key().to_string();
        let by_callback = attempt.completion == Completion::Callback;
        by_callback.then(|| self.tokens.mint(attempt.tenant.as_str(), &key))
    }
}

/// Carries `attempt` out and says what came of it, with its span and its lines
/// in the log.
pub(crate) async fn carry_out(means: &Means, attempt: &Attempt) -> Outcome {
    let (run, node, number) = (attempt.run, &*attempt.node, attempt.attempt);
    let trace = trace::id(run, attempt.traceparent.as_deref());
    let partition = run.partition();
    let (own, traceparent) = trace::attempt(attempt);
    // What the executor logs carries these too.
    let span = tracing::debug_span!("attempt", %partition, %run, node, attempt = number, %trace);
    tracing::debug!(%partition, %run, node, attempt = number, %trace, "an attempt starts");
    let outcome = execute(means, attempt, traceparent).instrument(span).await;
    match &outcome {
        Outcome::Succeeded { .. } => {
            own.end(None);
            tracing::debug!(%partition, %run, node, attempt = number, %trace, "an attempt succeeded");
        }
        Outcome::Failed { class, detail } => {
            own.end(Some(detail));
            let class = class.as_str();
            tracing::debug!(%partition, %run, node, attempt = number, %trace, class, detail, "an attempt failed");
        }
    }
    outcome
}

/// What is told of an attempt that has ended.
pub(crate) fn report_of(attempt: &Attempt, outcome: Outcome) -> AttemptReport {
    AttemptReport {
        run: attempt.run,
        node: attempt.node.clone(),
        activation: attempt.activation,
        attempt: attempt.attempt,
        tenant: Some(attempt.tenant.clone()),
        outcome,
    }
}

async fn execute(means: &Means, attempt: &Attempt, traceparent: Option<String>) -> Outcome {
    let kind = match &attempt.work {
        AttemptWork::Noop => EffectKind::Noop,
        AttemptWork::Emit { .. } => return emit::publish(means, attempt, traceparent).await,
        AttemptWork::Nats { subject, body } => {
            return outcome_of(nats::ask(means, attempt, traceparent, subject, body).await);
        }
        AttemptWork::Command { name, args, stdin } => EffectKind::Command(CommandCall {
            name: name.to_string(),
            args: args.clone(),
            stdin: stdin.parse(),
        }),
        AttemptWork::Http { plugin, path, body } => EffectKind::Http(HttpCall {
            plugin: plugin.to_string(),
            path: path.to_string(),
            body: body.parse(),
        }),
    };
    let request = EffectRequest {
        key: attempt.key().to_string(),
        attempt: attempt.attempt,
        tenant: attempt.tenant.as_str().into(),
        traceparent,
        timeout: Duration::from_millis(attempt.timeout_ms),
        callback: means.token(attempt),
        kind,
    };
    outcome_of(means.executors.execute(request).await)
}

fn outcome_of(outcome: EffectOutcome) -> Outcome {
    match outcome {
        EffectOutcome::Succeeded { output } => {
            Outcome::Succeeded { output: Json::from_value(&output) }
        }
        EffectOutcome::Failed { class, detail } => {
            Outcome::Failed { class: failure_class(class), detail }
        }
    }
}

fn failure_class(class: fermata_executors::FailureClass) -> FailureClass {
    use fermata_executors::FailureClass as Class;
    match class {
        Class::Timeout => FailureClass::Timeout,
        Class::Connect => FailureClass::Connect,
        Class::Http3xx => FailureClass::Http3xx,
        Class::Http4xx => FailureClass::Http4xx,
        Class::Http5xx => FailureClass::Http5xx,
        Class::ResponseTooLarge => FailureClass::ResponseTooLarge,
        Class::ResponseNotJson => FailureClass::ResponseNotJson,
        Class::NotAllowed => FailureClass::NotAllowed,
        Class::Cancelled => FailureClass::Cancelled,
        Class::NoResponders => FailureClass::NoResponders,
        Class::ServiceError => FailureClass::ServiceError,
        Class::ExitStatus => FailureClass::ExitStatus,
        Class::ExitTemporary => FailureClass::ExitTemporary,
    }
}
