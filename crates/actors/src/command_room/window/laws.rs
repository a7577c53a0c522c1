use std::collections::VecDeque;

use proptest::prelude::*;

use super::tests::answer;
use super::*;

const MS: Duration = Duration::from_millis(1);

/// A flood in steps of a millisecond: one builder, one partition, a broker between them.
struct Flood {
    window: Window,
    now: Instant,
    /// How long a publish, or an answer, takes.
    way: Duration,
    /// Commands that the partition decides per millisecond; nothing while it stands still.
    pace: f64,
    /// Whether the partition is in the builder's process, and tells of itself.
    is_near: bool,
    /// Whether questions are answered.
    answers: bool,
    /// Whether the partition decides outcomes alone; it commits all the while.
    outcomes_first: bool,
    /// Messages of the partition's journal.
    journal: u64,
    /// Commands of frames, in turn.
    frames: Vec<u64>,
    /// How many were let through.
    begun: usize,
    publishing: VecDeque<(Instant, u64)>,
    asking: Option<(Question, Instant)>,
    /// Commands of each frame in COMMANDS that the partition has not decided.
    commands_left: VecDeque<f64>,
    stored: u64,
    waiting: u64,
    refused: u64,
    idle: u64,
    decided: u64,
    budget: f64,
}

impl Flood {
    fn new(frames: &[u64], pace: f64, way: Duration, is_near: bool) -> Self {
        Self {
            window: Window::default(),
            now: Instant::now(),
            way,
            pace,
            is_near,
            answers: true,
            outcomes_first: false,
            journal: 0,
            frames: frames.to_vec(),
            begun: 0,
            publishing: VecDeque::new(),
            asking: None,
            commands_left: VecDeque::new(),
            stored: 0,
            waiting: 0,
            refused: 0,
            idle: 0,
            decided: 0,
            budget: 0.0,
        }
    }

    /// So many frames more are to be published; then a millisecond passes.
    fn step(&mut self, frames: u64) {
        self.waiting += frames;
        self.publish();
        self.now += MS;
        let way = self.way;
        while let Some((_, commands)) =
            self.publishing.pop_front_if(|(begun, _)| *begun + way <= self.now)
        {
            self.stored += 1;
            self.commands_left.push_back(commands as f64);
            self.window.stored(self.stored, commands, self.now);
        }
        if self.outcomes_first {
            self.commit();
        } else {
            self.decide();
        }
        if self.asking.as_ref().is_some_and(|(_, asked)| *asked + self.way <= self.now)
            && let Some((question, _)) = self.asking.take()
        {
            let (sequence, decided) = (self.journal, self.decided);
            let newest = self.answers.then_some(Newest { sequence, decided });
            let answer = Answer { end: self.answers.then_some(self.stored), newest };
            self.window.answered(&question, answer, self.now);
        }
    }

    /// So many commands more per millisecond are to be published.
    fn step_with(&mut self, ms: u64, per_ms: u64) {
        let (frames, commands) = (self.frames.len() as u64, self.frames.iter().sum::<u64>());
        let until = |ms: u64| ms * per_ms * frames / commands;
        self.step(until(ms) - until(ms - 1));
    }

    fn publish(&mut self) {
        while self.waiting > 0 {
            let commands = self.frames[self.begun % self.frames.len()];
            let admits = self.window.admits(commands, self.now);
            if admits {
                self.window.begin(commands, self.now);
                self.publishing.push_back((self.now, commands));
                self.begun += 1;
                self.waiting -= 1;
            }
            if let Some(question) = self.window.question(self.now) {
                self.asking = Some((question, self.now));
            }
            if !admits {
                self.refused += 1;
                return;
            }
        }
    }

    fn decide(&mut self) {
        self.budget += self.pace;
        while let Some(left) = self.commands_left.front_mut() {
            let part = left.min(self.budget);
            *left -= part;
            self.budget -= part;
            if *left > 0.0 {
                return;
            }
            self.commands_left.pop_front();
            self.decided += 1;
            self.commit();
        }
        if self.budget > 0.0 {
            self.idle += 1;
            self.budget = 0.0;
        }
    }

    fn commit(&mut self) {
        self.journal += 1;
        if self.is_near {
            self.window.decided_up_to(self.decided, self.now);
        }
    }

    /// How long what stands in COMMANDS takes, milliseconds.
    fn ahead_ms(&self) -> f64 {
        self.commands_left.iter().sum::<f64>() / self.pace
    }
}

/// How many of 1,000 ms a flooded partition may have nothing to decide: elsewhere it may wait
/// for a question when its frames are large, or of different sizes.
fn idle_most(is_near: bool) -> u64 {
    if is_near { 20 } else { 200 }
}

/// What a slow partition has before it: one frame that it decides, some that are on their way.
fn few_frames(frames: &[u64]) -> u64 {
    6 * frames.iter().copied().max().unwrap_or_default().max(WINDOW_MIN)
}

/// Frames of some sizes, in turn.
fn frames() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1..400_u64, 1..4)
}

fn way() -> impl Strategy<Value = Duration> {
    (1..20_u64).prop_map(Duration::from_millis)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Up to 20,000 commands per second for one partition, whoever owns it, and 50,000 where
    /// the owner is near; beyond that the window has to grow first.
    #[test]
    fn an_engine_that_keeps_up_never_waits(
        frames in frames(),
        per_ms in 1..50_u64,
        way in way(),
        is_near: bool,
    ) {
        let per_ms = if is_near { per_ms } else { per_ms.min(20) };
        let mut flood = Flood::new(&frames, 100.0, way, is_near);
        for ms in 1..2_000 {
            flood.step_with(ms, per_ms);
        }
        prop_assert_eq!(flood.refused, 0);
    }

    /// Whatever the partition's pace: while a flood lasts it always has something to decide,
    /// and what stands before it is decided within [`AHEAD_MAX`] and a little, or is few frames.
    #[test]
    fn a_flood_keeps_the_partition_busy_and_waits_where_it_can_be_passed(
        frames in frames(),
        per_second in 1_000..150_000_u32,
        way in way(),
        is_near: bool,
    ) {
        let pace = f64::from(per_second) / 1_000.0;
        let mut flood = Flood::new(&frames, pace, way, is_near);
        for _ in 0..8_000 {
            flood.step(1_000);
        }
        let (idle, mut most) = (flood.idle, 0.0_f64);
        for _ in 0..1_000 {
            flood.step(1_000);
            most = most.max(flood.ahead_ms());
        }
        let idle = flood.idle - idle;
        prop_assert!(idle <= idle_most(is_near), "{idle} of 1,000 ms without anything to decide");
        let least = few_frames(&frames) as f64 / pace;
        let bound = (AHEAD_MAX.as_millis() as f64 * 1.2).max(least);
        prop_assert!(most <= bound, "{most} ms stand before it, at most {bound}");
    }

    /// A window that a slow time has made small does not slow down what can go faster again.
    #[test]
    fn a_window_that_limits_grows(frames in frames(), way in way(), is_near: bool) {
        let mut flood = Flood::new(&frames, 1.0, way, is_near);
        for _ in 0..5_000 {
            flood.step(1_000);
        }
        prop_assert!(flood.window.size <= few_frames(&frames));

        flood.pace = 100.0;
        for _ in 0..2_000 {
            flood.step(1_000);
        }
        let idle = flood.idle;
        for _ in 0..1_000 {
            flood.step(1_000);
        }

        prop_assert!(flood.idle - idle <= idle_most(is_near), "{} ms idle", flood.idle - idle);
    }

    /// No owner, a halted one, or no answers: what comes for others is not held up, and when
    /// the partition goes on, what has piled up goes away while further frames pass.
    #[test]
    fn a_partition_that_stands_still_holds_its_frames_up_for_a_second(
        frames in frames(),
        way in way(),
        is_near: bool,
        answers: bool,
    ) {
        let mut flood = Flood::new(&frames, 0.0, way, is_near);
        flood.answers = answers;
        let mut longest = 0;
        let mut waited = 0;
        for ms in 1..5_000 {
            flood.step_with(ms, 20);
            waited = if flood.waiting == 0 { 0 } else { waited + 1 };
            longest = longest.max(waited);
        }
        prop_assert_eq!(flood.waiting, 0);
        prop_assert!(longest <= STANDSTILL.as_millis() + 1, "{longest} ms");

        // It goes on, more than twice as fast as more comes.
        flood.answers = true;
        flood.pace = 50.0;
        longest = 0;
        for ms in 1..10_000 {
            flood.step_with(ms, 20);
            waited = if flood.waiting == 0 { 0 } else { waited + 1 };
            longest = longest.max(waited);
        }
        prop_assert!(longest <= 500, "{longest} ms while it catches up");
        prop_assert!(flood.ahead_ms() <= AHEAD_MAX.as_millis() as f64);
        prop_assert_eq!(flood.window.limit(), flood.window.size);
    }

    /// While more outcomes wait than are decided beside commands, the partition commits, and its
    /// position stays: nothing passes but one frame per second once that has lasted.
    #[test]
    fn a_partition_that_decides_outcomes_first_does_not_stand_still(
        frames in frames(),
        per_second in 1_000..40_000_u32,
        way in way(),
        is_near: bool,
        seconds in 1..10_usize,
    ) {
        let pace = f64::from(per_second) / 1_000.0;
        let mut flood = Flood::new(&frames, pace, way, is_near);
        for _ in 0..3_000 {
            flood.step(1_000);
        }

        // What is known to be decided by now may come in yet, elsewhere after a question.
        flood.outcomes_first = true;
        flood.answers = !is_near;
        for _ in 0..300 {
            flood.step(1_000);
        }
        let begun = flood.begun;
        for _ in 300..seconds * 1_000 {
            flood.step(1_000);
        }

        let unserved = seconds.saturating_sub(UNSERVED_MAX.as_secs() as usize);
        prop_assert!(flood.begun - begun <= unserved + 1, "{} passed", flood.begun - begun);

        flood.outcomes_first = false;
        for _ in 0..5_000 {
            flood.step(1_000);
        }
        let least = few_frames(&frames) as f64 / pace;
        let bound = (AHEAD_MAX.as_millis() as f64 * 1.2).max(least);
        prop_assert!(flood.ahead_ms() <= bound, "{} ms, at most {bound}", flood.ahead_ms());
    }

    /// Others' commands are decided while this builder's own publishes hang: that says nothing of
    /// what the partition does with its own.
    #[test]
    fn what_others_published_does_not_widen_the_window(
        frames in frames(),
        ticks in prop::collection::vec(1..200_u64, 1..100),
    ) {
        let mut window = Window::default();
        let mut now = Instant::now();
        let mut next = frames.iter().cycle();
        for (tick, pause) in ticks.into_iter().enumerate() {
            now += Duration::from_millis(pause);
            if let Some(commands) = next.next() && window.admits(*commands, now) {
                window.begin(*commands, now);
                while window.admits(*commands, now) && window.outstanding() < 2 * WINDOW_MAX {
                    window.begin(*commands, now);
                }
            }
            window.decided_up_to(tick as u64, now);
            prop_assert!(window.size <= WINDOW_FIRST, "{}", window.size);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Enter(u64),
    /// A frame under way ends: stored, refused, or without an answer; then it may be stored.
    End(usize, u8),
    Decide(u64),
    Ask,
    Answer {
        lost: bool,
    },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..2_000_u64).prop_map(Step::Enter),
        5 => (0..8_usize, 0..6_u8).prop_map(|(at, how)| Step::End(at, how)),
        2 => (0..4_u64).prop_map(Step::Decide),
        1 => Just(Step::Ask),
        2 => any::<bool>().prop_map(|lost| Step::Answer { lost }),
        2 => (0..200_u64).prop_map(Step::Pass),
    ]
}

/// A partition and its COMMANDS as they are.
#[derive(Default)]
struct Truth {
    stored: Vec<u64>,
    decided: usize,
}

impl Truth {
    fn undecided(&self) -> u64 {
        self.stored.iter().skip(self.decided).sum()
    }
}

proptest! {
    /// Whatever is lost, late or out of order: what is undecided counts, and never exceeds
    /// what the window lets through while its partition decides.
    #[test]
    fn never_more_is_undecided_than_the_window_allows(steps in prop::collection::vec(step(), 1..300)) {
        let mut window = Window::default();
        let mut truth = Truth::default();
        let mut now = Instant::now();
        let mut under_way = Vec::new();
        let mut asked: Option<(Question, Answer)> = None;
        for step in steps {
            match step {
                Step::Enter(commands) => {
                    let allowed = window.limit().max(commands);
                    let stands = window.blocked.is_some_and(|blocked| blocked.passes(now));
                    if window.admits(commands, now) {
                        window.begin(commands, now);
                        under_way.push(commands);
                        prop_assert!(stands || window.outstanding() <= allowed);
                    }
                }
                Step::End(at, how) if at < under_way.len() => {
                    let commands = under_way.remove(at);
                    if matches!(how, 0..=3) {
                        truth.stored.push(commands);
                    }
                    match how {
                        0..=2 => window.stored(truth.stored.len() as u64, commands, now),
                        3 | 4 => window.lost_sight(commands),
                        _ => window.refused(commands),
                    }
                }
                Step::End(..) => {}
                Step::Decide(frames) => {
                    truth.decided = truth.stored.len().min(truth.decided + frames as usize);
                }
                Step::Ask => {
                    if let Some(question) = window.question(now) {
                        let end = question.wants_end().then_some(truth.stored.len() as u64);
                        asked = Some((question, answer(end, truth.decided as u64)));
                    }
                }
                Step::Answer { lost } => {
                    if let Some((question, answer)) = asked.take() {
                        let answer = if lost { Answer::default() } else { answer };
                        window.answered(&question, answer, now);
                    }
                }
                Step::Pass(ms) => now += Duration::from_millis(ms),
            }
            let undecided = truth.undecided() + under_way.iter().sum::<u64>();
            prop_assert!(undecided <= window.outstanding(), "{undecided} are undecided");
        }

        // The partition decides everything, and somebody answers: nothing counts any more.
        for commands in under_way {
            truth.stored.push(commands);
            window.stored(truth.stored.len() as u64, commands, now);
        }
        if let Some((question, late)) = asked {
            window.answered(&question, late, now);
        }
        let end = truth.stored.len() as u64;
        let question = Question { unknown: window.unknown };
        window.answered(&question, answer(Some(end), end), now);
        prop_assert_eq!(window.outstanding(), 0);
    }
}
