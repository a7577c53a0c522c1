//! What a check came to, for people and for programs.

use fermata_audit::Report;
use serde_json::json;

use super::PartitionAudit;
use crate::error::CliError;
use crate::output::{Output, Tone, counted};

/// Prints what the check of each partition came to, every finding and every notice.
///
/// # Errors
///
/// When it cannot be written.
pub fn print_audits(audits: &[PartitionAudit], output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return audits.iter().try_for_each(|audit| {
            let report = &audit.report;
            output.json_line(&json!({
                "partition": audit.partition.to_string(),
                "sound": audit.is_sound(),
                "records": report.records,
                "leaves": report.leaves,
                "checkpoints": report.checkpoints,
                "checkpoint_size": report.checkpoint_size,
                "sound_to": report.sound_to,
                "unaudited": report.unaudited,
                "unsigned": report.unsigned,
                "root": report.root.to_string(),
                "findings": audit.findings(),
                "notices": audit.notices(),
                "removed": audit.removed,
                "kept": audit.kept,
                "accepted_losses": audit.losses,
            }))
        });
    }
    let row = |audit: &PartitionAudit| {
        let report = &audit.report;
        let (tone, word) = match audit.is_sound() {
            true => (Tone::Good, "none".to_owned()),
            false => (Tone::Bad, audit.findings().len().to_string()),
        };
        vec![
            audit.partition.to_string(),
            report.records.to_string(),
            report.leaves.to_string(),
            report.checkpoint_size.to_string(),
            report.checkpoints.to_string(),
            report.root.to_string(),
            output.tone(tone, &word),
        ]
    };
    let rows = audits.iter().map(row).collect();
    let columns = ["PARTITION", "RECORDS", "LEAVES", "SIGNED", "CHECKPOINTS", "ROOT", "FINDINGS"];
    output.table(&columns, rows, "no partitions")?;
    for audit in audits {
        let good = audit.kept.iter().filter(|kept| kept.departure.is_none());
        let sizes: Vec<_> = good.filter_map(|kept| kept.size).collect();
        if let (Some(least), Some(most)) = (sizes.iter().min(), sizes.iter().max()) {
            let title = output.tone(Tone::Good, &format!("partition {}", audit.partition));
            let kept = counted(sizes.len(), "kept checkpoint", "kept checkpoints");
            let sizes = match least == most {
                true => counted(*most, "entry", "entries"),
                false => format!("{least} to {most} entries"),
            };
            output.line(&format!("{title}: goes on from {kept}, of {sizes}"))?;
        }
        for finding in audit.findings() {
            let title = output.tone(Tone::Bad, &format!("partition {}", audit.partition));
            output.line(&format!("{title}: {finding}"))?;
        }
        for notice in audit.notices() {
            let title =
                output.tone(Tone::Warning, &format!("notice, partition {}", audit.partition));
            output.line(&format!("{title}: {notice}"))?;
        }
    }
    let total = |of: fn(&Report) -> u64| audits.iter().map(|audit| of(&audit.report)).sum::<u64>();
    let (records, leaves) = (total(|report| report.records), total(|report| report.leaves));
    let tail = total(|report| report.unaudited) + total(|report| report.unsigned);
    let verdict = match audits.iter().all(PartitionAudit::is_sound) {
        true => output.tone(Tone::Good, "sound"),
        false => output.tone(Tone::Bad, "NOT SOUND"),
    };
    output.line(&format!(
        "{verdict}: {}, {}, {tail} not audited or signed yet",
        counted(records, "record", "records"),
        counted(leaves, "leaf", "leaves"),
    ))
}
