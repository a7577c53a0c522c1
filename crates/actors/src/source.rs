//! Where a stage's work comes from: a stream that all workers share.
//!
//! As much is taken as there are permits for. What is held, here or in the
//! stages behind, is not delivered to anybody else meanwhile, and is
//! acknowledged when everything that came of it is durable.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fermata_jetstream::shared_consumer::{Acker, SharedConsumerError, ack_all_of};
use fermata_jetstream::{Delivery, SharedConsumer, SharedConsumerOptions};
use fermata_wire::WireError;
use fermata_wire::dead::DeadLetter;
use fermata_wire::stages::StageFrame;
use ractor::ActorRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};

use crate::clock::wall_ms;
use crate::hop::AGAIN_AFTER;
use crate::listener::file;
use crate::ports::Ports;
use crate::stage::{HeldBack, Passed};
use crate::switch::Switch;

/// Frames that a stage holds at once, from a stream; each waits for its own
/// outputs, so this is what overlaps the broker's answer times.
pub const FRAMES_HELD_MAX: u32 = 16;

/// Deliveries after which a message that cannot be decoded is filed as a dead
/// letter. One that a newer program wrote waits for a worker that can read it.
pub const DELIVERIES_MAX: u64 = 5;

/// How long a delivery is kept from other workers while its outputs are not
/// durable: more than a definition may be missing and publishes may be tried.
/// After that the broker gives it to somebody else too, in case this one hangs.
pub const HOLD_MAX: Duration = Duration::from_secs(180);

/// The broker hears of what is held this many times in the time that it waits
/// for an acknowledgement.
const REMINDERS: u32 = 3;

/// What a stage takes from a stream.
pub trait Input: fmt::Debug + Send + Sized + 'static {
    /// Messages that make one input, at the most.
    const MESSAGES_MAX: usize;

    /// Inputs that a process holds at once.
    const HELD_MAX: u32;

    /// Makes an input of deliveries; nothing when they are settled already.
    fn read(
        ports: &Ports,
        options: &SharedConsumerOptions,
        deliveries: Vec<Delivery>,
    ) -> impl Future<Output = Option<(Self, Vec<Acker>)>> + Send;
}

/// A frame of the stage before is an input of its own.
impl<F: StageFrame + fmt::Debug> Input for F {
    const MESSAGES_MAX: usize = 1;
    const HELD_MAX: u32 = FRAMES_HELD_MAX;

    async fn read(
        ports: &Ports,
        options: &SharedConsumerOptions,
        deliveries: Vec<Delivery>,
    ) -> Option<(Self, Vec<Acker>)> {
        read_frame(ports, options, deliveries).await
    }
}

/// The frame that was delivered; nothing when the delivery is settled already, or is a mark, which
/// is kept until it is passed.
pub(crate) async fn read_frame<F: StageFrame>(
    ports: &Ports,
    options: &SharedConsumerOptions,
    deliveries: Vec<Delivery>,
) -> Option<(F, Vec<Acker>)> {
    let delivery = deliveries.into_iter().next()?;
    let error = match F::decode(&delivery.payload) {
        Ok(frame) => return Some((frame, vec![delivery.acker])),
        Err(error) => error,
    };
    match F::mark(&delivery.payload) {
        Some(mark) => ports.lanes.keep(mark, delivery.acker),
        None => give_up_or_wait(ports, options, delivery, &error).await,
    }
    None
}

/// Takes from a stream for a stage, until it is drained, dropped, or the stage ends.
#[derive(Debug)]
pub struct Source {
    /// The task ends when this is dropped.
    running: oneshot::Sender<()>,
    task: JoinHandle<()>,
    held: Arc<Semaphore>,
    held_max: u32,
}

impl Source {
    /// Begins to take.
    #[must_use]
    pub fn start<I: Input>(
        ports: Ports,
        options: SharedConsumerOptions,
        stage: ActorRef<Passed<I>>,
    ) -> Self {
        let held = Arc::new(Semaphore::new(I::HELD_MAX as usize));
        let (running, ended) = oneshot::channel();
        let pump = Pump { ports, options, stage, held: held.clone(), ended };
        Self { running, task: tokio::spawn(pump.run()), held, held_max: I::HELD_MAX }
    }

    /// Takes nothing more, and waits until what was taken is settled.
    ///
    /// # Cancel safety
    ///
    /// As if the process ended: what is not settled comes again.
    pub async fn drain(self, limit: Duration) {
        let Self { running, task, held, held_max } = self;
        drop(running);
        let settled = async {
            let _ = task.await;
            let _ = held.acquire_many(held_max).await;
        };
        if timeout(limit, settled).await.is_err() {
            tracing::warn!("what a stage holds is not durable in time; it comes again");
        }
    }
}

/// Why nothing more is taken.
enum Stopped {
    /// For good.
    Ended,
    /// Until it is switched on again.
    SwitchedOff,
}

struct Pump<I: Input> {
    ports: Ports,
    options: SharedConsumerOptions,
    stage: ActorRef<Passed<I>>,
    held: Arc<Semaphore>,
    ended: oneshot::Receiver<()>,
}

impl<I: Input> Pump<I> {
    async fn run(mut self) {
        let mut switch = Switch::of(&self.options.stream, &self.ports);
        loop {
            tokio::select! {
                () = switch.until_on(&self.ports) => {}
                _ = &mut self.ended => return,
            }
            let error = match self.run_until_broken(&mut switch).await {
                Ok(Stopped::Ended) => return,
                Ok(Stopped::SwitchedOff) => continue,
                Err(error) => error,
            };
            let stream = &self.options.stream;
            tracing::warn!(stream, %error, "a stream cannot be consumed; it is tried again");
            tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER) => {}
                _ = &mut self.ended => return,
            }
        }
    }

    /// Ends well when nothing more is to be taken.
    async fn run_until_broken(
        &mut self,
        switch: &mut Switch,
    ) -> Result<Stopped, SharedConsumerError> {
        let mut consumer = SharedConsumer::open(&self.ports.broker, self.options.clone()).await?;
        let mut remind = reminders(self.options.acknowledge_within);
        loop {
            let (deliveries, permit) = tokio::select! {
                taken = take::<I>(&mut consumer, &self.held, &mut remind) => match taken? {
                    Some(taken) => taken,
                    None => return Ok(Stopped::Ended),
                },
                _ = &mut self.ended => {
                    consumer.give_back().await;
                    return Ok(Stopped::Ended);
                }
                () = switch.until_off() => {
                    consumer.give_back().await;
                    return Ok(Stopped::SwitchedOff);
                }
            };
            let read = I::read(&self.ports, &self.options, deliveries).await;
            let Some((input, ackers)) = read else { continue };
            let (done, durable) = oneshot::channel();
            if self.stage.cast(Passed { input, done }).is_err() {
                // The stage ends: another one need not wait for these.
                settle(ackers, None).await;
                consumer.give_back().await;
                return Ok(Stopped::Ended);
            }
            tokio::spawn(hold(ackers, durable, permit, self.options.acknowledge_within));
        }
    }
}

/// Waits for room, then for messages. What arrived before there is room for it
/// is kept from other workers too.
async fn take<I: Input>(
    consumer: &mut SharedConsumer,
    held: &Arc<Semaphore>,
    remind: &mut Interval,
) -> Result<Option<(Vec<Delivery>, OwnedSemaphorePermit)>, SharedConsumerError> {
    let mut room = std::pin::pin!(held.clone().acquire_owned());
    let until = Instant::now() + HOLD_MAX;
    let permit = loop {
        tokio::select! {
            biased;
            _ = remind.tick(), if Instant::now() < until => consumer.keep().await,
            permit = &mut room => break permit,
        }
    };
    let Ok(permit) = permit else { return Ok(None) };
    let deliveries = consumer.next_batch(I::MESSAGES_MAX).await?;
    Ok(Some((deliveries, permit)))
}

/// Keeps deliveries from other workers until everything that came of them is
/// durable, or known not to be, and settles them.
async fn hold(
    ackers: Vec<Acker>,
    mut durable: oneshot::Receiver<HeldBack>,
    permit: OwnedSemaphorePermit,
    acknowledge_within: Duration,
) {
    let mut remind = reminders(acknowledge_within);
    let until = Instant::now() + HOLD_MAX;
    let durable = loop {
        tokio::select! {
            biased;
            durable = &mut durable => break durable.ok(),
            _ = remind.tick(), if Instant::now() < until => {
                tracing::debug!(messages = ackers.len(), "a stage takes long");
                for acker in &ackers {
                    acker.in_progress().await;
                }
            }
        }
    };
    settle(ackers, durable).await;
    drop(permit);
}

fn reminders(acknowledge_within: Duration) -> Interval {
    let period = (acknowledge_within / REMINDERS).max(Duration::from_millis(1));
    let mut reminders = interval_at(Instant::now() + period, period);
    reminders.set_missed_tick_behavior(MissedTickBehavior::Delay);
    reminders
}

/// Acknowledges a source once its outputs are durable, but for what was held
/// back, and asks for the rest again: for all of it when they are not.
async fn settle(ackers: Vec<Acker>, durable: Option<HeldBack>) {
    let (again, done): (Vec<_>, Vec<_>) = match durable {
        None => (ackers, Vec::new()),
        Some(held_back) if held_back.is_empty() => (Vec::new(), ackers),
        Some(held_back) => {
            let held_back: BTreeSet<usize> = held_back.into_iter().collect();
            let (again, done): (Vec<_>, Vec<_>) =
                ackers.into_iter().enumerate().partition(|(place, _)| held_back.contains(place));
            let ackers = |placed: Vec<(usize, Acker)>| placed.into_iter().map(|(_, acker)| acker);
            (ackers(again).collect(), ackers(done).collect())
        }
    };
    ack_all_of(done).await;
    for acker in again {
        acker.nak(AGAIN_AFTER).await;
    }
}

/// Files a frame that cannot be decoded, after a few deliveries.
async fn give_up_or_wait(
    ports: &Ports,
    options: &SharedConsumerOptions,
    delivery: Delivery,
    error: &WireError,
) {
    let (stream, sequence) = (&options.stream, delivery.stream_sequence);
    let newer = matches!(error, WireError::NewerVersion { .. });
    if newer || delivery.delivered_count < DELIVERIES_MAX {
        tracing::warn!(stream, sequence, %error, "a frame cannot be decoded; it comes again");
        return delivery.acker.nak(AGAIN_AFTER).await;
    }
    let letter = DeadLetter {
        id: format!("{stream}.{sequence}.all"),
        tenant: "_engine".to_owned(),
        stage: options.name.clone(),
        reason: error.code().to_owned(),
        detail: error.to_string(),
        subject: delivery.subject.to_string(),
        original: delivery.payload.clone(),
        time_ms: wall_ms(),
        headers: Vec::new(),
        attempts: u32::try_from(delivery.delivered_count).ok(),
        trace: None,
    };
    let filed = file(ports, vec![letter]).await;
    settle(vec![delivery.acker], filed.then(HeldBack::new)).await;
}
