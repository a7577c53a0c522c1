//! `fermata worker`: some of the engine's roles on a broker that is there.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use fermata_jetstream::Durability;
use fermata_jetstream::connection::without_credentials;

use super::up::EngineArguments;
use crate::arguments::GlobalArguments;
use crate::broker_session::broker_url;
use crate::error::{CliError, ExitCode};
use crate::local_engine::{self, EndRequests, LocalEngine, OwnBroker, Start};
use crate::output::{Output, Tone};

/// Arguments of `fermata worker`; the address of the broker and the data folder are global ones.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Every worker needs the engine's audit key, whatever it does: the file that `fermata up` has in its
data folder as audit.key, or a copy of it (`--audit-key`). One with another key is refused.

Examples:
  fermata worker --nats-url nats://broker:4222 --audit-key audit.key --roles listener,matcher,builder
  fermata worker --nats-url nats://broker:4222 --audit-key audit.key --roles coordinator --name worker-2 --http 0.0.0.0:9464
  fermata worker --nats-url nats://broker:4222 --audit-key audit.key --queues gpu,mail --queue-permits 4 --plugin gpu=http://127.0.0.1:9000")]
pub struct WorkerArguments {
    /// What this process does besides serving queues; listener, matcher and builder are fused when all three are named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROLE")]
    pub roles: Vec<Role>,
    /// Name of the worker; one that restarts under its name takes its partitions back at once
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What the engine itself is told
    #[command(flatten)]
    pub engine: EngineArguments,
}

/// What a worker process can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Role {
    /// Takes events in: decodes them, checks the tenant
    Listener,
    /// Decides which strategies apply
    Matcher,
    /// Makes commands of what was matched
    Builder,
    /// Owns partitions: decides, runs nodes, audits
    Coordinator,
    /// Keeps the list of runs that `fermata runs list` asks for
    Projector,
}

impl From<Role> for fermata_actors::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Listener => Self::Listener,
            Role::Matcher => Self::Matcher,
            Role::Builder => Self::Builder,
            Role::Coordinator => Self::Coordinator,
            Role::Projector => Self::Projector,
        }
    }
}

/// Starts the roles and stays until it is told to end.
///
/// # Errors
///
/// When the broker cannot be reached or a role cannot be started.
///
/// # Cancel safety
///
/// As a kill: nothing accepted is lost.
pub async fn run(
    arguments: WorkerArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    if arguments.roles.is_empty() && arguments.engine.queues.is_empty() {
        return Err(CliError::Usage(
            "nothing is said of what this worker is to do: name `--roles` (listener, matcher, builder, \
             coordinator, projector), `--queues` to serve named queues, or both"
                .to_owned(),
        ));
    }
    let url = broker_url(global)?;
    let roles = arguments.roles.iter().copied().map(Into::into).collect::<BTreeSet<_>>();
    let mut requests = EndRequests::listen()?;
    let running = LocalEngine::start(Start {
        data_dir: global.data_dir(),
        nats_url: Some(&url),
        own_broker: OwnBroker { durability: Durability::Power, port: None },
        roles,
        name: arguments.name.as_deref(),
        tells_url: false,
        engine: &arguments.engine,
    })
    .await?;
    let shown = without_credentials(&url);
    if output.is_json() {
        let http_url = running.http_url();
        output.json_line(
            &serde_json::json!({ "started": true, "nats_url": shown, "http_url": http_url }),
        )?;
    } else {
        output.line(&format!(
            "{} at {shown}; Ctrl-C ends it",
            output.tone(Tone::Good, "the worker runs")
        ))?;
        running.tell_http_url(output)?;
    }
    local_engine::stay(running, &mut requests, arguments.engine.drain_limit()).await
}
