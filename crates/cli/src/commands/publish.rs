//! `fermata publish`: business events to the stream, each acknowledged.

mod claim;
mod full;
mod lines;
mod message;
mod sending;
mod storing;
mod typed;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use fermata_core::event::{BATCH_EVENTS_MAX, EVENT_BYTES_MAX, MESSAGE_BYTES_MAX};
use fermata_jetstream::definitions_store::BLOB_BYTES_MAX;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, BufReader};

use self::claim::{Claim, DataFile};
use self::lines::{BYTE_ORDER_MARK, Line, Lines};
use self::message::{EventMessage, Form, Refused, inline_event};
use self::sending::{Sending, Tally};
use self::storing::{Claims, store_claims};
use self::typed::with_type;
use crate::arguments::GlobalArguments;
use crate::broker_session::{BrokerSession, random_id};
use crate::error::{CliError, ExitCode};
use crate::local_engine::EndRequests;
use crate::output::{Output, Tone};

/// How many messages may be unanswered at once: enough that the broker is never
/// idle, few enough that a reader sees progress.
const IN_FLIGHT_DEFAULT: u16 = 256;

/// Refused lines that are shown before anything is published; the rest is counted.
const REFUSED_SHOWN_MAX: usize = 50;

/// How long a batch of lines waits to become full before it is published as it is:
/// who types or follows a file sees it arrive.
const BATCH_WAIT: Duration = Duration::from_millis(200);

/// Arguments of `fermata publish`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Files hold one CloudEvents 1.0 event, or an array of them, which is published as one batch.
`-`, files named .ndjson or .jsonl, and with `--ndjson` all files hold one event or array per line.
Data of an event in a file of its own that is too large for an event goes into the store of
payloads. Files are read through and checked before anything is published, unless `--keep-going`. Standard
input is published as it comes; an unusable line of it is told of and passed over.

Examples:
  fermata publish --tenant acme --type request.created --data '{\"request_id\":\"r-1\",\"amount\":12}'
  fermata publish --tenant acme event.json batch.json
  fermata publish --tenant acme --batch 200 --rate 5000/s events.ndjson
  generate-events | fermata publish --tenant acme -
  fermata publish --tenant acme --type scan.stored --data-file scan.tiff --data-type image/tiff")]
pub struct PublishArguments {
    /// Files with events; `-` is standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Whose events they are; default: the attribute `tenant` of the events
    #[arg(long)]
    pub tenant: Option<String>,
    /// Type of the event; in files that of events that name none, and the one in the subject of a batch
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
    /// File with the data of the event; what is too large for an event, or no JSON, goes into the
    /// store of payloads, and the event refers to it
    #[arg(long, conflicts_with_all = ["files", "data"], requires = "tenant", value_name = "FILE")]
    pub data_file: Option<PathBuf>,
    /// Media type of `--data-file`; default: JSON where it is, else application/octet-stream
    #[arg(long, requires = "data_file", value_name = "TYPE")]
    pub data_type: Option<String>,
    /// Publish even what the engine will refuse
    #[arg(long)]
    pub no_check: bool,
    /// Every file holds one event or array per line
    #[arg(long)]
    pub ndjson: bool,
    /// Put so many lines into one message, as a batch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=BATCH_MAX), conflicts_with = "binary")]
    pub batch: Option<u16>,
    /// At most so many events per second, as in `500` or `500/s`
    #[arg(long, value_name = "N/s", value_parser = events_per_second)]
    pub rate: Option<f64>,
    /// At most so many messages that the broker has not acknowledged
    #[arg(long, value_name = "N", default_value_t = IN_FLIGHT_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_in_flight: u16,
    /// Pass over what is unusable, and publish the rest
    #[arg(long)]
    pub keep_going: bool,
    /// In binary mode: attributes as headers, data as the message
    #[arg(long)]
    pub binary: bool,
    /// As MessagePack: the whole event, or with `--binary` the data
    #[arg(long)]
    pub msgpack: bool,
}

/// Largest file that is one event or array: a payload as the store takes it, and the
/// event around it.
const FILE_BYTES_MAX: usize = BLOB_BYTES_MAX + EVENT_BYTES_MAX;

/// Largest payload, for people.
const PAYLOAD_MIB_MAX: usize = BLOB_BYTES_MAX >> 20;

/// Largest `--batch`: what one message may hold.
const BATCH_MAX: i64 = BATCH_EVENTS_MAX as i64;

fn events_per_second(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("a rate is a number above 0, as in `500` or `0.5/s`".to_owned()),
    }
}

impl PublishArguments {
    fn form(&self) -> Form {
        Form { binary: self.binary, msgpack: self.msgpack }
    }

    /// The message as JSON, ready to be given its form.
    fn message(&self, origin: String, bytes: Vec<u8>) -> Result<EventMessage, Refused> {
        let (tenant, kind) = (self.tenant.as_deref(), self.kind.as_deref());
        // What is published unchecked goes as it is.
        let bytes = match kind.filter(|_| !self.no_check) {
            Some(kind) => with_type(bytes, kind),
            None => bytes,
        };
        let message = EventMessage::new(origin, bytes, tenant, kind)?;
        if self.no_check { Ok(message) } else { message.checked() }
    }

    fn line(&self, name: &str, number: u64, line: Line) -> Option<Result<EventMessage, Refused>> {
        let origin = format!("{name}:{number}");
        match line {
            Line::Bytes(bytes) if bytes.trim_ascii().is_empty() => None,
            Line::Bytes(bytes) => Some(self.message(origin, bytes)),
            Line::TooLong(bytes) => Some(Err(Refused::too_long(origin, bytes))),
        }
    }

    /// What is published besides lines: everything is read and checked before
    /// anything is published.
    fn messages(&self) -> Result<Vec<Result<EventMessage, Refused>>, CliError> {
        if self.files.is_empty() {
            let mut bytes = inline_event(self)?;
            let mut claim = None;
            if let (Some(file), Some(tenant)) = (&self.data_file, &self.tenant) {
                let data = DataFile {
                    path: file,
                    media_type: self.data_type.as_deref(),
                    checks_keys: !self.no_check,
                };
                (bytes, claim) = Claim::of_file(&bytes, &data, tenant)?;
            }
            let message = self.message("the event".to_owned(), bytes);
            let message = message.and_then(|message| message.in_form(self.form()));
            return Ok(vec![message.map(|message| message.with_claim(claim))]);
        }
        let mut messages = Vec::new();
        for path in self.files.iter().filter(|path| !self.has_lines(path)) {
            let name = path.display().to_string();
            let bytes = read_bounded(path, &name)?;
            let split = match self.no_check {
                true => None,
                false => Claim::split(&bytes, self.tenant.as_deref())?,
            };
            let (bytes, claim) = match split {
                Some((bytes, claim)) => (bytes, Some(claim)),
                None => (bytes, None),
            };
            let message = self.message(name, bytes).and_then(|message| match self.no_check {
                true => Ok(message),
                false => message.with_unique_keys(),
            });
            let message = message.and_then(|message| message.in_form(self.form()));
            messages.push(message.map(|message| message.with_claim(claim)));
        }
        Ok(messages)
    }

    /// Whether data may have to be stored before its event is published.
    fn may_have_claims(&self) -> bool {
        let is_large = |path: &PathBuf| {
            let size = fs::metadata(path).map_or(0, |file| file.len());
            !self.has_lines(path) && size > EVENT_BYTES_MAX as u64
        };
        self.data_file.is_some() || self.files.iter().any(is_large)
    }

    fn has_lines(&self, path: &Path) -> bool {
        let by_name =
            path.extension().is_some_and(|extension| extension == "ndjson" || extension == "jsonl");
        self.ndjson || by_name || is_stdin(path)
    }
}

/// Reads a file that holds one event or array, no more of it than can be of use: an
/// event with the largest payload.
fn read_bounded(path: &Path, name: &str) -> Result<Vec<u8>, CliError> {
    let failed = || CliError::io(format!("read `{name}`"));
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed())?;
    let mut file = file.take(FILE_BYTES_MAX as u64 + 1);
    file.read_to_end(&mut bytes).map_err(failed())?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(CliError::Usage(format!(
            "`{name}` has more than {PAYLOAD_MIB_MAX} MiB and the {} KiB of an event around them, which is no one \
             event; with an event per line give `--ndjson`, for its data alone `--data-file`",
            EVENT_BYTES_MAX >> 10
        )));
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
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
    let mut arguments = arguments;
    if arguments.files.is_empty() {
        // Known here, so that it can be told.
        arguments.id.get_or_insert_with(|| random_id().to_string());
    }
    // Whoever listens no longer ends by itself at a signal, which lines of standard input rely on.
    let mut requests = match arguments.may_have_claims() {
        true => Some(EndRequests::listen()?),
        false => None,
    };
    let read = tokio::select! {
        read = read_messages(&arguments) => Some(read?),
        () = asked_to_end(&mut requests) => None,
    };
    let Some(messages) = read else { return Ok(ended_before_all(output)) };
    let mut tally = Tally::default();
    let mut sound = Vec::new();
    for message in messages {
        match message {
            Ok(message) => sound.push(message),
            Err(refused) => tally.refuse(&refused, output)?,
        }
    }
    let lines: Vec<_> = arguments.files.iter().filter(|path| arguments.has_lines(path)).collect();
    if !arguments.keep_going {
        for path in lines.iter().filter(|path| !is_stdin(path)) {
            check_lines(&arguments, path, &mut tally, output).await?;
        }
        if tally.refused > 0 {
            tally.print_hidden(output)?;
            let has_rest = !(sound.is_empty() && lines.is_empty());
            let rest = if has_rest { "; `--keep-going` publishes the rest" } else { "" };
            output.note(&format!("nothing was published{rest}"));
            return Ok(ExitCode::Findings);
        }
    }
    let session = tokio::select! {
        session = BrokerSession::open(global) => Some(session?),
        () = asked_to_end(&mut requests) => None,
    };
    let Some(session) = session else { return Ok(ended_before_all(output)) };
    let claims: Vec<_> = sound.iter().filter_map(|message| message.claim.as_ref()).collect();
    let has_claims = !claims.is_empty();
    if let (Some(requests), true) = (&mut requests, has_claims) {
        let left = match store_claims(&claims, &session, global, requests, output).await? {
            Claims::Stored => None,
            Claims::Removed => Some("is removed"),
            Claims::Left => {
                Some("is kept as payloads are, or removed with an upload an hour later or more")
            }
        };
        if let Some(left) = left {
            let text = "ended by a signal: nothing was published, and what was stored of the data";
            output.note(&format!("{text} {left}"));
            return Ok(ExitCode::Interrupted);
        }
    }
    let publisher = session.publisher().await?;
    let (broker, many) = (session.broker().clone(), !lines.is_empty());
    let mut sending = Sending::new(broker, publisher, &arguments, tally, many, output);
    let published = tokio::select! {
        published = publish_all(&arguments, sound, &lines, &mut sending, output) => Some(published),
        () = asked_to_end(&mut requests) => None,
    };
    let under_way = sending.told_under_way(arguments.id.as_deref());
    let finished = sending.finish(output);
    let Some(published) = published else {
        let data = if has_claims { "; all of the data that they refer to is stored" } else { "" };
        output.note(&format!("ended by a signal: {under_way}{data}"));
        return Ok(ExitCode::Interrupted);
    };
    published.map_err(|error| maybe_published(error, arguments.id.as_deref()))?;
    let tally = finished?;
    Ok(if tally.refused > 0 { ExitCode::Findings } else { ExitCode::Success })
}

/// What to do where nobody knows whether an event is stored; `id` is that of the one of the command line.
fn maybe_published(error: CliError, id: Option<&str>) -> CliError {
    if let CliError::NotStored { subject, unknown: true, .. } = error {
        return CliError::MaybePublished { subject, id: id.map(str::to_owned) };
    }
    error
}

/// Reads what is published besides lines, the files with data of events included, which may be large.
async fn read_messages(
    arguments: &PublishArguments,
) -> Result<Vec<Result<EventMessage, Refused>>, CliError> {
    let arguments = arguments.clone();
    let read = tokio::task::spawn_blocking(move || arguments.messages()).await;
    read.map_err(|source| CliError::Failed {
        action: "reading what is to be published".to_owned(),
        source: Box::new(source),
    })?
}

fn ended_before_all(output: &mut Output) -> ExitCode {
    output.note("ended by a signal: nothing was stored or published");
    ExitCode::Interrupted
}

/// Waits for a request to end, where they are listened for.
async fn asked_to_end(requests: &mut Option<EndRequests>) {
    match requests {
        Some(requests) => requests.next().await,
        None => std::future::pending().await,
    }
}

async fn publish_all(
    arguments: &PublishArguments,
    sound: Vec<EventMessage>,
    lines: &[&PathBuf],
    sending: &mut Sending,
    output: &mut Output,
) -> Result<(), CliError> {
    for message in sound {
        sending.send(message, output).await?;
    }
    for path in lines {
        let name = path.display().to_string();
        if is_stdin(path) {
            let reader = BufReader::new(tokio::io::stdin());
            publish_lines(arguments, &name, reader, sending, output).await?;
        } else {
            publish_lines(arguments, &name, open(path).await?, sending, output).await?;
        }
    }
    sending.settle(0, output).await
}

async fn open(path: &Path) -> Result<BufReader<File>, CliError> {
    let file = File::open(path).await;
    let file = file.map_err(CliError::io(format!("read `{}`", path.display())))?;
    Ok(BufReader::new(file))
}

/// Checks every line of a file, without keeping any.
async fn check_lines(
    arguments: &PublishArguments,
    path: &Path,
    tally: &mut Tally,
    output: &mut Output,
) -> Result<(), CliError> {
    let name = path.display().to_string();
    let mut lines = Lines::new(open(path).await?, MESSAGE_BYTES_MAX);
    while let Some((number, line)) =
        lines.next().await.map_err(CliError::io(format!("read `{name}`")))?
    {
        let message = arguments.line(&name, number, line);
        let message =
            message.map(|message| message.and_then(|message| message.in_form(arguments.form())));
        if let Some(Err(refused)) = message {
            tally.refuse(&refused, output)?;
        }
    }
    Ok(())
}

/// Publishes line by line; an unusable line is told of and passed over.
async fn publish_lines(
    arguments: &PublishArguments,
    name: &str,
    reader: impl AsyncBufRead + Unpin,
    sending: &mut Sending,
    output: &mut Output,
) -> Result<(), CliError> {
    let mut lines = Lines::new(reader, MESSAGE_BYTES_MAX);
    loop {
        let read = match sending.has_batch() {
            true => match tokio::time::timeout(BATCH_WAIT, lines.next()).await {
                Ok(read) => read,
                Err(_) => {
                    sending.send_batch(output).await?;
                    continue;
                }
            },
            false => lines.next().await,
        };
        let Some((number, line)) = read.map_err(CliError::io(format!("read `{name}`")))? else {
            return sending.send_batch(output).await;
        };
        match arguments.line(name, number, line) {
            None => {}
            Some(Ok(message)) => sending.send_line(message, output).await?,
            Some(Err(refused)) => sending.tally.refuse(&refused, output)?,
        }
    }
}

fn print_refused(refused: &Refused, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return output.json_line(refused);
    }
    let title = output.tone(Tone::Bad, "refused");
    output.line(&format!("{title}: {refused}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_of_a_file_is_read_than_can_be_of_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("event.json");
        // It takes no room on the disk.
        fs::File::create(&path).unwrap().set_len(64 * 1024 * 1024 * 1024).unwrap();

        let refused = read_bounded(&path, "event.json").unwrap_err().to_string();
        assert!(refused.contains("more than 256 MiB") && refused.contains("--ndjson"), "{refused}");
    }

    #[test]
    fn an_event_without_an_answer_is_told_with_its_id_and_how_to_publish_it_again() {
        let unanswered = |unknown| CliError::NotStored {
            subject: "fermata.events.acme.a".to_owned(),
            reason: "the broker did not answer in time".to_owned(),
            unknown,
        };

        let told = maybe_published(unanswered(true), Some("e-7"));
        assert_eq!(told.exit_code(), ExitCode::Unreachable);
        let told = told.to_string();
        assert!(told.contains("again with `--id e-7`") && told.contains("nothing starts twice"));
        let of_file = maybe_published(unanswered(true), None).to_string();
        assert!(of_file.contains("again with the id that it has"), "{of_file}");
        let refused = maybe_published(unanswered(false), Some("e-7")).to_string();
        assert!(refused.starts_with("the broker did not take") && !refused.contains("e-7"));
        let other = unanswered(true).to_string();
        assert!(other.starts_with("nobody knows whether the broker stored"), "{other}");
    }

    #[test]
    fn a_rate_is_a_number_above_nothing() {
        assert_eq!(events_per_second("500/s"), Ok(500.0));
        assert_eq!(events_per_second("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "fast", "5/m", ""] {
            assert!(events_per_second(text).is_err(), "{text}");
        }
    }
}
