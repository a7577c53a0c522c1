//! `fermata publish`: business events to the stream, each acknowledged.

mod message;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use fermata_jetstream::{PublishReceipt, Publisher};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use self::message::{EventMessage, Refused, inline_event};
use crate::arguments::GlobalArguments;
use crate::broker_session::{BrokerSession, stored_sequence};
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone};

/// How many messages from standard input may be unanswered at once: enough that the
/// broker is never idle, few enough that a reader sees progress.
const WINDOW: usize = 256;

/// Arguments of `fermata publish`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Files hold one CloudEvents 1.0 event, or an array of them, which is published as one batch.
`-` and files named .ndjson or .jsonl hold one event or array per line.

Examples:
  fermata publish --tenant acme --type request.created --data '{\"request_id\":\"r-1\",\"amount\":12}'
  fermata publish --tenant acme event.json batch.json
  generate-events | fermata publish --tenant acme -")]
pub struct PublishArguments {
    /// Files with events; `-` is standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Whose events they are; default: the attribute `tenant` of the events
    #[arg(long)]
    pub tenant: Option<String>,
    /// Type of the event, or in the subject of what is in files
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Id of the event; random when absent
    #[arg(long, conflicts_with = "files")]
    pub id: Option<String>,
    /// Source of the event
    #[arg(long, conflicts_with = "files", default_value = "/fermata/cli")]
    pub source: String,
    /// Data of the event, JSON
    #[arg(long, conflicts_with = "files", value_name = "JSON")]
    pub data: Option<String>,
    /// Publish even what the engine will refuse
    #[arg(long)]
    pub no_check: bool,
}

impl PublishArguments {
    fn message(&self, origin: String, bytes: Vec<u8>) -> Result<EventMessage, Refused> {
        let (tenant, kind) = (self.tenant.as_deref(), self.kind.as_deref());
        let message = EventMessage::new(origin, bytes, tenant, kind)?;
        if self.no_check { Ok(message) } else { message.checked() }
    }

    /// What is published besides standard input: everything is read and checked before
    /// anything is published.
    fn messages(&self) -> Result<Vec<Result<EventMessage, Refused>>, CliError> {
        if self.files.is_empty() {
            let bytes = inline_event(self)?;
            return Ok(vec![self.message("the event".to_owned(), bytes)]);
        }
        let mut messages = Vec::new();
        for path in self.files.iter().filter(|path| !is_stdin(path)) {
            let name = path.display().to_string();
            let bytes = fs::read(path).map_err(CliError::io(format!("read `{name}`")))?;
            if has_lines(path) {
                let lines = bytes.split(|byte| *byte == b'\n').zip(1_u64..);
                for (line, number) in lines.filter(|(line, _)| !line.trim_ascii().is_empty()) {
                    messages.push(self.message(format!("{name}:{number}"), line.to_vec()));
                }
            } else {
                messages.push(self.message(name, bytes));
            }
        }
        Ok(messages)
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn has_lines(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "ndjson" || extension == "jsonl")
}

/// Publishes, and waits until every event is stored.
///
/// # Errors
///
/// When a file cannot be read or the broker does not store a message.
///
/// # Cancel safety
///
/// What was told as stored is stored, more may be.
pub async fn run(
    arguments: PublishArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let (sound, refused) = split(arguments.messages()?);
    for refused in &refused {
        print_refused(refused, output)?;
    }
    if !refused.is_empty() {
        return Ok(ExitCode::Findings);
    }
    let publisher = BrokerSession::open(global).await?.publisher().await?;
    let mut sending = Sending { publisher, in_flight: VecDeque::new() };
    for message in sound {
        sending.send(message, output).await?;
    }
    let mut code = ExitCode::Success;
    if arguments.files.iter().any(|path| is_stdin(path)) {
        code = publish_lines(&arguments, &mut sending, output).await?;
    }
    sending.settle(0, output).await?;
    Ok(code)
}

fn split(messages: Vec<Result<EventMessage, Refused>>) -> (Vec<EventMessage>, Vec<Refused>) {
    let (mut sound, mut refused) = (Vec::new(), Vec::new());
    for message in messages {
        match message {
            Ok(message) => sound.push(message),
            Err(why) => refused.push(why),
        }
    }
    (sound, refused)
}

/// Publishes standard input line by line; an unusable line is told of and passed over.
async fn publish_lines(
    arguments: &PublishArguments,
    sending: &mut Sending,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let mut code = ExitCode::Success;
    let mut lines = BufReader::new(tokio::io::stdin()).split(b'\n');
    let mut number = 0_u64;
    while let Some(line) =
        lines.next_segment().await.map_err(CliError::io("read standard input"))?
    {
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match arguments.message(format!("-:{number}"), line) {
            Ok(message) => sending.send(message, output).await?,
            Err(refused) => {
                print_refused(&refused, output)?;
                code = ExitCode::Findings;
            }
        }
    }
    Ok(code)
}

fn print_refused(refused: &Refused, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return output.json_line(refused);
    }
    let title = output.tone(Tone::Bad, "refused");
    output.line(&format!("{title}: {refused}"))
}

struct Sending {
    publisher: Publisher,
    in_flight: VecDeque<(EventMessage, PublishReceipt)>,
}

impl Sending {
    async fn send(&mut self, message: EventMessage, output: &mut Output) -> Result<(), CliError> {
        let (subject, headers) = (message.subject.clone(), message.headers());
        let receipt = self.publisher.publish(subject, Some(headers), message.payload.clone()).await;
        self.in_flight.push_back((message, receipt));
        self.settle(WINDOW, output).await
    }

    /// Waits for the oldest until at most `keep` are in flight.
    async fn settle(&mut self, keep: usize, output: &mut Output) -> Result<(), CliError> {
        while self.in_flight.len() > keep {
            let Some((message, receipt)) = self.in_flight.pop_front() else { break };
            let sequence = stored_sequence(&message.subject, &receipt.await)?;
            if output.is_json() {
                let EventMessage { origin, subject, events, .. } = &message;
                output.json_line(&json!({
                    "sequence": sequence, "subject": subject, "events": events, "from": origin,
                }))?;
            } else {
                let events = if message.events == 1 { "event" } else { "events" };
                let (count, subject) = (message.events, &message.subject);
                output.line(&format!("stored at {sequence}: {count} {events} on {subject}"))?;
            }
        }
        Ok(())
    }
}
