//! `fermata audit verify`: the three streams of each partition against each other.

use fermata_audit::{PartitionVerifier, Verifier};
use fermata_core::identity::PartitionId;
use fermata_core::record::TruncationAccepted;
use fermata_jetstream::StreamReader;
use indicatif::ProgressBar;

use super::VerifyArguments;
use super::check::{Ends, PartitionCheck};
use super::export::Export;
use super::kept::KeptNotes;
use super::newest::partitions_of;
use super::partition_audit::PartitionAudit;
use crate::broker_session::{BrokerSession, EngineConfig};
use crate::error::CliError;

/// Checks the partitions that the arguments name, each up to where its streams
/// end now; `progress` goes on by one for each message that was read.
///
/// # Errors
///
/// When the broker does not answer, the key is none, or an export cannot be written.
///
/// # Cancel safety
///
/// Can be dropped; an export may be half written.
pub async fn verify_partitions(
    arguments: &VerifyArguments,
    session: &BrokerSession,
    progress: &ProgressBar,
) -> Result<Vec<PartitionAudit>, CliError> {
    let config = session.engine_config().await?;
    let verifier = Verifier::parse(arguments.vkey.as_ref().unwrap_or(&config.audit_vkey))?;
    let partitions = partitions_of(&config, arguments.partition)?;
    let mut kept = KeptNotes::read(&arguments.checkpoints, &verifier, &config, &partitions)?;
    let reader = StreamReader::new(session.broker());
    let ends = Ends::read(&reader, &partitions).await?;
    progress.set_length(ends.iter().map(Ends::messages).sum());
    let mut audits = Vec::new();
    for (partition, ends) in partitions.into_iter().zip(ends) {
        let origin = config.audit_origin(partition);
        let log = PartitionVerifier::new(&origin, vec![verifier.clone()], !arguments.complete);
        let mut check = PartitionCheck::begin(&reader, partition, log, ends, progress).await?;
        check.kept = kept.take(&origin);
        if let Some(folder) = &arguments.export {
            check.export = Some(Export::create(folder, partition, &origin, &verifier.vkey())?);
        }
        audits.push(check.finish().await?);
    }
    Ok(audits)
}

/// Begins the check of `partition` up to where its streams end now, beside an engine that may run.
///
/// # Errors
///
/// When the broker does not answer, or the engine's key is none.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn check_partition(
    session: &BrokerSession,
    config: &EngineConfig,
    partition: PartitionId,
    progress: &ProgressBar,
) -> Result<PartitionCheck, CliError> {
    let verifier = Verifier::parse(&config.audit_vkey)?;
    let reader = StreamReader::new(session.broker());
    let ends = Ends::read(&reader, &[partition]).await?.into_iter().next().unwrap_or_default();
    progress.set_length(ends.messages());
    let log = PartitionVerifier::new(&config.audit_origin(partition), vec![verifier], true);
    PartitionCheck::begin(&reader, partition, log, ends, progress).await
}

/// Checks `partition` as it would be if `planned` were accepted at the end of its journal.
pub(crate) async fn verify_with(
    session: &BrokerSession,
    config: &EngineConfig,
    partition: PartitionId,
    planned: Option<TruncationAccepted>,
    progress: &ProgressBar,
) -> Result<PartitionAudit, CliError> {
    let mut check = check_partition(session, config, partition, progress).await?;
    check.planned = planned;
    check.finish().await
}
