//! `fermata dead`: input that could not be used, why, and once more after repair.

mod edit;
mod from_events;
mod hints;
mod letters;
mod list;
mod near;
mod replay;
mod replayed;
mod request;
mod show;
mod started;

use clap::{Args, Subcommand};
use fermata_jetstream::StreamReader;
use fermata_wire::dead::DeadLetter;
use serde_json::{Value, json};

use self::from_events::whole;
pub use self::letters::{DeadLetters, FiledLetter};
use self::list::ListArguments;
use self::near::{NearLetters, not_there};
use self::replay::ReplayArguments;
pub use self::replayed::Replayed;
use self::request::holds_event;
use self::show::Shown;
use self::started::{key_of, look};

use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode, in_one_line};
use crate::output::{Output, hex, time_text};

/// Letters that are kept of those asked for by id. Default 1,000.
const NAMED_MAX: usize = 1_000;

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
the engine's listeners must know. Typed twice it is one replay, unless the first one was rejected
again, as before a mend: then it is decided anew. Asked for otherwise, with another reason, say, it
would be another one, and is refused; so is one whose event has started work, before it was refused or
since, or may still do so by the replay of another letter. Of several letters those are left out (exit
code 1). `--again` has the event decided once more all the same, each time that it is typed, and does
not look into the journals.

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
            let mut dead = dead?;
            arguments.check_codes(&known)?;
            let refused = dead.said_refused();
            if !refused.is_empty() {
                match look(std::iter::empty(), refused.iter(), &session, output).await {
                    Ok(starts) => dead.settle(&starts, None),
                    Err(error) => output.note(&format!(
                        "whether all replays were refused that are told as such is not known: {}",
                        in_one_line(&error)
                    )),
                }
            }
            list::list(&dead, known.nothing_of(&arguments).as_deref(), output)
        }
        DeadCommand::Show(arguments) => {
            let near = NearLetters::default();
            let takes = |letter: &DeadLetter| near.see(&arguments.id, letter);
            let dead = DeadLetters::read(&reader, NAMED_MAX, takes, &progress).await;
            progress.finish_and_clear();
            show_all(&arguments, &session, dead?, &near, output).await
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
            replay::replay(&arguments, &session, &mut dead?, &near, output).await
        }
    }
}

/// Shows what was filed under the id, by whichever stages.
async fn show_all(
    arguments: &ShowArguments,
    session: &BrokerSession,
    mut dead: DeadLetters,
    near: &NearLetters,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let id = &arguments.id;
    let mut found = Vec::new();
    for filed in dead.of_id(id) {
        let (filed, held) = whole(filed, session).await?;
        let key = Some(&filed.letter).filter(|letter| holds_event(letter)).and_then(key_of);
        found.push((filed, held, key));
    }
    if found.is_empty() {
        return Err(not_there(id, near));
    }
    let keys = found.iter().filter_map(|(.., key)| key.as_ref());
    let starts = look(keys, dead.replays_of(id).into_iter(), session, output).await;
    let starts = match starts {
        Ok(starts) => Some(starts),
        Err(error) => {
            output
                .note(&format!("what its event has started is not known: {}", in_one_line(&error)));
            None
        }
    };
    if let Some(starts) = &starts {
        dead.settle(starts, None);
    }
    for (filed, held, key) in &found {
        let started = key.as_ref().zip(starts.as_ref());
        let started = started.map(|(key, starts)| starts.of(key, filed.letter.time_ms).collect());
        let replays = dead.replays_of(id);
        show::show(&Shown { filed, held: *held, replays, started }, arguments.unmasked, output)?;
    }
    Ok(ExitCode::Success)
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
        "hint": hints::hint(letter),
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
    use fermata_core::identity::SourcePosition;
    use fermata_core::record::{Header, Record};

    use super::from_events::Held;
    use super::letters::testing::{gathered, letter};
    use super::*;
    use crate::commands::testing::printed;
    use crate::journal_view::Starts;
    use crate::journal_view::testing::{Script, run_of};

    /// What a note of a replay of the letter `7.0` says: as it is stored before the request is sent, and
    /// behind it with the request's place in EVENTS.
    fn note(request: &str, seconds: u64, stored: Option<&str>) -> Vec<u8> {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers = vec![header("Fermata-Replay", "7.0"), header("webhook-id", request)];
        headers.extend(stored.map(|sequence| header("Fermata-Stored", sequence)));
        let note = DeadLetter {
            stage: "replays".to_owned(),
            reason: "replayed".to_owned(),
            detail: "alice: a typo".to_owned(),
            time_ms: seconds * 1_000,
            headers,
            ..letter(&format!("REPLAY.{request}"), b"")
        };
        note.encode().unwrap()
    }

    fn shown_of<'a>(filed: &'a FiledLetter, replays: &[&'a Replayed]) -> Shown<'a> {
        Shown { filed, held: Held::ByLetter, replays: replays.to_vec(), started: None }
    }

    /// The letter of a request to replay `7.0`, stored at `sequence`, that was refused.
    fn refused(sequence: u64) -> Vec<u8> {
        let headers = vec![("fermata-replay".to_owned(), "7.0".to_owned())];
        let id = format!("{sequence}.0");
        let reason = "replay_forged".to_owned();
        DeadLetter { reason, headers, ..letter(&id, b"{}") }.encode().unwrap()
    }

    /// The cell below `REPLAYED` in the row of the letter `7.0`.
    fn listed(dead: &DeadLetters) -> String {
        let listed = printed(|output| list::list(dead, None, output).map(|_| ()));
        let row = listed.lines().find(|line| line.starts_with(" 7.0 ")).expect(&listed);
        let cells = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        cells.collect::<Vec<_>>()[6].to_owned()
    }

    #[test]
    fn a_note_of_a_replay_is_no_letter_and_marks_the_letters_of_its_id() {
        let [first, other] = ["7.0", "8.0"].map(|id| letter(id, b"{").encode().unwrap());

        let dead = gathered(&[first, note("replay_1", 1_700_000_000, None), other]);

        assert_eq!((dead.found, dead.unreadable_count), (2, 0));
        assert!(dead.replays_of("8.0").is_empty());
        let replays = dead.replays_of("7.0");
        let shown =
            printed(|output| show::show(&shown_of(&dead.letters[0], &replays), false, output));
        let told = "\nreplayed  2023-11-14T22:13:20.000Z as `replay_1` by alice: a typo\n";
        assert!(shown.contains(told), "{shown}");
        assert_eq!(to_json(&dead.letters[0], &replays)["replays"][0]["request"], "replay_1");
        assert_eq!(listed(&dead), "2023-11-14T22:13:20.000Z");
    }

    #[test]
    fn a_letter_whose_replay_was_refused_is_not_shown_as_replayed() {
        let seven = letter("7.0", b"{").encode().unwrap();
        let asked = |seconds, sequence| {
            [note("replay_1", seconds, None), note("replay_1", seconds, Some(sequence))]
        };
        let [before, behind] = asked(1_700_000_000, "9");

        // The letter of the refused request may be filed before the note that says where it stands.
        let messages = [seven.clone(), before.clone(), refused(9), behind.clone()];
        let dead = gathered(&messages);

        assert_eq!(listed(&dead), "refused: 9.0");
        let replays = dead.replays_of("7.0");
        let shown =
            printed(|output| show::show(&shown_of(&dead.letters[0], &replays), false, output));
        let told = "\nrefused   a replay 2023-11-14T22:13:20.000Z as `replay_1` by alice: a typo: \
                    `replay_forged`, `fermata dead show 9.0` says more\n";
        assert!(shown.contains(told) && !shown.contains("\nreplayed"), "{shown}");
        let told = &to_json(&dead.letters[0], &replays)["replays"][0];
        let refusal = json!({"letter": "9.0", "reason": "replay_forged"});
        assert_eq!((&told["sequence"], &told["refused"]), (&json!(9), &refusal));

        // Asked for again, with the right secret, and once more by who did not know.
        let [again, again_behind] = asked(1_700_000_060, "11");
        let copy = asked(1_700_000_120, "13");
        let messages = [&messages[..], &[again, again_behind], &copy].concat();
        let dead = gathered(&messages);
        assert_eq!(listed(&dead), "2023-11-14T22:14:20.000Z");
        let told = dead.replays_of("7.0").into_iter().map(|replayed| replayed.sequence);
        assert_eq!(told.collect::<Vec<_>>(), [Some(9), Some(11)]);

        // A copy that is refused behind it changes nothing, nor what is refused elsewhere.
        let dead = gathered(&[&messages[..], &[refused(13), refused(15)]].concat());
        assert_eq!(listed(&dead), "2023-11-14T22:14:20.000Z");
    }

    #[test]
    fn a_letter_whose_replay_was_rejected_again_points_to_the_letter_of_that() {
        let rejected = |sequence: u64| {
            let letter = letter(&format!("{sequence}.0"), b"{}");
            let (stage, reason) = ("builder".to_owned(), "variables_failed".to_owned());
            DeadLetter { stage, reason, ..letter }.encode().unwrap()
        };
        let asked = |request, seconds, sequence| {
            [note(request, seconds, None), note(request, seconds, Some(sequence))]
        };
        let [before, behind] = asked("replay_1", 1_700_000_000, "9");
        let mut messages = vec![letter("7.0", b"{").encode().unwrap(), before, rejected(9), behind];

        // A copy that its partition knew starts nothing, and is no replay that is under way.
        messages.extend(asked("replay_1", 1_700_000_060, "11"));
        assert_eq!(listed(&gathered(&messages)), "refused: 9.0");
        let dead = gathered(&messages);
        let replays = dead.replays_of("7.0");
        let shown =
            printed(|output| show::show(&shown_of(&dead.letters[0], &replays), false, output));
        assert!(shown.contains("`variables_failed`, `fermata dead show 9.0`"), "{shown}");

        messages.extend(asked("replay_2", 1_700_000_120, "13"));
        assert_eq!(listed(&gathered(&messages)), "2023-11-14T22:15:20.000Z");
        messages.push(rejected(13));
        assert_eq!(listed(&gathered(&messages)), "refused: 13.0");
    }

    #[test]
    fn a_request_that_one_listener_refused_and_another_took_is_told_as_replayed() {
        let seven = letter("7.0", b"{").encode().unwrap();
        let note = note("replay_1", 1_700_000_000, Some("9"));
        let mut script = Script::default();
        let place = |sequence| SourcePosition { sequence, index: 0 };
        let run = run_of("a");
        let settled = |records: &[(Header, Record)], now_ms| {
            let mut dead = gathered(&[seven.clone(), refused(9), note.clone()]);
            dead.settle(&Starts::of_places([place(9)], records), now_ms);
            listed(&dead)
        };

        let rejected = script.at(1_000).event_rejected(place(9));
        assert_eq!(settled(std::slice::from_ref(&rejected), None), "refused: 9.0");
        let started = script.at(2_000).event_started(1, place(9), run);
        assert_eq!(settled(&[rejected, started], None), "2023-11-14T22:13:20.000Z");
        // What no journal has is believed, but not where it decides what is asked for within the hour.
        assert_eq!(settled(&[], None), "refused: 9.0");
        assert_eq!(settled(&[], Some(1_700_000_060_000)), "2023-11-14T22:13:20.000Z");
        assert_eq!(settled(&[], Some(1_700_086_400_000)), "refused: 9.0");
    }

    #[test]
    fn original_bytes_are_shown_as_text_where_they_are_text() {
        let text = FiledLetter { sequence: 1, letter: letter("7.0", b"{\"a\":") };
        let bytes = FiledLetter { sequence: 2, letter: letter("8.0", b"\xff\x00") };

        let shown = printed(|output| show::show(&shown_of(&text, &[]), false, output));
        assert!(shown.ends_with("5 bytes of text\n{\"a\":\n"), "{shown}");
        assert!(shown.contains("hint      "), "{shown}");
        let shown = printed(|output| show::show(&shown_of(&bytes, &[]), false, output));
        assert!(shown.contains("2 bytes\n00000000  ff 00"), "{shown}");
        assert_eq!(to_json(&bytes, &[])["original_hex"], "ff00");
    }

    #[test]
    fn secrets_are_shown_only_to_who_asks_for_them() {
        let original = br#"{"user":"ann","password":"hunter2"}"#;
        let headers = vec![("Authorization".to_owned(), "Basic hunter2".to_owned())];
        let letter = DeadLetter { headers, ..letter("7.0", original) };
        let filed = FiledLetter { sequence: 1, letter };

        let shown = printed(|output| show::show(&shown_of(&filed, &[]), false, output));
        assert!(shown.contains("masked    2 values; `--unmasked` shows them\n"), "{shown}");
        assert!(shown.contains("header    Authorization: ***\n"), "{shown}");
        let original = "original  35 bytes of text\n{\"user\":\"ann\",\"password\":\"***\"}";
        assert!(shown.contains(original), "{shown}");
        let shown = printed(|output| show::show(&shown_of(&filed, &[]), true, output));
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

        let shown = printed(|output| show::show(&shown_of(&traced, &[]), false, output));
        assert!(shown.contains(&format!("\nattempts  5\ntrace     {trace}\n")), "{shown}");
        let shown = printed(|output| show::show(&shown_of(&bare, &[]), false, output));
        assert!(!shown.contains("attempts") && !shown.contains("trace"), "{shown}");
        let [bare, traced] = [bare, traced].map(|filed| to_json(&filed, &[]));
        assert_eq!((&traced["attempts"], &traced["trace"]), (&json!(5), &json!(trace)));
        assert!(bare["attempts"].is_null() && bare["trace"].is_null());
    }
}
