//! `fermata dead`: input that could not be used, why, and once more after repair.

mod list;
mod near;
mod replay;
mod replayed;
mod show;

use std::collections::{HashSet, VecDeque};

use clap::{Args, Subcommand};
use fermata_core::digest::hash_parts_128;
use fermata_jetstream::StreamReader;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::DEAD_STREAM;
use fermata_wire::dead::DeadLetter;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use self::list::ListArguments;
use self::near::{NearLetters, not_there};
use self::replay::ReplayArguments;
pub use self::replayed::Replayed;

use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, hex, time_text};

/// How many messages are taken from the stream at a time.
const BATCH_MESSAGES: usize = 256;

/// Letters whose keys are remembered while the stream is read. Default 100,000, some
/// megabytes: a letter is filed again, if it is, within minutes of the first time. One
/// that is filed again behind so many others is listed again.
const RECENT_MAX: usize = 100_000;

/// Letters that are kept of those asked for by id. Default 1,000.
const NAMED_MAX: usize = 1_000;

/// Notes of replays that are remembered while the stream is read, the newest. Default 10,000, some
/// megabytes: of a letter whose replay so many others follow it is told no more.
const REPLAYS_MAX: usize = 10_000;

/// Messages that are no dead letters and are named; the others are counted.
const UNREADABLE_NAMED_MAX: usize = 20;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List dead letters, the newest first
    #[command(
        after_help = "Examples:\n  fermata dead list\n  fermata dead list --tenant acme --reason not_json\n  fermata dead list --stage builder --since 2h"
    )]
    List(ListArguments),
    /// Show a dead letter with its original bytes, secrets masked
    #[command(after_help = "\
Values of headers and fields whose names end with `password`, `token`, `secret` and the like are
masked, in JSON and MessagePack; other bytes are cut behind such a name. What is stored and
replayed stays whole.

Examples:
  fermata dead show 17.0
  fermata dead show 17.0 --unmasked")]
    Show(ShowArguments),
    /// Have events decided once more, after repair
    #[command(after_help = "\
The request is signed with the first secret of FERMATA_REPLAY_SECRETS or `--replay-secrets`, which
the engine's listeners must know. Typed twice it is one replay. Asked for otherwise, with another
reason, say, it would be another one, and is refused; `--again` has the event decided once more all the
same, each time that it is typed.

Examples:
  fermata dead replay 17.0 18.3
  fermata dead replay 17.0 --edit '{\"data\":{\"amount\":12}}' --reason 'amount was missing'
  fermata dead replay 17.0 --data repaired.json
  fermata dead replay 17.0 --reason 'the workflow was mended, too' --again")]
    Replay(ReplayArguments),
}

/// Arguments of `fermata dead show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArguments {
    /// Id of the dead letter, as listed
    #[arg(value_name = "ID")]
    pub id: String,
    /// Show what is masked too
    #[arg(long)]
    pub unmasked: bool,
}

/// A dead letter and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiledLetter {
    /// Sequence in the stream DEAD.
    pub sequence: u64,
    /// The letter.
    pub letter: DeadLetter,
}

/// What was looked for in the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetters {
    /// The newest that fit, in the order in which they were filed first; each stage and id once.
    pub letters: Vec<FiledLetter>,
    /// How many fit, those that are not kept included.
    pub found: u64,
    /// The first sequences of messages that are no dead letters.
    pub unreadable: Vec<u64>,
    /// How many such messages there are.
    pub unreadable_count: u64,
    /// Replays that were asked for, in their order.
    pub replays: Vec<Replayed>,
}

impl DeadLetters {
    /// Reads the stream for the newest `keep` letters that `takes` says yes to, and for notes of
    /// replays. What it holds at a time is that, `REPLAYS_MAX` such notes, and the keys of the
    /// last `RECENT_MAX` letters.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn read(
        reader: &StreamReader,
        keep: usize,
        takes: impl Fn(&DeadLetter) -> bool,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        let mut gathered = Gathered::new(keep, takes);
        let mut replay = reader.replay(DEAD_STREAM, 1, Holes::Allowed).await?;
        loop {
            let messages = replay.next_batch(BATCH_MESSAGES).await?;
            if messages.is_empty() {
                return Ok(gathered.finish());
            }
            progress.inc(u64::try_from(messages.len()).unwrap_or(0));
            for message in messages {
                gathered.add(message.sequence, &message.payload);
            }
        }
    }

    /// The replays of what was filed under an id.
    fn replays_of(&self, id: &str) -> Vec<&Replayed> {
        self.replays.iter().filter(|replayed| replayed.id == id).collect()
    }

    /// What was filed under an id, by whichever stages.
    fn of_id<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a FiledLetter> {
        self.letters.iter().filter(move |filed| filed.letter.id == id)
    }
}

struct Gathered<Takes> {
    keep: usize,
    takes: Takes,
    letters: VecDeque<FiledLetter>,
    recent: HashSet<u128>,
    recent_order: VecDeque<u128>,
    found: u64,
    unreadable: Vec<u64>,
    unreadable_count: u64,
    replays: VecDeque<Replayed>,
}

impl<Takes: Fn(&DeadLetter) -> bool> Gathered<Takes> {
    fn new(keep: usize, takes: Takes) -> Self {
        Self {
            keep,
            takes,
            letters: VecDeque::new(),
            recent: HashSet::new(),
            recent_order: VecDeque::new(),
            found: 0,
            unreadable: Vec::new(),
            unreadable_count: 0,
            replays: VecDeque::new(),
        }
    }

    /// Takes a message; a letter that was filed before under its stage and id is the same.
    fn add(&mut self, sequence: u64, payload: &[u8]) {
        let Ok(letter) = DeadLetter::decode(payload) else {
            self.unreadable_count += 1;
            if self.unreadable.len() < UNREADABLE_NAMED_MAX {
                self.unreadable.push(sequence);
            }
            return;
        };
        if replayed::is_note(&letter) {
            self.replays.extend(Replayed::of(letter));
            if self.replays.len() > REPLAYS_MAX {
                self.replays.pop_front();
            }
            return;
        }
        if !(self.takes)(&letter) || !self.is_new(&letter) {
            return;
        }
        self.found += 1;
        self.letters.push_back(FiledLetter { sequence, letter });
        if self.letters.len() > self.keep {
            self.letters.pop_front();
        }
    }

    fn is_new(&mut self, letter: &DeadLetter) -> bool {
        let key = hash_parts_128(&[letter.stage.as_bytes(), letter.id.as_bytes()]);
        if !self.recent.insert(key) {
            return false;
        }
        self.recent_order.push_back(key);
        if self.recent_order.len() > RECENT_MAX
            && let Some(oldest) = self.recent_order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        true
    }

    fn finish(self) -> DeadLetters {
        let Self { letters, found, unreadable, unreadable_count, replays, .. } = self;
        let (letters, replays) = (letters.into(), replays.into());
        DeadLetters { letters, found, unreadable, unreadable_count, replays }
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
    let reader = StreamReader::new(session.broker());
    let progress = output.counter("messages read");
    match command {
        DeadCommand::List(arguments) => {
            let known = list::SeenCodes::default();
            let takes = |letter: &DeadLetter| {
                known.see(&arguments, letter);
                arguments.takes(letter)
            };
            let dead = DeadLetters::read(&reader, arguments.limit, takes, &progress).await;
            progress.finish_and_clear();
            let dead = dead?;
            let listed = list::list(&dead, known.nothing_of(&arguments).as_deref(), output)?;
            arguments.check_codes(&known)?;
            Ok(listed)
        }
        DeadCommand::Show(arguments) => {
            let near = NearLetters::default();
            let takes = |letter: &DeadLetter| near.see(&arguments.id, letter);
            let dead = DeadLetters::read(&reader, NAMED_MAX, takes, &progress).await;
            progress.finish_and_clear();
            let dead = dead?;
            let mut found = dead.of_id(&arguments.id).peekable();
            if found.peek().is_none() {
                return Err(not_there(&arguments.id, &near));
            }
            let replays = dead.replays_of(&arguments.id);
            let unmasked = arguments.unmasked;
            found.try_for_each(|filed| show::show(filed, &replays, unmasked, output))?;
            Ok(ExitCode::Success)
        }
        DeadCommand::Replay(arguments) => {
            let near = NearLetters::default();
            let takes = |letter: &DeadLetter| {
                // All of them: each may be near to another one.
                let seen = arguments.ids.iter().filter(|id| near.see(id, letter));
                seen.count() > 0
            };
            let dead = DeadLetters::read(&reader, NAMED_MAX, takes, &progress).await;
            progress.finish_and_clear();
            let dead = dead?;
            replay::replay(&arguments, &session, &dead, &near, output).await
        }
    }
}

/// What people see of a letter, as JSON: its secrets are masked.
fn to_json(filed: &FiledLetter, replays: &[&Replayed]) -> Value {
    let (letter, masked) = filed.letter.masked();
    letter_to_json(filed.sequence, &letter, replays, masked)
}

/// A letter of which so many values are masked.
fn letter_to_json(
    sequence: u64,
    letter: &DeadLetter,
    replays: &[&Replayed],
    masked: usize,
) -> Value {
    let mut value = json!({
        "id": letter.id,
        "time": time_text(letter.time_ms),
        "tenant": letter.tenant,
        "stage": letter.stage,
        "reason": letter.reason,
        "detail": letter.detail,
        "subject": letter.subject,
        "sequence": sequence,
        "headers": letter.headers,
        "attempts": letter.attempts,
        "trace": letter.trace,
        "hint": show::hint(letter),
        "masked": masked,
        "replays": replays.iter().map(|replayed| replayed.to_json()).collect::<Vec<_>>(),
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
            headers: Vec::new(),
            attempts: None,
            trace: None,
        }
    }

    fn gathered(messages: &[Vec<u8>]) -> DeadLetters {
        newest(usize::MAX, messages)
    }

    fn newest(keep: usize, messages: &[Vec<u8>]) -> DeadLetters {
        let mut gathered = Gathered::new(keep, |letter| letter.tenant == "acme");
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
    fn only_the_newest_that_fit_are_kept_and_all_that_fit_are_counted() {
        let other = DeadLetter { tenant: "other".to_owned(), ..letter("8.0", b"{") };
        let letters = [letter("7.0", b"{"), letter("7.1", b"{"), other, letter("7.2", b"{")];
        let messages = letters.map(|letter| letter.encode().unwrap());

        let dead = newest(2, &messages);

        let ids = dead.letters.iter().map(|filed| filed.letter.id.as_str()).collect::<Vec<_>>();
        assert_eq!((ids, dead.found), (vec!["7.1", "7.2"], 3));
    }

    #[test]
    fn a_message_that_is_no_letter_is_counted_and_hides_no_other() {
        let dead = gathered(&[b"garbage".to_vec(), letter("7.0", b"{").encode().unwrap()]);

        assert_eq!((dead.letters.len(), dead.unreadable), (1, vec![1]));
    }

    #[test]
    fn a_note_of_a_replay_is_no_letter_and_marks_the_letters_of_its_id() {
        let note = DeadLetter {
            stage: "replays".to_owned(),
            reason: "replayed".to_owned(),
            detail: "alice: a typo".to_owned(),
            headers: vec![
                ("Fermata-Replay".to_owned(), "7.0".to_owned()),
                ("webhook-id".to_owned(), "replay_1".to_owned()),
            ],
            ..letter("REPLAY.replay_1", b"")
        };
        let messages = [letter("7.0", b"{"), note, letter("8.0", b"{")];

        let dead = gathered(&messages.map(|letter| letter.encode().unwrap()));

        assert_eq!((dead.found, dead.unreadable_count), (2, 0));
        assert!(dead.replays_of("8.0").is_empty());
        let replays = dead.replays_of("7.0");
        let shown = printed(|output| show::show(&dead.letters[0], &replays, false, output));
        let told = "\nreplayed  2023-11-14T22:13:20.000Z as `replay_1` by alice: a typo\n";
        assert!(shown.contains(told), "{shown}");
        assert_eq!(to_json(&dead.letters[0], &replays)["replays"][0]["request"], "replay_1");
        let listed = printed(|output| list::list(&dead, None, output).map(|_| ()));
        let marked = listed
            .lines()
            .filter(|line| line.ends_with("2023-11-14T22:13:20.000Z  the text is not JSON"));
        assert_eq!(marked.count(), 1, "{listed}");
    }

    #[test]
    fn original_bytes_are_shown_as_text_where_they_are_text() {
        let text = FiledLetter { sequence: 1, letter: letter("7.0", b"{\"a\":") };
        let bytes = FiledLetter { sequence: 2, letter: letter("8.0", b"\xff\x00") };

        let shown = printed(|output| show::show(&text, &[], false, output));
        assert!(shown.ends_with("5 bytes of text\n{\"a\":\n"), "{shown}");
        assert!(shown.contains("hint      "), "{shown}");
        let shown = printed(|output| show::show(&bytes, &[], false, output));
        assert!(shown.contains("2 bytes\n00000000  ff 00"), "{shown}");
        assert_eq!(to_json(&bytes, &[])["original_hex"], "ff00");
    }

    #[test]
    fn secrets_are_shown_only_to_who_asks_for_them() {
        let original = br#"{"user":"ann","password":"hunter2"}"#;
        let headers = vec![("Authorization".to_owned(), "Basic hunter2".to_owned())];
        let letter = DeadLetter { headers, ..letter("7.0", original) };
        let filed = FiledLetter { sequence: 1, letter };

        let shown = printed(|output| show::show(&filed, &[], false, output));
        assert!(shown.contains("masked    2 values; `--unmasked` shows them\n"), "{shown}");
        assert!(shown.contains("header    Authorization: ***\n"), "{shown}");
        let original = "original  35 bytes of text\n{\"user\":\"ann\",\"password\":\"***\"}";
        assert!(shown.contains(original), "{shown}");
        let shown = printed(|output| show::show(&filed, &[], true, output));
        assert!(!shown.contains("masked") && shown.contains("\"hunter2\"}"), "{shown}");
        let shown = to_json(&filed, &[]);
        assert!(!shown.to_string().contains("hunter2"), "{shown}");
        assert_eq!(shown["masked"], 2);
    }

    #[test]
    fn attempts_and_trace_are_shown_where_a_letter_has_them() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let bare = FiledLetter { sequence: 1, letter: letter("7.0", b"{") };
        let traced =
            DeadLetter { attempts: Some(5), trace: Some(trace.to_owned()), ..letter("8.0", b"{") };
        let traced = FiledLetter { sequence: 2, letter: traced };

        let shown = printed(|output| show::show(&traced, &[], false, output));
        assert!(shown.contains(&format!("\nattempts  5\ntrace     {trace}\n")), "{shown}");
        let shown = printed(|output| show::show(&bare, &[], false, output));
        assert!(!shown.contains("attempts") && !shown.contains("trace"), "{shown}");
        let [bare, traced] = [bare, traced].map(|filed| to_json(&filed, &[]));
        assert_eq!((&traced["attempts"], &traced["trace"]), (&json!(5), &json!(trace)));
        assert!(bare["attempts"].is_null() && bare["trace"].is_null());
    }
}
