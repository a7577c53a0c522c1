//! Drains the lanes by turns, while WAITING holds anything, and acknowledges marks.

use std::sync::Arc;
use std::time::Duration;

use fermata_jetstream::progress::{WorkProgress, work_progress};
use fermata_jetstream::reader::ReadError;
use fermata_jetstream::shared_consumer::ack_all_of;
use fermata_jetstream::topology::WAITING_STREAM;
use fermata_jetstream::{Acker, Delivery, SharedConsumerOptions};
use fermata_wire::stages::AdmittedFrame;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use ractor::ActorRef;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use super::{LANE_FRAMES_AT_ONCE, LANE_FRAMES_HELD_MAX, LANES, Lanes, Waited, lane_consumer};
use crate::hop::{AGAIN_AFTER, Hop};
use crate::ports::Ports;
use crate::source::{Input, Source, read_frame};
use crate::stage::{Durable, Passed, Stage};

/// How often it is looked how far WAITING is done, while lanes are open.
pub const LANES_INTERVAL: Duration = Duration::from_millis(200);

/// How long lanes stay open after WAITING was seen empty.
pub const LANES_OPEN_FOR: Duration = Duration::from_secs(10);

/// How often it is looked whether WAITING holds anything, while lanes are closed: what a process
/// left that ended between storing frames and a mark has no other sign. As long as the broker waits
/// for an acknowledgement, after which what else that process held comes again.
pub const LANES_LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// How often the broker hears that marks are held: a third of its wait for an acknowledgement.
const REMIND_INTERVAL: Duration = Duration::from_secs(10);

/// How long what was taken from lanes that are closed may take to be settled.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

impl Input for Waited {
    const MESSAGES_MAX: usize = 1;
    const HELD_MAX: u32 = LANE_FRAMES_HELD_MAX;

    async fn read(
        ports: &Ports,
        options: &SharedConsumerOptions,
        deliveries: Vec<Delivery>,
    ) -> Option<(Self, Vec<Acker>)> {
        let (frame, ackers) = read_frame(ports, options, deliveries).await?;
        Some((Self(frame), ackers))
    }
}

/// Gives turns to what comes from lanes, in the order in which it comes: since each lane holds
/// few frames, that is lane by lane.
#[derive(Debug)]
pub struct LaneTurns {
    turns: Arc<Semaphore>,
    lanes: Lanes,
    next: Hop<AdmittedFrame>,
}

impl LaneTurns {
    /// Passes on to `next`.
    #[must_use]
    pub fn new(lanes: Lanes, next: Hop<AdmittedFrame>) -> Self {
        Self { turns: Arc::new(Semaphore::new(LANE_FRAMES_AT_ONCE)), lanes, next }
    }
}

impl Stage for LaneTurns {
    type Input = Waited;

    fn take(&mut self, Waited(frame): Waited) -> BoxFuture<'static, Durable> {
        let (turns, next) = (self.turns.clone(), self.next.clone());
        let lanes = self.lanes.clone();
        Box::pin(async move {
            let Ok(_turn) = turns.acquire().await else { return Durable::No };
            let tenants = frame.events.iter().map(|event| &event.event.tenant);
            lanes.passes_on(tenants, Instant::now());
            next.pass(frame).await.into()
        })
    }
}

/// Drains the lanes until it is drained itself, or dropped.
#[derive(Debug)]
pub struct Draining {
    /// Told until when it may take to end. The task ends at once when this is dropped.
    running: oneshot::Sender<Instant>,
    task: JoinHandle<()>,
}

impl Draining {
    /// Begins to.
    #[must_use]
    pub fn start(ports: Ports, turns: ActorRef<Passed<Waited>>) -> Self {
        let (running, ended) = oneshot::channel();
        Self { running, task: tokio::spawn(Drain { ports, turns, ended }.run()) }
    }

    /// Takes nothing more, waits until what was taken is settled, and gives marks back.
    ///
    /// # Cancel safety
    ///
    /// As if the process ended: what is not settled comes again.
    pub async fn drain(self, limit: Duration) {
        let Self { running, mut task } = self;
        let until = Instant::now() + limit;
        let _ = running.send(until);
        // What is not settled in time comes again.
        if timeout_at(until, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Why lanes are closed.
enum Closed {
    /// WAITING is empty.
    Empty,
    /// For good; what was taken may be settled until then.
    Ended(Instant),
}

struct Drain {
    ports: Ports,
    turns: ActorRef<Passed<Waited>>,
    ended: oneshot::Receiver<Instant>,
}

impl Drain {
    async fn run(mut self) {
        while self.is_needed().await {
            let sources: Vec<_> = (0..LANES).map(|lane| self.open(lane)).collect();
            let closed = self.until_empty().await;
            let settle_limit = match closed {
                Closed::Empty => SETTLE_LIMIT,
                Closed::Ended(until) => {
                    // Whoever drains from now on can acknowledge them meanwhile.
                    self.give_marks_back().await;
                    until.saturating_duration_since(Instant::now())
                }
            };
            join_all(sources.into_iter().map(|source| source.drain(settle_limit))).await;
            if matches!(closed, Closed::Ended(_)) {
                break;
            }
            tracing::debug!("lanes are closed: nothing waits in them");
        }
        self.give_marks_back().await;
    }

    async fn give_marks_back(&self) {
        for acker in self.ports.lanes.take_all() {
            acker.nak(Duration::ZERO).await;
        }
    }

    /// Waits until there is something to drain; false when it is not to be drained any more.
    async fn is_needed(&mut self) -> bool {
        loop {
            let look = async { look(&self.ports).await.ok() };
            let pause = tokio::select! {
                biased;
                _ = &mut self.ended => return false,
                progress = look => match progress {
                    Some(progress) if progress.left > 0 => return true,
                    Some(_) => LANES_LOOK_INTERVAL,
                    None => AGAIN_AFTER,
                },
            };
            tokio::select! {
                biased;
                _ = &mut self.ended => return false,
                () = self.ports.lanes.woken() => return true,
                () = sleep(pause) => {}
            }
        }
    }

    fn open(&self, lane: u16) -> Source {
        Source::start(self.ports.clone(), lane_consumer(lane), self.turns.clone())
    }

    /// Acknowledges marks as they are passed, until nothing is left.
    async fn until_empty(&mut self) -> Closed {
        let lanes = self.ports.lanes.clone();
        let (mut empty_since, mut reminded) = (Instant::now(), Instant::now());
        let mut looks = interval(LANES_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                ended = &mut self.ended => return closed_by(ended),
                _ = looks.tick() => {}
            }
            // Before it is looked: what woke this is there by then.
            if lanes.woken().now_or_never().is_some() {
                empty_since = Instant::now();
            }
            let progress = tokio::select! {
                biased;
                ended = &mut self.ended => return closed_by(ended),
                progress = look(&self.ports) => progress,
            };
            match progress {
                Ok(progress) => {
                    ack_all_of(lanes.take_passed(progress.done_up_to)).await;
                    if progress.left > 0 || lanes.marks_kept() > 0 {
                        empty_since = Instant::now();
                    }
                }
                // The marks stay, and so do the lanes.
                Err(error) => {
                    tracing::debug!(%error, "it is not known what waits in lanes");
                    empty_since = Instant::now();
                }
            }
            if reminded.elapsed() >= REMIND_INTERVAL {
                reminded = Instant::now();
                lanes.remind().await;
            }
            if empty_since.elapsed() >= LANES_OPEN_FOR {
                return Closed::Empty;
            }
        }
    }
}

/// Whoever is dropped does not wait for anything.
fn closed_by(ended: Result<Instant, RecvError>) -> Closed {
    Closed::Ended(ended.unwrap_or_else(|_| Instant::now()))
}

/// How far WAITING is done; so this process knows whether it holds anything.
async fn look(ports: &Ports) -> Result<WorkProgress, ReadError> {
    let asked = ports.lanes.asked();
    let progress = work_progress(&ports.broker, WAITING_STREAM).await?;
    ports.lanes.learn(asked, progress.left);
    Ok(progress)
}
