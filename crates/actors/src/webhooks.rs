//! Escalations over HTTP: signed by Standard Webhooks, tried again until they
//! are taken or given up, each target by itself.
//!
//! `webhook-id` is the notice's effect key, so that it is the same at every
//! attempt and from every owner: a receiver that has seen it takes nothing twice.

use std::sync::Arc;
use std::time::Duration;

use fermata_core::effect::CaseNotice;
use fermata_core::plan::RetryPolicy;
use fermata_executors::{
    EffectKind, EffectOutcome, EffectRequest, Executors, FailureClass, HttpCall, WebhookConfig,
};
use fermata_wire::dead::DeadLetter;
use futures_util::future::join_all;
use rand::RngExt as _;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::wall_ms;
use crate::hop::AGAIN_AFTER;
use crate::lease_term::LeaseView;
use crate::like_notices::{LIKE_PAUSE, LIKE_WAITING_MAX, Like, LikeNotices};
use crate::listener::file;
use crate::ports::Ports;

/// Messages that one target has not answered yet, those in a pause included.
/// Default 256: beyond it a message is given up at once, so that what cannot be
/// delivered grows no further.
pub const WAITING_PER_TARGET_MAX: usize = 256;

/// Messages on their way to one target at the same time. Default 4: escalations
/// are few, and a receiver that comes back is not flooded.
pub const SENDING_PER_TARGET_MAX: usize = 4;

/// How long one attempt may take. Default 15 s, as Standard Webhooks advises.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(15);

/// The pause before another attempt: full jitter below 1 s, doubling to 5 min.
const PAUSE_FIRST_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 5 * 60 * 1_000;

/// Reason codes of dead letters.
const GIVEN_UP: &str = "webhook_given_up";
const OVERFLOW: &str = "webhook_overflow";

/// Every webhook of the process, and who calls them.
#[derive(Debug, Clone)]
pub struct Webhooks {
    executors: Arc<Executors>,
    targets: Arc<[Target]>,
    like: Arc<LikeNotices>,
    like_waiting: Arc<Semaphore>,
}

#[derive(Debug)]
struct Target {
    config: WebhookConfig,
    waiting: Semaphore,
    sending: Semaphore,
}

/// What became of a message to one target.
enum Ended {
    Delivered {
        attempts: u32,
    },
    GivenUp {
        reason: &'static str,
        detail: String,
        attempts: u32,
    },
    /// The lease is gone: the next owner sends it.
    Left,
}

impl Webhooks {
    /// These webhooks, called by `executors`.
    #[must_use]
    pub fn new(executors: Arc<Executors>, configs: &[WebhookConfig]) -> Self {
        let target = |config: &WebhookConfig| Target {
            config: config.clone(),
            waiting: Semaphore::new(WAITING_PER_TARGET_MAX),
            sending: Semaphore::new(SENDING_PER_TARGET_MAX),
        };
        Self {
            executors,
            targets: configs.iter().map(target).collect(),
            like: Arc::default(),
            like_waiting: Arc::new(Semaphore::new(LIKE_WAITING_MAX)),
        }
    }

    /// Whether the notice goes to any of them.
    #[must_use]
    pub fn take(&self, notice: &CaseNotice) -> bool {
        self.of(notice).next().is_some()
    }

    /// The case with which this one was told, for it is like one that was just delivered; nothing
    /// where it has to be sent itself. Waits for the end of one that is on its way.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub(crate) async fn told_with(&self, notice: &CaseNotice) -> Option<Uuid> {
        let mut place = None;
        loop {
            match self.like.look(notice, std::time::Instant::now()) {
                Like::First => return None,
                Like::ToldWith(case) => return Some(case),
                Like::Waits => {}
            }
            if place.is_none() {
                place = Some(self.like_waiting.try_acquire().ok()?);
            }
            tokio::time::sleep(LIKE_PAUSE).await;
        }
    }

    fn of<'a>(&'a self, notice: &'a CaseNotice) -> impl Iterator<Item = &'a Target> {
        let tenant = notice.tenant.as_str();
        self.targets
            .iter()
            .filter(move |target| target.config.takes(tenant, notice.tier, &notice.reason))
    }

    /// Sends the message wherever the notice goes, and says what became of it, by
    /// target; nothing when the lease went meanwhile. What was given up is filed
    /// as a dead letter by then.
    ///
    /// # Cancel safety
    ///
    /// When dropped, some targets may have it; sent again, they know it by its id.
    pub(crate) async fn send(
        &self,
        ports: &Ports,
        lease: &LeaseView,
        notice: &CaseNotice,
        key: &str,
        message: &Value,
    ) -> Option<Value> {
        let sends = self.of(notice).map(|target| async move {
            let ended = self.send_to(target, lease, key, message).await;
            (target, ended)
        });
        let mut told = Map::new();
        let mut is_delivered = true;
        for (target, ended) in join_all(sends).await {
            let webhook = target.config.name();
            let text = match ended {
                Ended::Delivered { attempts } => format!("delivered at attempt {attempts}"),
                Ended::Left => {
                    self.like.sent(notice, false);
                    return None;
                }
                Ended::GivenUp { reason, detail, attempts } => {
                    is_delivered = false;
                    tracing::error!(case = %notice.case, webhook, reason, detail, "an escalation could not be delivered; it is filed as a dead letter");
                    let letter = letter(notice, target, (reason, &detail), attempts, key, message);
                    while !file(ports, vec![letter.clone()]).await {
                        tokio::time::sleep(AGAIN_AFTER).await;
                    }
                    format!("{reason}: {detail}")
                }
            };
            told.insert(webhook, text.into());
        }
        self.like.sent(notice, is_delivered);
        Some(Value::Object(told))
    }

    async fn send_to(
        &self,
        target: &Target,
        lease: &LeaseView,
        key: &str,
        message: &Value,
    ) -> Ended {
        let Ok(_waiting) = target.waiting.try_acquire() else {
            let detail = format!("{WAITING_PER_TARGET_MAX} messages wait for the target already");
            return Ended::GivenUp { reason: OVERFLOW, detail, attempts: 0 };
        };
        let limit = Duration::from_millis(target.config.give_up_after_ms);
        let begun = Instant::now();
        let mut attempt = 1;
        loop {
            if !lease.clone().until_held().await {
                return Ended::Left;
            }
            let Some(detail) = self.attempt(target, key, attempt, message).await else {
                return Ended::Delivered { attempts: attempt };
            };
            let pause = pause(attempt);
            let is_final = detail.0 == FailureClass::NotAllowed;
            if is_final || begun.elapsed() + pause >= limit {
                let text = format!("after {attempt} attempt(s): {}", detail.1);
                return Ended::GivenUp { reason: GIVEN_UP, detail: text, attempts: attempt };
            }
            tokio::time::sleep(pause).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// One attempt; says why it was not taken.
    async fn attempt(
        &self,
        target: &Target,
        key: &str,
        attempt: u32,
        message: &Value,
    ) -> Option<(FailureClass, String)> {
        // It is never closed.
        let _sending = target.sending.acquire().await;
        let WebhookConfig { plugin, path, .. } = &target.config;
        let request = EffectRequest {
            // They are the engine's own: no tenant's calls stand in their way, nor they in theirs.
            tenant: "_engine".into(),
            key: key.to_owned(),
            attempt,
            traceparent: None,
            timeout: ATTEMPT_LIMIT,
            callback: None,
            kind: EffectKind::Http(HttpCall {
                plugin: plugin.clone(),
                path: path.clone(),
                body: message.clone(),
            }),
        };
        match self.executors.execute(request).await {
            EffectOutcome::Succeeded { .. } => None,
            // It was taken; what the answer says is nothing to us.
            EffectOutcome::Failed {
                class: FailureClass::ResponseNotJson | FailureClass::ResponseTooLarge,
                ..
            } => None,
            EffectOutcome::Failed { class, detail } => Some((class, detail)),
        }
    }
}

fn pause(attempt: u32) -> Duration {
    let policy = RetryPolicy {
        initial_ms: PAUSE_FIRST_MS,
        factor_permille: 2_000,
        max_ms: PAUSE_MAX_MS,
        ..RetryPolicy::none()
    };
    Duration::from_millis(policy.delay_ms(attempt, rand::rng().random()))
}

fn letter(
    notice: &CaseNotice,
    target: &Target,
    (reason, detail): (&str, &str),
    attempts: u32,
    key: &str,
    message: &Value,
) -> DeadLetter {
    DeadLetter {
        id: format!("{key}@{}", target.config.name()),
        tenant: notice.tenant.to_string(),
        stage: "escalator".to_owned(),
        reason: reason.to_owned(),
        detail: detail.to_owned(),
        subject: fermata_wire::subjects::escalation(&notice.tenant, notice.tier),
        original: message.to_string().into(),
        time_ms: wall_ms(),
        headers: Vec::new(),
        attempts: Some(attempts),
        // A case stands for many events.
        trace: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_their_bound() {
        for attempt in 1..200 {
            let bound = (PAUSE_FIRST_MS << (attempt - 1).min(20)).min(PAUSE_MAX_MS);
            assert!(pause(attempt) <= Duration::from_millis(bound), "{attempt}");
        }
        let longest = (0..200).map(|_| pause(100)).max().expect("one");
        assert!(longest > Duration::from_millis(PAUSE_MAX_MS / 2), "jitter is full");
    }
}
