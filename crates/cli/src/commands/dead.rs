//! `fermata dead`: input that could not be used, and why.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use fermata_jetstream::StreamReader;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::DEAD_STREAM;
use fermata_wire::dead::DeadLetter;
use serde_json::{Value, json};

use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, excerpt, hex, time_text};

/// How many messages are taken from the stream at a time.
const BATCH_MESSAGES: usize = 256;

/// How many dead letters are listed when nothing else is said: a screenful.
const LIMIT_DEFAULT: usize = 50;

/// Widest detail in the table, in characters; `show` shows all of it.
const DETAIL_CHARACTERS_MAX: usize = 70;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List dead letters, the newest first
    #[command(
        after_help = "Examples:\n  fermata dead list\n  fermata dead list --tenant acme --reason not_json"
    )]
    List(ListArguments),
    /// Show a dead letter with its original bytes
    #[command(after_help = "Examples:\n  fermata dead show 17.0")]
    Show(ShowArguments),
}

/// Arguments of `fermata dead list`.
#[derive(Debug, Clone, Args)]
pub struct ListArguments {
    /// Only those of this tenant
    #[arg(long)]
    pub tenant: Option<String>,
    /// Only those with this reason code
    #[arg(long, value_name = "CODE")]
    pub reason: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = LIMIT_DEFAULT, value_name = "N")]
    pub limit: usize,
}

/// Arguments of `fermata dead show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArguments {
    /// Id of the dead letter, as listed
    #[arg(value_name = "ID")]
    pub id: String,
}

/// A dead letter and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiledLetter {
    /// Sequence in the stream DEAD.
    pub sequence: u64,
    /// The letter.
    pub letter: DeadLetter,
}

/// What the stream holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetters {
    /// In the order in which they were filed first; each stage and id once.
    pub letters: Vec<FiledLetter>,
    /// Sequences of messages that are no dead letters.
    pub unreadable: Vec<u64>,
}

impl DeadLetters {
    /// Reads the stream.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn read(reader: &StreamReader) -> Result<Self, CliError> {
        let mut gathered = Gathered::default();
        let mut replay = reader.replay(DEAD_STREAM, 1, Holes::Allowed).await?;
        loop {
            let messages = replay.next_batch(BATCH_MESSAGES).await?;
            if messages.is_empty() {
                return Ok(gathered.finish());
            }
            for message in messages {
                gathered.add(message.sequence, &message.payload);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Gathered {
    letters: BTreeMap<(String, String), FiledLetter>,
    unreadable: Vec<u64>,
}

impl Gathered {
    /// Takes a message; a letter that was filed before under its stage and id is the same.
    fn add(&mut self, sequence: u64, payload: &[u8]) {
        match DeadLetter::decode(payload) {
            Ok(letter) => {
                let key = (letter.stage.clone(), letter.id.clone());
                self.letters.entry(key).or_insert(FiledLetter { sequence, letter });
            }
            Err(_) => self.unreadable.push(sequence),
        }
    }

    fn finish(self) -> DeadLetters {
        let mut letters: Vec<_> = self.letters.into_values().collect();
        letters.sort_by_key(|filed| filed.sequence);
        DeadLetters { letters, unreadable: self.unreadable }
    }
}

/// Does what was typed.
///
/// # Errors
///
/// When the broker does not answer, or there is no such letter.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn run(
    command: DeadCommand,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let session = BrokerSession::open(global).await?;
    session.engine_config().await?;
    let dead = DeadLetters::read(&StreamReader::new(session.broker())).await?;
    match command {
        DeadCommand::List(arguments) => list(&arguments, &dead, output),
        DeadCommand::Show(arguments) => {
            let mut found =
                dead.letters.iter().filter(|filed| filed.letter.id == arguments.id).peekable();
            if found.peek().is_none() {
                let text = format!(
                    "there is no dead letter `{}`; `fermata dead list` lists them",
                    arguments.id
                );
                return Err(CliError::NotFound(text));
            }
            found.try_for_each(|filed| show(filed, output))?;
            Ok(ExitCode::Success)
        }
    }
}

fn list(
    arguments: &ListArguments,
    dead: &DeadLetters,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let takes = |filed: &&FiledLetter| {
        arguments.tenant.as_ref().is_none_or(|tenant| filed.letter.tenant == *tenant)
            && arguments.reason.as_ref().is_none_or(|reason| filed.letter.reason == *reason)
    };
    let found: Vec<_> = dead.letters.iter().rev().filter(takes).collect();
    let shown = found.iter().take(arguments.limit);
    if output.is_json() {
        for filed in shown {
            output.json_line(&to_json(filed))?;
        }
    } else {
        let row = |filed: &&FiledLetter| {
            let letter = &filed.letter;
            vec![
                letter.id.clone(),
                time_text(letter.time_ms),
                letter.tenant.clone(),
                letter.stage.clone(),
                letter.reason.clone(),
                letter.original.len().to_string(),
                excerpt(&letter.detail, DETAIL_CHARACTERS_MAX),
            ]
        };
        let columns = ["ID", "TIME", "TENANT", "STAGE", "REASON", "BYTES", "DETAIL"];
        output.table(&columns, shown.map(row).collect(), "no dead letters")?;
        if found.len() > arguments.limit {
            let (shown, all) = (arguments.limit, found.len());
            output.line(&format!("{shown} of {all} dead letters; `--limit` shows more"))?;
        }
    }
    if !dead.unreadable.is_empty() && !output.is_json() {
        let count = dead.unreadable.len();
        output.line(&format!(
            "{count} message(s) of stream {DEAD_STREAM} are no dead letters: {:?}",
            dead.unreadable
        ))?;
    }
    Ok(ExitCode::Success)
}

fn to_json(filed: &FiledLetter) -> Value {
    let FiledLetter { sequence, letter } = filed;
    let mut value = json!({
        "id": letter.id,
        "time": time_text(letter.time_ms),
        "tenant": letter.tenant,
        "stage": letter.stage,
        "reason": letter.reason,
        "detail": letter.detail,
        "subject": letter.subject,
        "sequence": sequence,
    });
    if let Value::Object(members) = &mut value {
        let (name, text) = match std::str::from_utf8(&letter.original) {
            Ok(text) => ("original", text.to_owned()),
            Err(_) => ("original_hex", hex(&letter.original)),
        };
        members.insert(name.to_owned(), text.into());
    }
    value
}

fn show(filed: &FiledLetter, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return output.json_line(&to_json(filed));
    }
    let letter = &filed.letter;
    output.line(&format!("id        {}", letter.id))?;
    output.line(&format!("time      {}", time_text(letter.time_ms)))?;
    output.line(&format!("tenant    {}", letter.tenant))?;
    output.line(&format!("stage     {}", letter.stage))?;
    output.line(&format!("subject   {}", letter.subject))?;
    output.line(&format!("reason    {}", letter.reason))?;
    output.line(&format!("detail    {}", letter.detail))?;
    match std::str::from_utf8(&letter.original) {
        Ok(text) => output.line(&format!("original  {} bytes of text\n{text}", text.len())),
        Err(_) => {
            let bytes = letter.original.len();
            output.line(&format!("original  {bytes} bytes, no text\n{}", hex(&letter.original)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::printed;

    fn letter(id: &str, original: &'static [u8]) -> DeadLetter {
        DeadLetter {
            id: id.to_owned(),
            tenant: "acme".to_owned(),
            stage: "listener".to_owned(),
            reason: "not_json".to_owned(),
            detail: "the text is not JSON".to_owned(),
            subject: "fermata.events.acme.a".to_owned(),
            original: original.into(),
            time_ms: 1_700_000_000_000,
        }
    }

    fn gathered(messages: &[Vec<u8>]) -> DeadLetters {
        let mut gathered = Gathered::default();
        for (sequence, payload) in (1..).zip(messages) {
            gathered.add(sequence, payload);
        }
        gathered.finish()
    }

    #[test]
    fn a_letter_that_was_filed_twice_is_listed_once_at_its_first_place() {
        let first = letter("7.0", b"{").encode().unwrap();
        let second = letter("7.1", b"[").encode().unwrap();

        let dead = gathered(&[first.clone(), second, first]);

        let ids: Vec<_> =
            dead.letters.iter().map(|filed| (filed.sequence, filed.letter.id.as_str())).collect();
        assert_eq!(ids, [(1, "7.0"), (2, "7.1")]);
    }

    #[test]
    fn a_message_that_is_no_letter_is_counted_and_hides_no_other() {
        let dead = gathered(&[b"garbage".to_vec(), letter("7.0", b"{").encode().unwrap()]);

        assert_eq!((dead.letters.len(), dead.unreadable), (1, vec![1]));
    }

    #[test]
    fn original_bytes_are_shown_as_text_where_they_are_text() {
        let text = FiledLetter { sequence: 1, letter: letter("7.0", b"{\"a\":") };
        let bytes = FiledLetter { sequence: 2, letter: letter("8.0", b"\xff\x00") };

        let shown = printed(|output| show(&text, output));
        assert!(shown.ends_with("5 bytes of text\n{\"a\":\n"), "{shown}");
        let shown = printed(|output| show(&bytes, output));
        assert!(shown.ends_with("2 bytes, no text\nff00\n"), "{shown}");
        assert_eq!(to_json(&bytes)["original_hex"], "ff00");
    }
}
