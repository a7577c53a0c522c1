//! The audit feed of a tenant, as a subscriber sees it.

use std::time::{Duration, Instant};

use fermata_core::identity::RunId;
use fermata_core::record::Kind;
use fermata_jetstream::core_messages::Subscription;
use fermata_wire::audit::AuditFrame;
use fermata_wire::subjects;
use miette::{IntoDiagnostic as _, WrapErr as _, miette};
use serde::Deserialize;

use crate::client::Client;
use crate::events::TENANT;

/// How long the feed may be silent before the case is given up.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// A subscription to the feed.
#[derive(Debug)]
pub struct AuditFeed {
    messages: Subscription,
}

/// Runs that have succeeded.
#[derive(Debug)]
pub struct Succeeded {
    /// When the frame came.
    pub came: Instant,
    /// The runs.
    pub runs: Vec<RunId>,
    /// The message of their partition's journal that says so.
    pub journal_sequence: u64,
}

/// The part of a header that is looked at.
#[derive(Debug, Deserialize)]
struct Head {
    kind: Kind,
    #[serde(default)]
    run: Option<RunId>,
}

impl AuditFeed {
    /// Subscribes to the feed of the events' tenant; the broker knows of it when this returns.
    pub async fn open(client: &Client) -> miette::Result<Self> {
        Self::of(TENANT, client).await
    }

    /// The same for the feed of `tenant`.
    pub async fn of(tenant: &str, client: &Client) -> miette::Result<Self> {
        let tenant = tenant.parse().into_diagnostic()?;
        let subject = subjects::audit_feed(Some(&tenant));
        let messages = client.core.subscribe(&subject).await.into_diagnostic()?;
        // An answered question proves that the broker has taken the subscription before it, which
        // went the same way.
        client.reader.stream_state("EVENTS").await.into_diagnostic()?;
        Ok(Self { messages })
    }

    /// The next frame that says that runs have succeeded.
    pub async fn next_succeeded(&mut self) -> miette::Result<Succeeded> {
        loop {
            let message = tokio::time::timeout(SILENCE_LIMIT, self.messages.next())
                .await
                .into_diagnostic()
                .wrap_err("the audit feed is silent")?
                .ok_or_else(|| miette!("the connection is closed"))?;
            let came = Instant::now();
            let frame = AuditFrame::decode(&message.payload).into_diagnostic()?;
            let mut runs = Vec::new();
            for entry in &frame.entries {
                let head: Head = rmp_serde::from_slice(entry.header).into_diagnostic()?;
                match (head.kind.ends_run(), head.kind == Kind::RunSucceeded, head.run) {
                    (true, true, Some(run)) => runs.push(run),
                    (true, _, run) => {
                        return Err(miette!("run {run:?} ended as `{}`", head.kind.as_str()));
                    }
                    (false, ..) => {}
                }
            }
            if !runs.is_empty() {
                return Ok(Succeeded { came, runs, journal_sequence: frame.journal_sequence });
            }
        }
    }
}
