//! Asks over NATS.

use std::time::Duration;

use fermata_core::effect::Attempt;
use fermata_core::json::Json;
use fermata_executors::{EffectOutcome, FailureClass, NatsAnswer};
use fermata_jetstream::Headers;
use fermata_jetstream::core_messages::{CoreMessage, CoreMessageError};

use super::execution::Means;

/// Asks once and waits for the first answer, within the attempt's time limit.
pub(super) async fn ask(
    means: &Means,
    attempt: &Attempt,
    traceparent: Option<String>,
    subject: &str,
    body: &Json,
) -> EffectOutcome {
    let (rules, key) = (means.executors.nats(), attempt.key().to_string());
    let (trace, body) = (traceparent.as_deref(), body.parse());
    let token = means.token(attempt);
    let number = attempt.attempt;
    let question = rules.question(subject, &key, number, trace, token.as_deref(), &body);
    let question = match question {
        Ok(question) => question,
        Err(refused) => return refused,
    };
    let mut headers = Headers::new();
    for (name, value) in &question.headers {
        headers.insert(*name, value.as_str());
    }
    let limit = Duration::from_millis(attempt.timeout_ms);
    match means.core.request_with_headers(subject, headers, question.payload, limit).await {
        Ok(answer) => rules.outcome(subject, token.is_some(), &answer_of(answer)),
        Err(error) => EffectOutcome::Failed { class: class_of(&error), detail: detail_of(&error) },
    }
}

fn answer_of(message: CoreMessage) -> NatsAnswer {
    let header = |name: &str| {
        let value = message.headers.as_ref()?.get(name)?;
        Some(value.as_str().to_owned())
    };
    let (code, text) = (header("Nats-Service-Error-Code"), header("Nats-Service-Error"));
    let service_error = match (code, text) {
        (None, None) => None,
        (code, text) => Some([code, text].into_iter().flatten().collect::<Vec<_>>().join(" ")),
    };
    NatsAnswer { payload: message.payload, service_error }
}

fn class_of(error: &CoreMessageError) -> FailureClass {
    match error {
        CoreMessageError::NoResponders { .. } => FailureClass::NoResponders,
        CoreMessageError::NoAnswer { .. } => FailureClass::Timeout,
        CoreMessageError::Request { .. }
        | CoreMessageError::Publish { .. }
        | CoreMessageError::Flush(_)
        | CoreMessageError::Subscribe { .. }
        | CoreMessageError::NotConfirmed { .. } => FailureClass::Connect,
    }
}

fn detail_of(error: &CoreMessageError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
