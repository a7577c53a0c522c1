//! Whose turn it is: deadlines, outcomes of runs that were begun, and commands that begin more.

use fermata_partition::owner::{RECORDS_WITHOUT_COMMANDS_MAX, REPORTS_WAITING_MAX, TURN_RECORDS};

use super::*;

#[test]
fn a_deadline_is_not_kept_waiting_by_commands() {
    let mut bench = Bench::owning(Limits::default());
    bench.command(vec![start(1, 0)]);
    bench.settle();
    // The first goes out at once, the next fill a frame meanwhile, most wait.
    for sequence in 2..=60 {
        bench.command((0..50).map(|index| start(sequence, index)).collect());
    }

    bench.now_ms += DEADLINE_MS;
    let mut frames = Vec::new();
    while bench.in_flight.is_some() {
        frames.push(bench.store());
    }

    assert!(frames.len() > 5, "{} frames", frames.len());
    let timed_out = frames.iter().position(|kinds| kinds.contains(&Kind::RunClosing));
    assert!(timed_out.is_some_and(|frame| frame <= 2), "in frame {timed_out:?}");
}

#[test]
fn runs_that_were_begun_go_on_before_more_are_begun() {
    let mut bench = Bench::owning(Limits::default());
    let outcomes = 5 * REPORTS_WAITING_MAX;
    bench.with_outcomes(outcomes as u32);
    for sequence in 100..110 {
        bench.command((0..50).map(|index| start(sequence, index)).collect());
    }

    let (mut told, mut begun) = (0, 0);
    while begun == 0 && bench.in_flight.is_some() {
        let kinds = bench.store();
        told += kinds.iter().filter(|kind| **kind == Kind::NodeRetrying).count();
        begun += kinds.iter().filter(|kind| **kind == Kind::RunStarted).count();
    }

    assert!(begun > 0);
    // The frame that begins runs was filled when fewer outcomes were left.
    assert!(told + REPORTS_WAITING_MAX >= outcomes, "{told} of {outcomes} were told before");
}

#[test]
fn commands_have_their_turn_however_many_outcomes_wait() {
    let mut bench = Bench::owning(Limits::default());
    let outcomes = RECORDS_WITHOUT_COMMANDS_MAX + 5 * REPORTS_WAITING_MAX;
    bench.with_outcomes(outcomes as u32);
    bench.command(vec![start(1_000, 0)]);

    let mut told = 0;
    while bench.in_flight.is_some() {
        let kinds = bench.store();
        told += kinds.iter().filter(|kind| **kind == Kind::NodeRetrying).count();
        if kinds.contains(&Kind::RunStarted) {
            break;
        }
    }

    assert!(told < outcomes - REPORTS_WAITING_MAX, "{told} of {outcomes} were told before");
    assert!(told + REPORTS_WAITING_MAX >= RECORDS_WITHOUT_COMMANDS_MAX, "{told} were told before");
}

#[test]
fn commands_have_a_whole_turn_however_small_their_messages_are() {
    let mut bench = Bench::owning(Limits::default());
    let outcomes = RECORDS_WITHOUT_COMMANDS_MAX + 5 * REPORTS_WAITING_MAX;
    bench.with_outcomes(outcomes as u32);
    for sequence in 1_000..1_050 {
        bench.command(vec![start(sequence, 0)]);
    }

    let (mut told, mut records) = (0, 0);
    // A turn may begin with what is left of one frame and end with the next.
    let mut frames_left = None;
    while bench.in_flight.is_some() && frames_left != Some(0) {
        let kinds = bench.store();
        told += kinds.iter().filter(|kind| **kind == Kind::NodeRetrying).count();
        records += kinds.iter().filter(|kind| **kind != Kind::NodeRetrying).count();
        let begins = kinds.contains(&Kind::RunStarted);
        frames_left = frames_left.map(|left: u32| left - 1).or(begins.then_some(1));
    }

    assert!(told < outcomes - REPORTS_WAITING_MAX, "{told} of {outcomes} were told before");
    assert!(records >= TURN_RECORDS, "{records} records of commands");
}

#[test]
fn a_deadline_passes_while_every_attempt_is_taken() {
    let mut bench = Bench::owning(Limits { attempts_open_max: 1, ..Limits::default() });
    bench.command(vec![start(1, 0)]);
    bench.settle();
    assert_eq!(bench.owner.partition().running(), 1);
    assert_eq!(bench.owner.wakes_in_ms(bench.now()), Some(DEADLINE_MS));

    bench.now_ms += DEADLINE_MS;
    bench.tell(Input::Tick);

    assert_eq!(bench.settle(), [Kind::RunClosing]);
}
