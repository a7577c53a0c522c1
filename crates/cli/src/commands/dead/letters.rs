//! What is in the stream DEAD: letters, each once, and what is noted of their replays.

use std::collections::{HashSet, VecDeque};

use fermata_core::digest::hash_parts_128;
use fermata_jetstream::StreamReader;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::DEAD_STREAM;
use fermata_wire::dead::DeadLetter;
use indicatif::ProgressBar;

use super::replayed::{self, RefusedRequest, Replayed};
use crate::error::CliError;
use crate::journal_view::Starts;

/// How many messages are taken from the stream at a time.
const BATCH_MESSAGES: usize = 256;

/// Letters whose keys are remembered while the stream is read. Default 100,000, some
/// megabytes: a letter is filed again, if it is, within minutes of the first time. One
/// that is filed again behind so many others is listed again.
const RECENT_MAX: usize = 100_000;

/// Notes of replays, letters of requests to replay that were refused, and letters that may be of the events
/// of requests which are noted later, that are remembered while the stream is read, the newest of each.
/// Default 10,000, some megabytes: of a letter whose replay so many others follow it is told no more.
const REPLAYS_MAX: usize = 10_000;

/// Messages that are no dead letters and are named; the others are counted.
const UNREADABLE_NAMED_MAX: usize = 20;

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
    /// Sequence of the first message of the stream that was not read.
    pub next: u64,
}

impl DeadLetters {
    /// Reads the stream for the newest `keep` letters that `takes` says yes to, and for notes of
    /// replays. What it holds at a time is that, `REPLAYS_MAX` such notes, as many refused requests and as many
    /// names of letters, and the keys of the last `RECENT_MAX` letters.
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
                return Ok(Self { next: replay.wanted(), ..gathered.finish() });
            }
            progress.inc(u64::try_from(messages.len()).unwrap_or(0));
            for message in messages {
                gathered.add(message.sequence, &message.payload);
            }
        }
    }

    /// The notes of replays that were stored behind what was read and before `end`.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub(super) async fn notes_before(
        &self,
        end: u64,
        reader: &StreamReader,
    ) -> Result<Vec<Replayed>, CliError> {
        let mut notes = VecDeque::new();
        let mut replay = reader.replay(DEAD_STREAM, self.next, Holes::Allowed).await?;
        loop {
            let messages = replay.next_batch(BATCH_MESSAGES).await?;
            let is_last = messages.last().is_none_or(|message| message.sequence >= end);
            let before = messages.into_iter().filter(|message| message.sequence < end);
            let letters = before.filter_map(|message| DeadLetter::decode(&message.payload).ok());
            letters.filter_map(Replayed::of).for_each(|replayed| replayed.note_in(&mut notes));
            if is_last {
                return Ok(notes.into());
            }
        }
    }

    /// Has the journals say which requests were refused, and not letters alone.
    pub(super) fn settle(&mut self, starts: &Starts, now_ms: Option<u64>) {
        let replays = std::mem::take(&mut self.replays);
        self.replays = replayed::settled_by(replays, starts, now_ms);
    }

    /// Requests to replay what is kept here that are said to be refused.
    pub(super) fn said_refused(&self) -> Vec<Replayed> {
        let ids = self.letters.iter().map(|filed| filed.letter.id.as_str()).collect::<HashSet<_>>();
        let replays = self.replays.iter().filter(|replayed| replayed.refused.is_some());
        replays.filter(|replayed| ids.contains(replayed.id.as_str())).cloned().collect()
    }

    /// The replays of what was filed under an id.
    pub(super) fn replays_of(&self, id: &str) -> Vec<&Replayed> {
        self.replays.iter().filter(|replayed| replayed.id == id).collect()
    }

    /// What was filed under an id, by whichever stages.
    pub(super) fn of_id<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a FiledLetter> {
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
    refused: VecDeque<RefusedRequest>,
    /// Letters under which the requests of `replays` would be filed.
    noted: HashSet<String>,
    /// Of events that may be requests': a letter may be filed before the note that says where its request stands.
    unnoted: VecDeque<RefusedRequest>,
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
            refused: VecDeque::new(),
            noted: HashSet::new(),
            unnoted: VecDeque::new(),
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
            if let Some(replayed) = Replayed::of(letter) {
                self.noted.extend(replayed.letter_of_request());
                replayed.note_in(&mut self.replays);
            }
            if self.replays.len() > REPLAYS_MAX
                && let Some(letter) =
                    self.replays.pop_front().and_then(|old| old.letter_of_request())
            {
                self.noted.remove(&letter);
            }
            return;
        }
        let behind = RefusedRequest::behind(&letter);
        let kept = match &behind {
            Some(behind) if !self.noted.contains(&behind.letter) => &mut self.unnoted,
            Some(_) | None => &mut self.refused,
        };
        kept.extend(behind.or_else(|| RefusedRequest::of(&letter)));
        if kept.len() > REPLAYS_MAX {
            kept.pop_front();
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
        let refused = self.unnoted.into_iter().chain(self.refused);
        let (letters, replays) = (letters.into(), replayed::settled(replays, refused));
        DeadLetters { letters, found, unreadable, unreadable_count, replays, next: 1 }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in crate::commands::dead) fn letter(id: &str, original: &'static [u8]) -> DeadLetter {
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

    pub(in crate::commands::dead) fn gathered(messages: &[Vec<u8>]) -> DeadLetters {
        newest(usize::MAX, messages)
    }

    pub(in crate::commands::dead) fn newest(keep: usize, messages: &[Vec<u8>]) -> DeadLetters {
        let mut gathered = Gathered::new(keep, |letter| letter.tenant == "acme");
        for (sequence, payload) in (1..).zip(messages) {
            gathered.add(sequence, payload);
        }
        gathered.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{gathered, letter, newest};
    use super::*;

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
}
