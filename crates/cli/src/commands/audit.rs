//! `fermata audit`: the log that nobody can change unseen.

mod check;
mod checkpoint;
mod entries;
mod export;
mod feed;
mod kept;
mod key;
mod newest;
mod opening;
mod partition_audit;
mod pass;
mod print;
mod prove;
mod receipt;
mod records;
mod section;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fermata_core::identity::{PartitionId, Tenant};

use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::output::Output;

pub use check::PartitionCheck;
pub use checkpoint::CheckpointArguments;
pub use kept::KeptAudit;
pub use key::KeyArguments;
pub use partition_audit::{AcceptedLoss, PartitionAudit, UNREADABLE_MAX, Unreadable};
pub use print::print_audits;
pub use prove::ProveArguments;
pub use receipt::CheckReceiptArguments;
pub(crate) use section::Section;
pub(crate) use verify::verify_with;
pub use verify::{check_partition, verify_partitions};

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Recompute everything: every journal record has its one audit entry, as signed
    #[command(after_help = "\
Ends with 1 if anything is wrong. What anyone who may publish can put among the checkpoints
(notes that the key did not sign, copies) is a notice, and nothing wrong. The key is taken from the engine's own configuration;
to trust nobody, keep the key elsewhere and name it with --vkey.

A checkpoint that was kept outside the broker (`audit checkpoint --out DIR`) shows what the key alone
cannot: that the log of today goes on from it, and nobody was shown another history.

Examples:
  fermata audit verify
  fermata audit verify --partition control --vkey 'fermata-1+0a1b2c3d+AQ…'
  fermata audit verify --checkpoint kept --checkpoint /mnt/witness/0-1843.note
  fermata audit verify --export audit && python3 tests/python/verify_audit.py audit/0.ndjson")]
    Verify(VerifyArguments),
    /// Print audit entries as they are made, one canonical JSON (RFC 8785) per line
    #[command(
        after_help = "Examples:\n  fermata audit tail --tenant acme\n  fermata audit tail --from-start --no-follow"
    )]
    Tail(TailArguments),
    /// Print the newest signed checkpoint of each partition, to be kept outside the broker
    #[command(after_help = "\
Keep some where nobody who runs the engine can change them: with a partner, in write-once storage, in
print. `audit verify --checkpoint` compares them later. Ends with 1 if DIR holds another checkpoint of the same size.

Examples:
  fermata audit checkpoint --out kept
  fermata audit checkpoint --partition 0 --json | jq -r .checkpoint > 0.note")]
    Checkpoint(CheckpointArguments),
    /// Prove records: a receipt shows offline, to who has the key, that the log holds the record
    #[command(after_help = "\
A receipt holds the record's header, its commitment, the way of hashes from its leaf to the root, and the
signed checkpoint of this root. The payload is not in it, unless --open is given. Each proof reads the
partition's audit log once. Ends with 1 if the log is not the one that was signed.

Examples:
  fermata audit prove --run 0003c0de-0000-8000-8000-000000000000 --out receipts.ndjson
  fermata audit prove --partition 0 --record 7 --record 9 --json
  fermata audit prove --partition 0 --record 7 --open --out opened.ndjson")]
    Prove(ProveArguments),
    /// Check receipts against a key, without a broker
    #[command(after_help = "\
Take the key from a source that you trust, not from whoever sent the receipt. Ends with 1 if a receipt
does not hold, with 2 if the file holds something that is no receipt.

Examples:
  fermata audit check-receipt receipts.ndjson --vkey 'fermata-1+0a1b2c3d+AQ…'
  python3 tests/python/verify_audit.py --receipts receipts.ndjson --vkey 'fermata-1+0a1b2c3d+AQ…'")]
    CheckReceipt(CheckReceiptArguments),
    /// Print the public key that checkpoints and receipts are checked with
    #[command(after_help = "\
The key is public: give it to whoever is to check receipts or exports, by a way that they trust. It has
the form of a C2SP signed-note verifier key, name+id+key, and is what every --vkey takes. The broker's
configuration says which one it is; so does, without a broker, the private key in audit.key, which stays
where it is.

Examples:
  fermata audit key
  fermata audit key --audit-key
  fermata audit key --audit-key /var/lib/fermata/audit.key --json | jq -r .vkey
  fermata audit check-receipt receipts.ndjson --vkey \"$(fermata audit key --audit-key audit.key)\"")]
    Key(KeyArguments),
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
    /// Checkpoint that was kept earlier, or a folder of `.note` files: the log has to go on from it;
    /// may be named several times
    #[arg(long = "checkpoint", value_name = "FILE")]
    pub checkpoints: Vec<PathBuf>,
}

/// Arguments of `fermata audit tail`.
#[derive(Debug, Clone, Args)]
pub struct TailArguments {
    /// Only what is of this tenant
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
    if let AuditCommand::CheckReceipt(arguments) = &command {
        return receipt::check(arguments, output);
    }
    if let AuditCommand::Key(arguments) = &command {
        return key::run(arguments, global, output).await;
    }
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
        AuditCommand::Checkpoint(arguments) => checkpoint::run(&arguments, &session, output).await,
        AuditCommand::Prove(arguments) => prove::run(&arguments, &session, output).await,
        AuditCommand::CheckReceipt(arguments) => receipt::check(&arguments, output),
        AuditCommand::Key(arguments) => key::run(&arguments, global, output).await,
    }
}
