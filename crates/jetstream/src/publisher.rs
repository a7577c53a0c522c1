//! The hot path of writing: publishes with a bounded window, each answered stored, refused or unknown.
//!
//! The library's own publish makes a reply subject, a map entry, a channel and two timers per message, and
//! leaves an entry behind for every answer that never comes. Here one subscription takes all answers, a
//! slot in a table stands for a publish in flight, and one task looks for overdue ones.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_nats::{
    Client, HeaderMap, Message, PublishErrorKind, Subject, Subscriber,
    client::traits::Publisher as _, message::OutboundMessage,
};
use bytes::Bytes;
use futures_util::StreamExt;
use thiserror::Error;
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinSet, unconstrained},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    connection::{Broker, Link},
    outcome::{PublishOutcome, Refusal, read_answer},
    reply_tokens::{ReplySubjects, ReplyToken},
};

mod slots;

use slots::Slots;

/// How many publishes may be unanswered at once; beyond 1024 throughput no longer grows, and the
/// server refuses at 10,000 and more waiting in one stream.
pub const WINDOW_DEFAULT: usize = 1024;

/// How long an answer may take before the outcome is unknown: the server syncs to disk within it, and
/// a replicated stream elects a new leader in 4 to 9 s.
pub const ANSWER_LIMIT_DEFAULT: Duration = Duration::from_secs(5);

/// How often overdue publishes are looked for; a publish becomes unknown at most this much late.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// How many answers are taken in under one lock.
const ANSWERS_PER_LOCK_MAX: usize = 256;

/// How a publisher behaves.
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// How many publishes may be unanswered at once; the next one waits.
    pub window: usize,
    /// How long an answer may take before the outcome is unknown.
    pub answer_limit: Duration,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self { window: WINDOW_DEFAULT, answer_limit: ANSWER_LIMIT_DEFAULT }
    }
}

/// Why a publisher could not be made.
#[derive(Debug, Error)]
#[error("could not subscribe to the answers of publishes")]
pub struct PublisherError(#[from] async_nats::SubscribeError);

/// Publishes into streams. Clones share one window.
#[derive(Debug, Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

/// Ends with the last clone of the publisher; what is unanswered then stays unknown.
#[derive(Debug)]
struct Tasks {
    shared: Arc<Shared>,
    set: JoinSet<()>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.set.abort_all();
        let mut woken = Woken::default();
        self.shared.lock().slots.expire(|_| true, |waker| woken.note(Some(waker)));
        self.shared.finish(&mut woken);
    }
}

#[derive(Debug)]
struct Shared {
    client: Client,
    table: Mutex<Table>,
    permits: Semaphore,
    link: watch::Receiver<Link>,
    answer_limit: Duration,
    /// Coarse clock in sweeps, so that a publish does not ask the real one.
    sweep: AtomicU32,
}

#[derive(Debug)]
struct Table {
    slots: Slots,
    subjects: ReplySubjects,
}

impl Publisher {
    /// Subscribes to answers on the publishing connection and starts the two tasks that look after them.
    ///
    /// # Errors
    /// When the connection is closed for good.
    ///
    /// # Cancel safety
    /// Nothing stays behind when dropped.
    pub async fn new(broker: &Broker, options: PublisherOptions) -> Result<Self, PublisherError> {
        let connection = broker.publishing();
        let inbox = connection.client.new_inbox();
        let answers = connection.client.subscribe(format!("{inbox}.*")).await?;
        let subjects = ReplySubjects::new(&inbox);
        let prefix_bytes = subjects.prefix_bytes();
        let shared = Arc::new(Shared {
            client: connection.client.clone(),
            table: Mutex::new(Table { slots: Slots::default(), subjects }),
            permits: Semaphore::new(options.window.clamp(1, Semaphore::MAX_PERMITS)),
            link: connection.link.clone(),
            answer_limit: options.answer_limit,
            sweep: AtomicU32::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(take_answers(Arc::clone(&shared), answers, prefix_bytes));
        tasks.spawn(sweep(Arc::clone(&shared), connection.link.clone(), options.answer_limit));
        Ok(Self { _tasks: Arc::new(Tasks { shared: Arc::clone(&shared), set: tasks }), shared })
    }

    /// Sends a message and returns the receipt that resolves to what became of it.
    ///
    /// Waits while the window is full. When this returns the message is queued for sending, in the order of
    /// calls; await the receipt at once, or later to have several in flight. A lost connection makes every
    /// unanswered receipt unknown at once; an overdue one becomes unknown after the answer limit. While the
    /// connection is down this waits for it up to the answer limit; then the message is refused, not sent.
    ///
    /// # Cancel safety
    /// When dropped, the message may or may not be sent.
    pub async fn publish(
        &self,
        subject: impl Into<Subject>,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> PublishReceipt {
        if !self.shared.link.borrow().connected && !self.reconnected().await {
            return self.refuse("the connection to the broker is down".to_owned()).await;
        }
        self.take_permit().await;
        let (receipt, reply) = self.register();
        let message =
            OutboundMessage { subject: subject.into(), reply: Some(reply), payload, headers };
        if let Err(outcome) = self.send(message).await {
            self.shared.resolve(receipt.token, outcome);
        }
        receipt
    }

    /// Queues a message for sending. The queue is full only when the connection is stuck, so only then a timer is set.
    async fn send(&self, message: OutboundMessage) -> Result<(), PublishOutcome> {
        let mut sending = pin!(self.shared.client.publish_message(message));
        let sent = match poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await {
            Poll::Ready(sent) => sent,
            Poll::Pending => match timeout(self.shared.answer_limit, sending).await {
                Ok(sent) => sent,
                Err(_) => {
                    let description = "the connection to the broker takes nothing".to_owned();
                    return Err(PublishOutcome::not_sent(Refusal::NotSent, description));
                }
            },
        };
        sent.map_err(|error| {
            let refusal = match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => Refusal::TooLarge,
                PublishErrorKind::InvalidSubject | PublishErrorKind::Send => Refusal::NotSent,
            };
            PublishOutcome::not_sent(refusal, error.to_string())
        })
    }

    async fn reconnected(&self) -> bool {
        let mut link = self.shared.link.clone();
        matches!(
            timeout(self.shared.answer_limit, link.wait_for(|link| link.connected)).await,
            Ok(Ok(_))
        )
    }

    /// How many publishes are unanswered.
    pub fn unanswered(&self) -> usize {
        self.shared.lock().slots.unanswered()
    }

    /// Waits until everything that was published has left this process.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn flush(&self) {
        // An error means that the connection is gone; the receipts say so.
        let _ = self.shared.client.flush().await;
    }

    /// A receipt that is refused already, for what cannot be sent.
    pub(crate) async fn refuse(&self, description: String) -> PublishReceipt {
        self.take_permit().await;
        let (receipt, _) = self.register();
        self.shared.resolve(receipt.token, PublishOutcome::not_sent(Refusal::NotSent, description));
        receipt
    }

    async fn take_permit(&self) {
        // The semaphore is never closed; the permit comes back when the publish is answered.
        if let Ok(permit) = self.shared.permits.acquire().await {
            permit.forget();
        }
    }

    fn register(&self) -> (PublishReceipt, Subject) {
        let sweep = self.shared.sweep.load(Ordering::Relaxed);
        let mut table = self.shared.lock();
        let token = table.slots.take(sweep);
        let reply = table.subjects.write(token);
        (PublishReceipt { shared: Arc::clone(&self.shared), token, done: false }, reply)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code panics while it holds the lock, and the table stays consistent if it did.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolve(&self, token: ReplyToken, outcome: PublishOutcome) {
        let mut woken = Woken::default();
        woken.note(self.lock().slots.resolve(token, outcome));
        self.finish(&mut woken);
    }

    /// Gives permits back and wakes receipts, with the lock released.
    fn finish(&self, woken: &mut Woken) {
        self.permits.add_permits(std::mem::take(&mut woken.permits));
        woken.wakers.drain(..).for_each(Waker::wake);
    }
}

/// What is to be done once the lock is released.
#[derive(Debug, Default)]
struct Woken {
    permits: usize,
    wakers: Vec<Waker>,
}

impl Woken {
    fn note(&mut self, resolved: Option<Option<Waker>>) {
        if let Some(waker) = resolved {
            self.permits += 1;
            self.wakers.extend(waker);
        }
    }
}

async fn take_answers(shared: Arc<Shared>, mut answers: Subscriber, prefix_bytes: usize) {
    let mut ready: Vec<Message> = Vec::with_capacity(ANSWERS_PER_LOCK_MAX);
    let mut read: Vec<(ReplyToken, PublishOutcome)> = Vec::with_capacity(ANSWERS_PER_LOCK_MAX);
    let mut woken = Woken::default();
    while next_answers(&mut answers, &mut ready).await {
        read.extend(ready.drain(..).filter_map(|message| {
            let token = ReplySubjects::read(prefix_bytes, &message.subject)?;
            Some((
                token,
                read_answer(message.status.map(|status| status.as_u16()), &message.payload),
            ))
        }));
        let mut table = shared.lock();
        for (token, outcome) in read.drain(..) {
            woken.note(table.slots.resolve(token, outcome));
        }
        drop(table);
        shared.finish(&mut woken);
    }
}

/// Waits for one answer and takes all that are there with it; false when the subscription has ended.
async fn next_answers(answers: &mut Subscriber, ready: &mut Vec<Message>) -> bool {
    unconstrained(poll_fn(|context| {
        while ready.len() < ANSWERS_PER_LOCK_MAX {
            match answers.poll_next_unpin(context) {
                Poll::Ready(Some(message)) => ready.push(message),
                Poll::Ready(None) => return Poll::Ready(!ready.is_empty()),
                Poll::Pending if ready.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(true)
    }))
    .await
}

/// Makes overdue publishes unknown, and all of them when the connection is lost.
async fn sweep(shared: Arc<Shared>, mut link: watch::Receiver<Link>, answer_limit: Duration) {
    let sweeps_max = u32::try_from(answer_limit.as_millis().div_ceil(SWEEP_INTERVAL.as_millis()))
        .unwrap_or(u32::MAX);
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interruptions = link.borrow_and_update().interruptions;
    let mut woken = Woken::default();
    let mut closed = false;
    loop {
        let now = tokio::select! {
            changed = link.changed(), if !closed => {
                closed = changed.is_err();
                shared.sweep.load(Ordering::Relaxed)
            }
            _ = ticks.tick() => shared.sweep.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
        };
        let seen = link.borrow_and_update().interruptions;
        let all = closed || seen != interruptions;
        interruptions = seen;
        shared.lock().slots.expire(
            |since| all || now.wrapping_sub(since) > sweeps_max,
            |waker| woken.note(Some(waker)),
        );
        shared.finish(&mut woken);
    }
}

/// Resolves to what became of a publish. Dropping it forgets the answer, not the message.
#[derive(Debug)]
#[must_use = "a publish is neither stored nor refused until its receipt says so"]
pub struct PublishReceipt {
    shared: Arc<Shared>,
    token: ReplyToken,
    done: bool,
}

impl Future for PublishReceipt {
    type Output = PublishOutcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<PublishOutcome> {
        let receipt = self.get_mut();
        let polled = receipt.shared.lock().slots.poll(receipt.token, context.waker());
        receipt.done = polled.is_ready();
        polled
    }
}

impl Drop for PublishReceipt {
    fn drop(&mut self) {
        if !self.done {
            self.shared.lock().slots.abandon(self.token);
        }
    }
}
