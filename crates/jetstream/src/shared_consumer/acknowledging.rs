//! What is told of one delivery, and when it may still be told.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{Client, Subject};
use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    connection::{Connection, Link},
    pull::nanoseconds,
};

/// How long the broker may take to confirm that an unreadable message is acknowledged.
const CONFIRM_WAIT: Duration = Duration::from_secs(5);

/// Pause after an acknowledgement that nobody took: an election takes some seconds.
const ACKNOWLEDGE_PAUSE: Duration = Duration::from_millis(200);

const ACKNOWLEDGED: Bytes = Bytes::from_static(b"+ACK");
const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

/// Sequences of unreadable messages that were acknowledged: they are few, and go when the floor passes them.
pub(super) type Settled = Arc<Mutex<BTreeSet<u64>>>;

/// Shared by all deliveries that came over the connection while it was not interrupted.
#[derive(Debug)]
pub(crate) struct AckSession {
    client: Client,
    link: watch::Receiver<Link>,
    interruptions: u64,
}

impl AckSession {
    pub(crate) fn new(connection: &Connection) -> Arc<Self> {
        let interruptions = connection.link.borrow().interruptions;
        Arc::new(Self {
            client: connection.client.clone(),
            link: connection.link.clone(),
            interruptions,
        })
    }
}

/// Says what became of one delivery. Dropped without a word, the broker delivers again in time.
///
/// Each answer is one small message that is queued for sending; it may be lost with the connection,
/// and the delivery then comes again.
#[derive(Debug)]
pub struct Acker {
    pub(super) session: Arc<AckSession>,
    pub(super) reply: Subject,
    /// Where the acknowledgement of an unreadable message is noted, and under which sequence.
    pub(super) noted: Option<Box<(Settled, u64)>>,
}

impl Acker {
    /// Done: never deliver again. Call it only after everything that came of the message is stored.
    ///
    /// # Cancel safety
    /// When dropped, the message comes again.
    pub async fn ack(self) {
        let Some((settled, sequence)) = self.noted.as_deref() else {
            return self.answer(ACKNOWLEDGED).await;
        };
        // Only what the broker has let go of is not looked at again; filed twice, it is listed once.
        if self.ack_confirmed(CONFIRM_WAIT).await {
            settled.lock().unwrap_or_else(PoisonError::into_inner).insert(*sequence);
        }
    }

    /// As [`Acker::ack`], and waits until the broker says so; false when it does not within `limit`,
    /// or the connection was lost since: then nobody knows.
    ///
    /// True says that the broker has taken this answer, not that no other worker holds the message:
    /// one that had it again before may have.
    ///
    /// # Cancel safety
    /// When dropped, the message may or may not come again.
    pub async fn ack_confirmed(&self, limit: Duration) -> bool {
        if !self.is_current() {
            return false;
        }
        let confirm = self.session.client.request(self.reply.clone(), ACKNOWLEDGED);
        let confirmed = timeout(limit, confirm).await;
        matches!(confirmed, Ok(Ok(_))) && self.is_current()
    }

    /// Done, whatever became of the connection since: for what is stored and may be done again by whoever
    /// holds the message meanwhile. Waits for a connection as long as there is none, and then asks until the
    /// broker says that it has let go of the message; false when it does not within `limit`, or the
    /// connection is closed for good.
    ///
    /// The broker knows the message by its sequence. One that lost the end of its stream (a power cut without
    /// `sync_interval: always`) may have given the sequence to another message.
    ///
    /// # Cancel safety
    /// When dropped, the message may or may not come again.
    pub async fn ack_durable(&self, limit: Duration) -> bool {
        let mut link = self.session.link.clone();
        if link.wait_for(|link| link.connected).await.is_err() {
            return false;
        }
        let confirmed = async {
            loop {
                let connected = link.wait_for(|link| link.connected).await;
                let Ok(before) = connected.map(|link| link.interruptions) else { return false };
                let confirm = self.session.client.request(self.reply.clone(), ACKNOWLEDGED);
                tokio::select! {
                    // Without an answer it is asked again.
                    answer = confirm => if answer.is_ok() { return true },
                    // The answer is lost with the connection that it was to come over.
                    lost = link.wait_for(|link| link.interruptions != before) => {
                        if lost.is_err() { return false }
                    }
                }
                sleep(ACKNOWLEDGE_PAUSE).await;
            }
        };
        timeout(limit, confirmed).await.unwrap_or(false)
    }

    /// Not now: deliver again after `delay`.
    ///
    /// # Cancel safety
    /// When dropped, the message comes again after the broker's own wait.
    pub async fn nak(self, delay: Duration) {
        let answer = format!("-NAK {{\"delay\":{}}}", nanoseconds(delay));
        self.answer(answer.into()).await;
    }

    /// Still at it: start the broker's wait anew.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn in_progress(&self) {
        self.answer(IN_PROGRESS).await;
    }

    /// As [`Acker::in_progress`], whatever became of the connection since; nothing is said while there is none.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn keep_durable(&self) {
        // What is queued without a connection would fill the client's queue, and come late.
        if self.session.link.borrow().connected {
            // An error means that the connection is closed for good: the message goes to another worker.
            let _ = self.session.client.publish(self.reply.clone(), IN_PROGRESS).await;
        }
    }

    /// Whether the connection over which it came is still the same; else every answer is withheld.
    pub fn is_current(&self) -> bool {
        self.session.link.borrow().interruptions == self.session.interruptions
    }

    async fn answer(&self, answer: Bytes) {
        if self.is_current() {
            // An error means that the connection is closed for good: the message goes to another worker.
            let _ = self.session.client.publish(self.reply.clone(), answer).await;
        }
    }
}

/// Acknowledges each of the deliveries on its own.
///
/// # Cancel safety
/// When dropped, the rest comes again.
pub async fn ack_all_of(ackers: Vec<Acker>) {
    for acker in ackers {
        acker.ack().await;
    }
}
