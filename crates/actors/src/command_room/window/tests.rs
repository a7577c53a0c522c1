use super::*;

/// What the broker says of COMMANDS, and of a journal of as many messages as are decided.
pub(super) fn answer(end: Option<u64>, decided: u64) -> Answer {
    Answer { end, newest: Some(Newest { sequence: decided, decided }) }
}

#[test]
fn what_has_half_a_window_free_asks_nothing() {
    let mut window = Window::default();
    let now = Instant::now();
    window.begin(WINDOW_FIRST / 2, now);
    assert_eq!(window.question(now), None);

    window.begin(1, now);

    assert_eq!(window.question(now), Some(Question { unknown: 0 }));
    assert_eq!(window.question(now + ASK_INTERVAL), None, "one question at a time");
}

#[test]
fn who_decides_need_not_be_asked_while_it_tells_of_itself() {
    let mut window = Window::default();
    let mut now = Instant::now();
    window.begin(WINDOW_FIRST, now);
    for sequence in 1..100 {
        window.decided_up_to(sequence, now);
        now += ASK_INTERVAL / 2;
        assert_eq!(window.question(now), None);
    }

    now += ASK_INTERVAL;

    assert!(window.question(now).is_some());
}

#[test]
fn who_decides_is_asked_all_the_same_about_what_was_published_without_an_answer() {
    let mut window = Window::default();
    let mut now = Instant::now();
    window.begin(WINDOW_FIRST, now);
    window.lost_sight(WINDOW_FIRST);
    let _answered_too_early = window.question(now).map(|question| {
        window.answered(&question, Answer::default(), now);
    });

    let asked = (1..100).any(|sequence| {
        window.decided_up_to(sequence, now);
        now += ASK_INTERVAL / 2;
        window.question(now).is_some_and(|question| question.wants_end())
    });

    assert!(asked);
}

#[test]
fn while_a_partition_decides_what_others_published_one_frame_passes_per_second() {
    let mut window = Window::default();
    let begun = Instant::now();
    for place in 0..WINDOW_FIRST / WINDOW_MIN {
        window.begin(WINDOW_MIN, begun);
        window.stored(1_000_000 + place, WINDOW_MIN, begun);
    }

    let mut passed_ms = Vec::new();
    for ms in (0..10_000).step_by(10) {
        let now = begun + Duration::from_millis(ms);
        window.decided_up_to(ms, now);
        if window.admits(1, now) {
            window.begin(1, now);
            passed_ms.push(ms);
        }
    }

    assert_eq!(passed_ms, [5_000, 6_000, 7_000, 8_000, 9_000]);
}

/// A window that is full, before which a frame waits.
fn full(now: Instant) -> Window {
    let mut window = Window::default();
    for sequence in 1..=WINDOW_FIRST {
        window.begin(1, now);
        window.stored(sequence, 1, now);
    }
    assert!(!window.admits(1, now));
    window
}

#[test]
fn a_pause_of_the_partition_is_not_its_pace() {
    let begun = Instant::now();
    let mut window = full(begun);
    let mut now = begun;
    while now < begun + STANDSTILL / 2 {
        now += WAITING_GAP / 2;
        assert!(!window.admits(1, now));
    }

    window.decided_up_to(1, now);

    assert_eq!(window.size, WINDOW_FIRST / 2);
}

#[test]
fn what_is_decided_while_nothing_waits_is_no_measure() {
    let begun = Instant::now();
    let mut window = full(begun);

    window.decided_up_to(1, begun + STANDSTILL / 2);
    window.decided_up_to(WINDOW_FIRST, begun + STANDSTILL);

    assert_eq!(window.size, WINDOW_FIRST);
}

#[test]
fn a_frame_that_is_looked_at_twice_does_not_end_a_standstill() {
    let begun = Instant::now();
    let mut window = full(begun);
    let now = begun + STANDSTILL;

    for _ in 0..3 {
        // It has to wait for something else first.
        assert!(window.admits(1, now));
        assert!(window.admits(1, now));
        window.begin(1, now);
    }
}

#[test]
fn frames_that_are_refused_during_a_standstill_leave_the_window_as_it_was() {
    let begun = Instant::now();
    let mut window = full(begun);
    let now = begun + STANDSTILL;

    for _ in 0..1_000 {
        assert!(window.admits(1, now));
        window.begin(1, now);
    }
    for _ in 0..1_000 {
        window.refused(1);
    }

    assert_eq!(window.limit(), WINDOW_FIRST);
}

#[test]
fn where_answers_tell_nothing_new_they_are_asked_for_less_often() {
    let mut window = Window::default();
    let (begun, mut asked) = (Instant::now(), 0);
    window.begin(WINDOW_FIRST, begun);
    for ms in 0..60_000 {
        let now = begun + Duration::from_millis(ms);
        if let Some(question) = window.question(now) {
            asked += 1;
            window.answered(&question, Answer::default(), now);
        }
    }
    assert!(asked <= 65, "asked {asked} times in a minute");
}

#[test]
fn frames_whose_fate_nobody_knows_count_until_all_that_is_stored_is_decided() {
    let mut window = Window::default();
    let now = Instant::now();
    window.begin(WINDOW_FIRST, now);
    window.lost_sight(WINDOW_FIRST);
    assert!(!window.admits(1, now));

    let question = window.question(now).expect("a question");
    assert!(question.wants_end());
    window.answered(&question, answer(Some(7), 6), now);
    assert!(!window.admits(1, now));
    window.decided_up_to(7, now);

    assert!(window.admits(WINDOW_FIRST, now));
}

#[test]
fn what_is_known_of_very_many_frames_is_bounded() {
    let mut window = Window::default();
    let now = Instant::now();
    let frames = FRAMES_KNOWN_MAX as u64 + 1_000;
    for sequence in 1..=frames {
        window.begin(1, now);
        window.stored(sequence, 1, now);
    }
    assert!(window.stored.len() <= FRAMES_KNOWN_MAX);
    assert_eq!(window.outstanding(), frames);

    window.decided_up_to(frames, now);

    assert_eq!(window.outstanding(), 0);
}

#[test]
fn a_frame_that_waits_asks_however_little_is_undecided() {
    let begun = Instant::now();
    let mut window = Window { size: WINDOW_MIN, ..Window::default() };
    window.begin(100, begun);
    window.stored(1, 100, begun);
    assert!(!window.admits(200, begun));

    let question = window.question(begun).expect("a question");
    window.answered(&question, answer(None, 1), begun);

    assert!(window.admits(200, begun));
}

#[test]
fn a_partition_elsewhere_that_commits_is_asked_often_enough_not_to_seem_to_stand_still() {
    let begun = Instant::now();
    let mut window = full(begun);
    // Answers told nothing new for long.
    window.ask_interval = ASK_INTERVAL_MAX;
    window.asked_at = Some(begun);
    let mut journal = 0;
    for ms in 0..UNSERVED_MAX.as_millis() as u64 {
        let now = begun + Duration::from_millis(ms);
        if let Some(question) = window.question(now) {
            journal += 1;
            let newest = Newest { sequence: journal, decided: 0 };
            window.answered(&question, Answer { end: None, newest: Some(newest) }, now);
        }
        assert!(!window.admits(1, now), "one passed after {ms} ms");
    }
    assert!(journal <= 21, "asked {journal} times in {UNSERVED_MAX:?}");
}
