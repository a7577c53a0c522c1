//! Escalator: one actor per review case. It tells the people concerned on
//! `fermata.escalation.<tenant>.<tier>`, brings the outcome back, and ends.
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
use serde_json::json;

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
                    let outcome = Outcome::Succeeded { output: Json::null() };
                    let (case, attempt) = (self.notice.case, self.notice.attempt);
                    let report = Report::Case { case, attempt, outcome };
                    let _ = self.owner.cast(CoordinatorMessage::Handled(report));
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
    async fn tell(&self) -> bool {
        let notice = &self.notice;
        let subject = subjects::escalation(&notice.tenant, notice.tier);
        let message = json!({
            "case": notice.case,
            "key": format!("{}/notify/1", notice.case),
            "attempt": notice.attempt,
            "tenant": notice.tenant.as_str(),
            "tier": notice.tier,
            "reason": &*notice.reason,
            "run": notice.run.map(|run| run.to_string()),
            "detail": notice.detail.parse(),
        });
        let sent = self.ports.core.publish_core(subject, message.to_string().into()).await;
        sent.is_ok() && self.ports.core.flush().await.is_ok()
    }
}
