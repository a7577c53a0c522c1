//! `fermata audit`: the log that nobody can change unseen.

mod export;
mod feed;
mod print;
mod section;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fermata_core::identity::{PartitionId, Tenant};

use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::output::Output;

pub use print::print_audits;
pub(crate) use section::Section;
pub(crate) use verify::verify_with;
pub use verify::{AcceptedLoss, PartitionAudit, UNREADABLE_MAX, Unreadable, verify_partitions};

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Recompute everything: every journal record has its one audit entry, as signed
    #[command(after_help = "\
Ends with 1 if anything is wrong. What anyone who may publish can put among the checkpoints
(notes that the key did not sign, copies) is a notice, and nothing wrong. The key is taken from the engine's own configuration;
to trust nobody, keep the key elsewhere and name it with --vkey.

Examples:
  fermata audit verify
  fermata audit verify --partition control --vkey 'fermata-1+0a1b2c3d+AQ…'
  fermata audit verify --export audit && python3 tests/python/verify_audit.py audit/0.ndjson")]
    Verify(VerifyArguments),
    /// Print audit entries as they are made, one canonical JSON (RFC 8785) per line
    #[command(
        after_help = "Examples:\n  fermata audit tail --tenant acme\n  fermata audit tail --from-start --no-follow"
    )]
    Tail(TailArguments),
}

/// Arguments of `fermata audit verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArguments {
    /// Only this partition: a number, or `control`
    #[arg(long, value_name = "P")]
    pub partition: Option<PartitionId>,
    /// Key that checkpoints are verified with; default: the one in the engine's configuration
    #[arg(long, value_name = "KEY")]
    pub vkey: Option<String>,
    /// Also write each partition's log to this folder, for tools that are not ours
    #[arg(long, value_name = "DIR")]
    pub export: Option<PathBuf>,
    /// Refuse records that are not audited or signed yet; for an engine that has ended
    #[arg(long)]
    pub complete: bool,
}

/// Arguments of `fermata audit tail`.
#[derive(Debug, Clone, Args)]
pub struct TailArguments {
    /// Only entries of this tenant
    #[arg(long)]
    pub tenant: Option<Tenant>,
    /// Begin with the oldest entry stored, partition by partition
    #[arg(long)]
    pub from_start: bool,
    /// End where the stored entries end
    #[arg(long, requires = "from_start")]
    pub no_follow: bool,
}

/// Does what was typed.
///
/// # Errors
///
/// When the broker does not answer or an export cannot be written.
///
/// # Cancel safety
///
/// Can be dropped; an export may be half written.
pub async fn run(
    command: AuditCommand,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let session = BrokerSession::open(global).await?;
    match command {
        AuditCommand::Verify(arguments) => {
            let progress = output.progress(0, "messages read");
            let audits = verify_partitions(&arguments, &session, &progress).await?;
            progress.finish_and_clear();
            print_audits(&audits, output)?;
            let sound = audits.iter().all(PartitionAudit::is_sound);
            Ok(if sound { ExitCode::Success } else { ExitCode::Findings })
        }
        AuditCommand::Tail(arguments) if arguments.from_start => {
            feed::stored(&arguments, &session, output).await
        }
        AuditCommand::Tail(arguments) => {
            feed::live(arguments.tenant.as_ref(), &session, output).await
        }
    }
}
