use std::collections::VecDeque;

use proptest::prelude::*;

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
    /// Commands of a frame.
    commands: u64,
    publishing: VecDeque<Instant>,
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
    fn new(commands: u64, pace: f64, way: Duration, is_near: bool) -> Self {
        Self {
            window: Window::default(),
            now: Instant::now(),
            way,
            pace,
            is_near,
            answers: true,
            commands,
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
        while self.publishing.front().is_some_and(|begun| *begun + self.way <= self.now) {
            self.publishing.pop_front();
            self.stored += 1;
            self.commands_left.push_back(self.commands as f64);
            self.window.stored(self.stored, self.commands, self.now);
        }
        self.decide();
        if self.asking.as_ref().is_some_and(|(_, asked)| *asked + self.way <= self.now)
            && let Some((question, _)) = self.asking.take()
        {
            let decided = self.answers.then_some(self.decided);
            let answer = Answer { end: self.answers.then_some(self.stored), decided };
            self.window.answered(&question, answer, self.now);
        }
    }

    /// So many commands more per millisecond are to be published.
    fn step_with(&mut self, ms: u64, per_ms: u64) {
        self.step(ms * per_ms / self.commands - (ms - 1) * per_ms / self.commands);
    }

    fn publish(&mut self) {
        while self.waiting > 0 {
            let admits = self.window.admits(self.commands, self.now);
            if admits {
                self.window.begin(self.commands, self.now);
                self.publishing.push_back(self.now);
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
            if self.is_near {
                self.window.decided_up_to(self.decided, self.now);
            }
        }
        if self.budget > 0.0 {
            self.idle += 1;
            self.budget = 0.0;
        }
    }

    /// How long what stands in COMMANDS takes, milliseconds.
    fn ahead_ms(&self) -> f64 {
        self.commands_left.iter().sum::<f64>() / self.pace
    }
}

/// How many of 1,000 ms a flooded partition may have nothing to decide: elsewhere it may wait
/// for a question when its frames are large.
fn idle_most(is_near: bool) -> u64 {
    if is_near { 20 } else { 100 }
}

/// What a slow partition has before it: one frame that it decides, some that are on their way.
fn few_frames(commands: u64) -> u64 {
    6 * WINDOW_MIN.max(commands)
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
        commands in 1..400_u64,
        per_ms in 1..50_u64,
        way in way(),
        is_near: bool,
    ) {
        let per_ms = if is_near { per_ms } else { per_ms.min(20) };
        let mut flood = Flood::new(commands, 100.0, way, is_near);
        for ms in 1..2_000 {
            flood.step_with(ms, per_ms);
        }
        prop_assert_eq!(flood.refused, 0);
    }

    /// Whatever the partition's pace: while a flood lasts it always has something to decide,
    /// and what stands before it is decided within [`AHEAD_MAX`] and a little, or is few frames.
    #[test]
    fn a_flood_keeps_the_partition_busy_and_waits_where_it_can_be_passed(
        commands in 1..400_u64,
        per_second in 1_000..150_000_u32,
        way in way(),
        is_near: bool,
    ) {
        let pace = f64::from(per_second) / 1_000.0;
        let mut flood = Flood::new(commands, pace, way, is_near);
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
        let least = few_frames(commands) as f64 / pace;
        let bound = (AHEAD_MAX.as_millis() as f64 * 1.2).max(least);
        prop_assert!(most <= bound, "{most} ms stand before it, at most {bound}");
    }

    /// A window that a slow time has made small does not slow down what can go faster again.
    #[test]
    fn a_window_that_limits_grows(commands in 1..400_u64, way in way(), is_near: bool) {
        let mut flood = Flood::new(commands, 1.0, way, is_near);
        for _ in 0..5_000 {
            flood.step(1_000);
        }
        prop_assert!(flood.window.size <= few_frames(commands));

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
        commands in 1..400_u64,
        way in way(),
        is_near: bool,
        answers: bool,
    ) {
        let mut flood = Flood::new(commands, 0.0, way, is_near);
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
                        let decided = Some(truth.decided as u64);
                        let end = question.wants_end().then_some(truth.stored.len() as u64);
                        asked = Some((question, Answer { end, decided }));
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
        if let Some((question, answer)) = asked {
            window.answered(&question, answer, now);
        }
        let end = truth.stored.len() as u64;
        let question = Question { unknown: window.unknown };
        window.answered(&question, Answer { end: Some(end), decided: Some(end) }, now);
        prop_assert_eq!(window.outstanding(), 0);
    }
}
