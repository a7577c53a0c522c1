//! Takes completions of calls by their tokens and hands them to the partitions.
//!
//! A completion is answered by the owner of its run's partition, once its record
//! is durable. Here it is only checked, and stored among that partition's
//! commands; what cannot be stored is answered so at once.

use std::sync::Arc;
use std::time::Duration;

use fermata_core::command::{Command, CompleteCommand};
use fermata_core::effect::Outcome;
use fermata_core::identity::{RunId, Tenant};
use fermata_core::json::Json;
use fermata_core::plan::FailureClass;
use fermata_core::run::OUTPUT_BYTES_MAX;
use fermata_executors::{CallbackClaim, CallbackTokens};
use fermata_jetstream::Bytes;
use fermata_jetstream::core_messages::{CoreMessage, Subscription};
use fermata_wire::commands::CommandFrame;
use fermata_wire::subjects;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::hop::publish;
use crate::ports::Ports;

/// The workers that share the completions.
const GROUP: &str = "fermata-callbacks";
/// Completions that one process stores at a time; others wait with the broker's
/// client, which drops what comes beyond its capacity: nobody is answered then,
/// and asks again.
const AT_ONCE_MAX: usize = 64;
/// Pause before listening is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// What the subjects of answers begin with.
const INBOX: &str = "_INBOX.";
/// Longest message of a completion in bytes: an output, its token and some room.
const MESSAGE_BYTES_MAX: usize = OUTPUT_BYTES_MAX + 16 * 1_024;

/// What is sent to `fermata.callbacks.<tenant>`: `output` or `failed`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Completion {
    token: String,
    #[serde(default)]
    output: Option<Value>,
    #[serde(default)]
    failed: Option<String>,
}

/// Listens until dropped.
pub(crate) async fn listen(ports: Ports) {
    let turns = Arc::new(Semaphore::new(AT_ONCE_MAX));
    loop {
        match ports.core.subscribe_in_group(&subjects::callbacks("*"), GROUP).await {
            Ok(messages) => take(&ports, &turns, messages).await,
            Err(error) => tracing::warn!(%error, "completions cannot be listened for"),
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

async fn take(ports: &Ports, turns: &Arc<Semaphore>, mut messages: Subscription) {
    let tokens = ports.facts.callback_tokens();
    let mut storing = JoinSet::new();
    while let Some(message) = messages.next().await {
        // Those that have ended meanwhile are let go.
        while storing.try_join_next().is_some() {}
        let Ok(turn) = turns.clone().acquire_owned().await else { return };
        let (ports, tokens) = (ports.clone(), tokens.clone());
        storing.spawn(async move {
            // Answers go to inboxes only: we may publish where whoever asks may not.
            let reply = message.reply.clone();
            if reply.as_ref().is_some_and(|reply| !reply.starts_with(INBOX)) {
                tracing::debug!(?reply, "a completion asks for an answer at what is no inbox");
                return;
            }
            let refused = complete(&ports, &tokens, &message).await.err();
            if let (Some((answer, detail)), Some(to)) = (refused, reply) {
                tracing::debug!(answer, detail, "a completion is refused");
                let answer = json!({ "answer": answer, "detail": detail });
                // Whoever asked asks again.
                let _ = ports.core.publish_core(to, Bytes::from(answer.to_string())).await;
            }
            drop(turn);
        });
    }
}

/// Stores a completion among the commands of its run's partition.
async fn complete(
    ports: &Ports,
    tokens: &CallbackTokens,
    message: &CoreMessage,
) -> Result<(), (&'static str, &'static str)> {
    let command = command(tokens, message)?;
    let partition = command.run.partition();
    if partition.0 >= ports.facts.partitions {
        return Err(INVALID_TOKEN);
    }
    let frame = CommandFrame { floor: 0, commands: vec![Command::Complete(command)] };
    let frame = frame.encode().map_err(|_| TOO_LARGE)?;
    match publish(&ports.publisher, &subjects::commands(partition), frame.into()).await {
        true => Ok(()),
        false => Err(("not_stored", "the broker did not take it; send it again")),
    }
}

const INVALID_TOKEN: (&str, &str) = ("invalid_token", "the token is none of this engine's");
const UNREADABLE: (&str, &str) =
    ("unreadable", "send JSON: {\"token\": …, \"output\": …} or {\"token\": …, \"failed\": text}");
const TOO_LARGE: (&str, &str) = ("too_large", "the output is larger than 128 KiB");

fn command(
    tokens: &CallbackTokens,
    message: &CoreMessage,
) -> Result<CompleteCommand, (&'static str, &'static str)> {
    if message.payload.len() > MESSAGE_BYTES_MAX {
        return Err(TOO_LARGE);
    }
    let completion: Completion =
        serde_json::from_slice(&message.payload).map_err(|_| UNREADABLE)?;
    let claim = tokens.verify(&completion.token).ok_or(INVALID_TOKEN)?;
    // Whoever may send for one tenant may not complete for another.
    if *message.subject != *subjects::callbacks(&claim.tenant) {
        return Err(INVALID_TOKEN);
    }
    let (tenant, run, node, activation) = effect_of(&claim).ok_or(INVALID_TOKEN)?;
    let outcome = match (completion.output, completion.failed) {
        (Some(_), Some(_)) => return Err(UNREADABLE),
        (output, None) => {
            Outcome::Succeeded { output: Json::from_value(&output.unwrap_or_default()) }
        }
        (None, Some(detail)) => Outcome::Failed { class: FailureClass::Reported, detail },
    };
    let reply_to = message.reply.as_ref().map(|reply| Arc::from(reply.as_str()));
    Ok(CompleteCommand { tenant, run, node, activation, outcome, reply_to })
}

fn effect_of(claim: &CallbackClaim) -> Option<(Tenant, RunId, Arc<str>, u32)> {
    let mut parts = claim.effect.split('/');
    let (run, node, activation) = (parts.next()?, parts.next()?, parts.next()?);
    let tenant = claim.tenant.parse().ok()?;
    Some((tenant, run.parse().ok()?, node.into(), activation.parse().ok()?))
}
