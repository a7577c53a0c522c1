//! The audit log is a function of the journal: whatever is appended together,
//! wherever an auditor ends and another begins, whatever it finds stored and
//! however little it may keep, the entries are those of the records, each once.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]
#![expect(clippy::wildcard_enum_match_arm, reason = "outputs that a test does not look at")]

mod stage;

use proptest::prelude::*;

use stage::{Fate, Stage, Step, journal};

/// Records of a message, by the number of their tenant; `None` is a foreign message.
fn messages() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    let records = prop::collection::vec(0..3_u8, 0..6);
    prop::collection::vec(prop_oneof![8 => records.prop_map(Some), 1 => Just(None)], 1..30)
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        6 => Just(Fate::Stored),
        1 => Just(Fate::AcknowledgementLost),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Refused),
        1 => Just(Fate::ConflictReported),
    ];
    prop_oneof![
        8 => (1..6_usize).prop_map(Step::Tell),
        8 => fate.prop_map(Step::Answer),
        3 => (0..1_500_u64).prop_map(Step::Pass),
        1 => Just(Step::Foreign),
        1 => Just(Step::Late),
        1 => (0..5_usize).prop_map(|further| Step::Crash { further }),
    ]
}

/// No file of past failures: their inputs become tests of their own.
fn without_files() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(without_files())]

    #[test]
    fn the_log_is_the_same_whatever_happens(
        messages in messages(),
        large in prop::option::of(any::<prop::sample::Index>()),
        backlog_bytes_max in prop::sample::select(&[1_usize, 700, 5_000, usize::MAX]),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let large = large.map(|large| large.index(messages.len()));
        let mut stage = Stage::new(journal(&messages, large), backlog_bytes_max);

        for step in steps {
            stage.go(step);
        }
        stage.finish();

        stage.assert_the_log_is_that_of_the_journal();
    }
}

/// The bound needs an end of the replay that does not wait for room.
#[test]
fn an_auditor_without_room_never_holds_a_replay_back() {
    let messages = vec![Some(vec![0; 5]); 40];
    let mut stage = Stage::new(journal(&messages, None), 1);

    stage.go(Step::Crash { further: 40 });
    stage.go(Step::Tell(40));

    assert_eq!(stage.holds_back_from(), None, "still taking over");
    stage.go(Step::Tell(1));
    assert_eq!(stage.holds_back_from(), Some(1), "taken over, nothing stored yet");
    stage.finish();
    assert_eq!(stage.holds_back_from(), None, "all stored");
    stage.assert_the_log_is_that_of_the_journal();
}

#[test]
fn entries_that_were_stored_and_not_sent_are_sent_by_the_next_auditor() {
    let messages = vec![Some(vec![0, 1]), Some(vec![1])];
    let mut stage = Stage::new(journal(&messages, None), usize::MAX);
    stage.go(Step::Crash { further: 2 });
    stage.go(Step::Tell(3));
    stage.go(Step::Answer(Fate::Stored));
    stage.go(Step::Answer(Fate::AcknowledgementLost));
    assert_eq!((stage.stored(), stage.sent()), (3, 0));

    stage.go(Step::Crash { further: 0 });
    stage.finish();

    assert_eq!(stage.sent(), 3);
    stage.assert_the_log_is_that_of_the_journal();
}

/// How often the auditor is told the time, milliseconds, and how long an entry may go unsigned.
const TICK_MS: u64 = 100;
const UNSIGNED_MS_MAX: u64 = 1_000;

#[test]
fn under_load_no_stored_entry_goes_without_a_checkpoint_for_more_than_a_second() {
    let messages = vec![Some(vec![0, 1]); 400];
    let mut stage = Stage::new(journal(&messages, None), usize::MAX);
    // Live, and the first append is under way.
    stage.go(Step::Tell(1));
    stage.go(Step::Answer(Fate::Stored));
    stage.go(Step::Tell(1));
    // What was stored when, as far as it is not signed.
    let mut unsigned = std::collections::VecDeque::new();
    let mut checkpoints = 0;

    for now_ms in (0..30_000_u64).step_by(100) {
        // Never idle: the next message is there before the one before it is stored.
        stage.go(Step::Tell(1));
        let (stored, signed) = (stage.stored(), stage.signed());
        stage.go(Step::Answer(Fate::Stored));
        assert!(stage.stored() > stored && stage.appends(), "idle after {now_ms} ms");
        unsigned.push_back((stage.stored(), now_ms));
        stage.go(Step::Pass(TICK_MS));
        checkpoints += u32::from(stage.signed() > signed);
        let oldest_ms = unsigned.front().map_or(now_ms, |(_, since_ms)| *since_ms);
        let unsigned_ms = now_ms + TICK_MS - oldest_ms;
        assert!(unsigned_ms <= UNSIGNED_MS_MAX, "{unsigned_ms} ms without a checkpoint");
        while unsigned.front().is_some_and(|(size, _)| *size <= stage.signed()) {
            unsigned.pop_front();
        }
    }

    assert!((25..=31).contains(&checkpoints), "{checkpoints} in 30 s: each is kept for ever");
    stage.finish();
    stage.assert_the_log_is_that_of_the_journal();
}

/// Nothing is told or stored after it: only the time goes on.
#[test]
fn the_last_entry_before_silence_is_signed_within_a_second() {
    let mut stage = Stage::new(journal(&vec![Some(vec![0]); 2], None), usize::MAX);
    stage.go(Step::Tell(2));
    stage.go(Step::Answer(Fate::Stored));
    stage.go(Step::Answer(Fate::Stored));
    assert_eq!(stage.signed(), 1, "at rest it is signed at once");
    stage.go(Step::Tell(1));
    stage.go(Step::Answer(Fate::Stored));
    assert_eq!((stage.stored(), stage.signed()), (2, 1), "a moment after that it is not");

    for _ in 0..UNSIGNED_MS_MAX / TICK_MS {
        stage.go(Step::Pass(TICK_MS));
    }

    assert_eq!(stage.signed(), 2);
}
