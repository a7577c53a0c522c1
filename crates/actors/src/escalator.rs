//! Escalator: one actor per review case. It tells the people concerned on
//! `fermata.escalation.<tenant>.<tier>` and over HTTP, brings the outcome back, and
//! ends.
//!
//! This is the place where a mediator will be spawned instead: an effect that
//! names a case spawns the case's handler, and its outcome comes back as a
//! report. Its coordinator bounds how many there are.

use std::time::Duration;

use fermata_core::effect::{CaseNotice, Outcome};
use fermata_core::json::Json;
use fermata_core::partition::Report;
use fermata_wire::subjects;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::{Value, json};

use crate::coordinator::CoordinatorMessage;
use crate::lease_term::LeaseView;
use crate::ports::Ports;

/// Pause before a notice is sent again that could not be.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What an escalator is told.
#[derive(Debug)]
pub enum EscalatorMessage {
    /// Send the notice; sent by the escalator to itself.
    Tell,
}

/// Behaviour and ports of one case.
#[derive(Debug)]
pub struct Escalator {
    ports: Ports,
    notice: CaseNotice,
    owner: ActorRef<CoordinatorMessage>,
    lease: LeaseView,
}

impl Escalator {
    /// The handler of `notice`, reporting to `owner`, which tells nobody unless
    /// `lease` holds.
    #[must_use]
    pub fn new(
        ports: Ports,
        notice: CaseNotice,
        owner: ActorRef<CoordinatorMessage>,
        lease: LeaseView,
    ) -> Self {
        Self { ports, notice, owner, lease }
    }
}

impl Actor for Escalator {
    type Msg = EscalatorMessage;
    type State = ();
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<EscalatorMessage>,
        (): (),
    ) -> Result<(), ActorProcessingErr> {
        myself.cast(EscalatorMessage::Tell)?;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<EscalatorMessage>,
        message: EscalatorMessage,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match message {
            EscalatorMessage::Tell => {
                if !self.lease.clone().until_held().await {
                    // Nobody is left to report to: the next owner tells.
                    myself.stop(None);
                } else if self.tell().await {
                    if let Some(output) = self.send_to_webhooks(&myself).await {
                        let outcome = Outcome::Succeeded { output };
                        let (case, attempt) = (self.notice.case, self.notice.attempt);
                        let report = Report::Case { case, attempt, outcome };
                        let _ = self.owner.cast(CoordinatorMessage::Handled(report));
                    }
                    myself.stop(None);
                } else {
                    drop(myself.send_after(AGAIN_AFTER, || EscalatorMessage::Tell));
                }
                Ok(())
            }
        }
    }
}

impl Escalator {
    /// The effect key of the notice, the same at every attempt.
    fn key(&self) -> String {
        format!("{}/notify/1", self.notice.case)
    }

    fn message(&self) -> Value {
        let notice = &self.notice;
        json!({
            "case": notice.case,
            "key": self.key(),
            "attempt": notice.attempt,
            "tenant": notice.tenant.as_str(),
            "tier": notice.tier,
            "reason": &*notice.reason,
            "run": notice.run.map(|run| run.to_string()),
            "detail": notice.detail.parse(),
        })
    }

    /// What became of it over HTTP; nothing when the lease went meanwhile.
    async fn send_to_webhooks(&self, myself: &ActorRef<EscalatorMessage>) -> Option<Json> {
        let webhooks = &self.ports.webhooks;
        if !webhooks.take(&self.notice) {
            return Some(Json::null());
        }
        let _ = self.owner.cast(CoordinatorMessage::Told(myself.get_id()));
        if let Some(first) = webhooks.told_with(&self.notice).await {
            return Some(Json::from_value(&json!({ "told_with": first })));
        }
        let (key, message) = (self.key(), self.message());
        let sent = webhooks.send(&self.ports, &self.lease, &self.notice, &key, &message).await?;
        Some(Json::from_value(&json!({ "webhooks": sent })))
    }

    async fn tell(&self) -> bool {
        let subject = subjects::escalation(&self.notice.tenant, self.notice.tier);
        let message = self.message();
        let sent = self.ports.core.publish_core(subject, message.to_string().into()).await;
        sent.is_ok() && self.ports.core.flush().await.is_ok()
    }
}
