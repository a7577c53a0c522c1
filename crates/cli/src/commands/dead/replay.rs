//! `fermata dead replay`: an event is decided once more, after repair.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use fermata_core::event::REPLAY_HEADER;
use fermata_jetstream::{Bytes, Headers, Publisher, StreamReader};
use fermata_wire::dead::DeadLetter;
use fermata_wire::replay::{ID_HEADER, ReplayKeys, SIGNATURE_HEADER, TIMESTAMP_HEADER, replay_id};
use serde_json::json;

use super::from_events::{Held, event_without_letter, held_nowhere, whole};
use super::near::{NearLetters, not_there};
use super::request::{Request, holds_event, no_event_of_its_own, request};
use super::started::{LeftOut, Planned, all_left_out, look, part};
use super::{DeadLetters, FiledLetter, Replayed};
use crate::broker_session::{BrokerSession, asking_user, stored_by};
use crate::error::{CliError, ExitCode};
use crate::local_engine::replay_keys;
use crate::output::{Output, Tone};

/// Arguments of `fermata dead replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArguments {
    /// Ids of dead letters, as listed; also `<sequence>.<index>` of an event that is still in EVENTS
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// File with the repaired event, whole, as JSON
    #[arg(long, value_name = "FILE", conflicts_with = "edit")]
    pub data: Option<PathBuf>,
    /// What to change in the event: a JSON merge patch (RFC 7396)
    #[arg(long, value_name = "JSON")]
    pub edit: Option<String>,
    /// Why; signed with the event as its extension `replayreason`, recorded and audited, at most 512 bytes
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Names the request instead of what follows from the letter and the event; another name is another replay
    #[arg(long, value_name = "TEXT")]
    pub id: Option<String>,
    /// Have the event decided once more though it was replayed before, or has started work
    #[arg(long)]
    pub again: bool,
    /// Who asks; goes along as `replayedby`, likewise, at most 128 bytes; default: the user of the operating system
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// File with the secrets; default: the variable FERMATA_REPLAY_SECRETS
    #[arg(long, value_name = "FILE")]
    pub replay_secrets: Option<PathBuf>,
}

/// Replays all, or none where one of them cannot be used; those whose events have started work are left out.
pub(super) async fn replay(
    arguments: &ReplayArguments,
    session: &BrokerSession,
    dead: &mut DeadLetters,
    near: &NearLetters,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let keys = replay_keys(arguments.replay_secrets.as_deref())?;
    if keys.is_empty() {
        let text = "a replay has to be signed: set FERMATA_REPLAY_SECRETS, or name a file with \
                    `--replay-secrets`; the engine's listeners must know the same secret (`echo \
                    \"whsec_$(head -c 32 /dev/urandom | base64)\" > replay.secrets` makes one). \
                    Without one, publish the event again as it should be";
        return Err(CliError::Usage(text.to_owned()));
    }
    if arguments.ids.len() > 1 && (arguments.data.is_some() || arguments.id.is_some()) {
        let text = "`--data` and `--id` are for one letter at a time";
        return Err(CliError::Usage(text.to_owned()));
    }
    let by = arguments.by.clone().unwrap_or_else(asking_user);
    let mut planned = Vec::new();
    for id in &arguments.ids {
        let letter = letter(arguments, id, session, dead, near).await?;
        let request = request(arguments, &letter, &by)?;
        planned.push(Planned { id: id.clone(), time_ms: letter.time_ms, request, after: None });
    }
    let (planned, mut left_out) = match arguments.again {
        true => (planned, Vec::new()),
        false => {
            let keys = planned.iter().map(|planned| &planned.request.key);
            let replays = dead.replays.iter().filter(|replayed| {
                let mut planned = planned.iter();
                let is_beside = planned.any(|planned| replayed.is_beside(&planned.request));
                arguments.ids.contains(&replayed.id) || is_beside
            });
            let starts = look(keys, replays, session, output).await?;
            dead.settle(&starts, Some(now_ms()));
            part(planned, &dead.replays, &starts, arguments.id.is_some(), now_ms())?
        }
    };
    if planned.is_empty() {
        return Err(all_left_out(&left_out, &dead.replays));
    }
    let detail = match &arguments.reason {
        Some(reason) => format!("{by}: {reason}"),
        None => by,
    };
    let asking = Asking {
        arguments,
        keys: &keys,
        detail,
        publisher: session.publisher().await?,
        session,
        dead,
    };
    let mut sent = 0;
    for planned in &planned {
        match asking.ask(planned, output).await? {
            Some(other) => left_out.push(LeftOut::undecided(planned.id.clone(), other)),
            None => sent += 1,
        }
    }
    if sent == 0 {
        return Err(all_left_out(&left_out, &dead.replays));
    }
    left_out.iter().try_for_each(|left_out| left_out.tell(&dead.replays, output))?;
    Ok(if left_out.is_empty() { ExitCode::Success } else { ExitCode::Findings })
}

/// What the requests of one command have in common.
struct Asking<'a> {
    arguments: &'a ReplayArguments,
    keys: &'a ReplayKeys,
    /// Who asks, and why.
    detail: String,
    publisher: Publisher,
    session: &'a BrokerSession,
    dead: &'a DeadLetters,
}

impl Asking<'_> {
    /// Asks for a replay; nothing is sent where another command asks for the same event meanwhile, which is
    /// given back.
    ///
    /// The order of the notes in DEAD says which of two is first: each is stored before what it is for is sent,
    /// and those before it are read in between.
    async fn ask(
        &self,
        planned: &Planned,
        output: &mut Output,
    ) -> Result<Option<Replayed>, CliError> {
        let Planned { id, request, after, .. } = planned;
        let Request { tenant, subject, webhook_id, body, .. } = request;
        let (session, publisher) = (self.session, &self.publisher);
        let time_ms = now_ms();
        let headers = signed_headers(self.keys, request, id, time_ms / 1_000)?;
        let payload = Bytes::from(body.clone());
        let asked = Replayed {
            id: id.clone(),
            request: webhook_id.clone(),
            detail: self.detail.clone(),
            time_ms,
            sequence: None,
            key: Some(request.key.key),
            is_withdrawn: false,
            refused: None,
        };
        // First, for a request without an answer may be stored all the same.
        match asked.store(tenant, subject, publisher).await {
            Ok(noted) => match self.asked_before(noted, planned).await {
                Ok(None) => {}
                Ok(Some(other)) => {
                    self.withdraw(asked, request, output).await;
                    return Ok(Some(other));
                }
                Err(error) => {
                    self.withdraw(asked, request, output).await;
                    return Err(error);
                }
            },
            // It is not told by `fermata dead list`, nor to whoever replays another letter of the event.
            Err(error) => output
                .note(&format!("that a replay of {id} is asked for could not be noted: {error}")),
        }
        let publish = async || {
            let (headers, payload) = (Some(headers.clone()), payload.clone());
            publisher.publish(subject.clone(), headers, payload).await.await
        };
        let sequence = match stored_by(session.broker(), subject, publish).await {
            Ok(sequence) => sequence,
            Err(error) => {
                if !matches!(error, CliError::NotStored { unknown: true, .. }) {
                    self.withdraw(asked, request, output).await;
                }
                return Err(error);
            }
        };
        // By that a refusal, which is filed under it, is found again.
        let asked = Replayed { sequence: Some(sequence), ..asked };
        if let Err(error) = asked.store(tenant, subject, publisher).await {
            output.note(&format!(
                "where the replay of {id} is stored could not be noted, so that `fermata dead list` does not tell \
                 whether it was refused: {error}"
            ));
        }
        if output.is_json() {
            let replay = replay_id(webhook_id);
            output.json_line(&json!({
                "id": id, "sequence": sequence, "subject": subject, "request": webhook_id,
                "replay": replay, "after": after,
            }))?;
        } else {
            let title = output.tone(Tone::Good, "requested");
            let after =
                after.as_ref().map(|letter| format!(" once more, rejected before as {letter},"));
            output.line(&format!(
                "{title}: replay of {id}{} on {subject}, stored at {sequence}; `fermata dead show {sequence}.0` has why \
                 if it is refused, else `fermata runs list` what it starts",
                after.unwrap_or_default()
            ))?;
        }
        Ok(None)
    }

    /// Takes the note of a request back that is not sent.
    async fn withdraw(&self, asked: Replayed, request: &Request, output: &mut Output) {
        let withdrawn = Replayed { is_withdrawn: true, ..asked };
        let Request { tenant, subject, .. } = request;
        if let Err(error) = withdrawn.store(tenant, subject, &self.publisher).await {
            output.note(&format!(
                "that the replay of {} is not asked for after all could not be noted, so that `fermata dead list` tells \
                 it as asked for: {error}",
                withdrawn.id
            ));
        }
    }

    /// The request of another command for the same event that was noted before this one, behind what was read.
    async fn asked_before(
        &self,
        noted: u64,
        Planned { id, request, .. }: &Planned,
    ) -> Result<Option<Replayed>, CliError> {
        if self.arguments.again {
            return Ok(None);
        }
        let reader = StreamReader::new(self.session.broker());
        let notes = self.dead.notes_before(noted, &reader).await?;
        // Another name for the same letter is meant as another replay.
        let is_named = self.arguments.id.is_some();
        let is_other =
            |other: &Replayed| other.is_beside(request) && !(is_named && other.id == *id);
        Ok(notes.into_iter().find(is_other))
    }
}

/// What is to be replayed: the letter with its bytes, or an event without a letter.
async fn letter(
    arguments: &ReplayArguments,
    id: &str,
    session: &BrokerSession,
    dead: &DeadLetters,
    near: &NearLetters,
) -> Result<DeadLetter, CliError> {
    let mut last = None;
    for filed in dead.of_id(id) {
        let (FiledLetter { letter, .. }, held) = whole(filed, session).await?;
        if let Some(refused) = no_event_of_its_own(arguments, &letter) {
            return Err(refused);
        }
        last = Some((letter, held));
    }
    match last {
        Some((letter, Held::Nowhere)) if arguments.data.is_none() && holds_event(&letter) => {
            Err(held_nowhere(&letter))
        }
        Some((letter, _)) => Ok(letter),
        None => {
            let event = event_without_letter(id, session).await?;
            let event = event.ok_or_else(|| not_there(id, near))?;
            if !arguments.again {
                return Err(no_letter(id));
            }
            Ok(event)
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn no_letter(id: &str) -> CliError {
    CliError::Refused(format!(
        "there is no dead letter `{id}`: it is an event that was decided, or will be, and to have it decided once more \
         starts its work again. If that is meant, say `--again`; nothing was sent"
    ))
}

fn signed_headers(
    keys: &ReplayKeys,
    request: &Request,
    id: &str,
    now_seconds: u64,
) -> Result<Headers, CliError> {
    let Request { webhook_id, body, .. } = request;
    let signature = keys
        .sign(webhook_id, now_seconds, body.as_bytes())
        .ok_or_else(|| CliError::Usage("there is no secret to sign with".to_owned()))?;
    let mut headers = Headers::new();
    headers.insert("Content-Type", "application/cloudevents+json");
    headers.insert(REPLAY_HEADER, fermata_core::event::header_value(id));
    headers.insert(ID_HEADER, webhook_id.as_str());
    headers.insert(TIMESTAMP_HEADER, now_seconds.to_string());
    headers.insert(SIGNATURE_HEADER, signature);
    Ok(headers)
}
