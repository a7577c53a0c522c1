//! `fermata audit tail`: entries for people, one per line.

use fermata_core::identity::{PartitionId, Tenant};
use fermata_core::record::Header;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::audit_stream;
use fermata_jetstream::{Broker, StoredMessage, StreamReader};
use fermata_wire::audit::AuditFrame;
use fermata_wire::envelope::read;
use tokio::sync::mpsc;

use super::TailArguments;
use crate::broker_session::BrokerSession;
use crate::canonical_json::entry_text;
use crate::commands::known_tenants::KnownTenants;
use crate::error::{CliError, ExitCode};
use crate::output::Output;

/// How many messages are taken from a stream at a time.
const BATCH_MESSAGES: usize = 256;

/// How many batches of lines wait for the printer; a follower waits when it is full.
const LINES_WAITING_MAX: usize = 64;

/// Prints entries as they are made.
pub(super) async fn live(
    tenant: Option<&Tenant>,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    session.engine_config().await?;
    tell_unknown(tenant, session, output).await;
    let subject = format!("fermata.audit.{}", tenant.map_or("*", Tenant::as_str));
    let mut entries = CoreMessages::new(session.broker()).subscribe(&subject).await?;
    while let Some(message) = entries.next().await {
        match AuditFrame::decode(&message.payload) {
            Ok(frame) => {
                lines_of(&frame, None, None).iter().try_for_each(|line| output.line(line))?
            }
            // Anyone may publish here; what is no frame is no entry.
            Err(error) => tracing::warn!(subject = %message.subject, %error, "not an audit frame"),
        }
    }
    Ok(ExitCode::Success)
}

/// Prints the stored entries, and follows unless told not to.
pub(super) async fn stored(
    arguments: &TailArguments,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let partitions = session.engine_config().await?.partition_ids();
    let tenant = arguments.tenant.as_ref();
    tell_unknown(tenant, session, output).await;
    let reader = StreamReader::new(session.broker());
    let mut positions = Vec::new();
    for partition in partitions {
        let stream = audit_stream(partition);
        let mut replay = reader.replay(&stream, 1, Holes::Allowed).await?;
        loop {
            let messages = replay.next_batch(BATCH_MESSAGES).await?;
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                let lines = stored_lines(message, partition, tenant)?;
                lines.iter().try_for_each(|line| output.line(line))?;
            }
        }
        positions.push((partition, replay.wanted()));
    }
    if arguments.no_follow {
        return Ok(ExitCode::Success);
    }
    follow(positions, arguments.tenant.clone(), session.broker(), output).await
}

/// Says of a tenant whom nothing that is active names that this is so, before entries are waited for.
async fn tell_unknown(tenant: Option<&Tenant>, session: &BrokerSession, output: &mut Output) {
    let Some(tenant) = tenant else { return };
    // A hint is worth no failure.
    let Ok(active) = session.active_definitions().await else { return };
    let known = KnownTenants::of(&active);
    // Where all that is active is for every tenant, none of them is unknown.
    if known.is_empty() {
        return;
    }
    if let Some(text) = known.nothing_of(Some(tenant.as_str()), "strategies or contracts") {
        output.note(&text);
    }
}

/// Follows every partition from its position; ends with the first that cannot be followed.
async fn follow(
    positions: Vec<(PartitionId, u64)>,
    tenant: Option<Tenant>,
    broker: &Broker,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let (sender, mut lines) = mpsc::channel(LINES_WAITING_MAX);
    let mut followers = tokio::task::JoinSet::new();
    for (partition, from) in positions {
        let (sender, tenant) = (sender.clone(), tenant.clone());
        let reader = StreamReader::new(broker);
        followers.spawn(async move {
            let end = follow_one(&reader, partition, from, tenant.as_ref(), &sender).await;
            if let Err(error) = end {
                // Nobody listens any more when the command is over.
                let _ = sender.send(Err(error)).await;
            }
        });
    }
    drop(sender);
    while let Some(batch) = lines.recv().await {
        batch?.iter().try_for_each(|line: &String| output.line(line))?;
    }
    Ok(ExitCode::Success)
}

async fn follow_one(
    reader: &StreamReader,
    partition: PartitionId,
    from: u64,
    tenant: Option<&Tenant>,
    sender: &mpsc::Sender<Result<Vec<String>, CliError>>,
) -> Result<(), CliError> {
    let mut tail = reader.tail(&audit_stream(partition), from, Holes::Allowed).await?;
    loop {
        for message in tail.next_batch(BATCH_MESSAGES).await? {
            let lines = stored_lines(&message, partition, tenant)?;
            if sender.send(Ok(lines)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// The lines of a stored message; none when nobody of ours wrote it.
fn stored_lines(
    message: &StoredMessage,
    partition: PartitionId,
    tenant: Option<&Tenant>,
) -> Result<Vec<String>, CliError> {
    if message.writer.is_none() {
        return Ok(Vec::new());
    }
    let what = format!("message {} of stream `{}`", message.sequence, audit_stream(partition));
    let frame = AuditFrame::decode(&message.payload).map_err(CliError::unreadable(what))?;
    Ok(lines_of(&frame, Some(partition), tenant))
}

fn lines_of(
    frame: &AuditFrame<'_>,
    partition: Option<PartitionId>,
    tenant: Option<&Tenant>,
) -> Vec<String> {
    let partition = partition.map(|partition| partition.to_string());
    let is_meant = |header: &[u8]| {
        let Some(tenant) = tenant else { return true };
        read::<Header>("record header", header)
            .is_ok_and(|header| header.tenant.as_ref() == Some(tenant))
    };
    frame
        .entries
        .iter()
        .filter(|entry| is_meant(entry.header))
        .map(|entry| entry_text(entry, frame.journal_sequence, partition.as_deref()))
        .collect()
}
