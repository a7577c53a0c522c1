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
