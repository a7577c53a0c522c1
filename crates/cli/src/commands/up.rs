//! `fermata up`: the engine with all roles, and a broker of its own unless one is named.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use fermata_actors::Role;
use fermata_actors::hand_over::ATTEMPTS_LIMIT_DEFAULT;
use fermata_actors::readiness::Obstacle;
use fermata_actors::task_worker::{PERMITS_DEFAULT, PERMITS_MAX, ServedQueues};
use fermata_core::partition::{KEYS_MAX_DEFAULT, KEYS_MAX_MOST};
use fermata_core::plan::{QUEUE_BYTES_MAX, is_queue_name};
use fermata_jetstream::Durability;
use fermata_jetstream::connection::without_credentials;
use fermata_jetstream::topology::{
    PARTITIONS_DEFAULT, STREAM_ROOM_BYTES_MAX, STREAM_ROOM_BYTES_MIN,
};
use serde_json::json;

use crate::arguments::GlobalArguments;
use crate::error::{CliError, ExitCode};
use crate::local_engine::{self, EndRequests, LocalEngine, OwnBroker, Start};
use crate::operations::HTTP_ADDRESS_DEFAULT;
use crate::output::{Output, Tone};

/// Arguments of `fermata up`; the address of a broker and the data folder are global ones.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  fermata up
  fermata up --data-dir /var/lib/fermata --plugin job-store=http://127.0.0.1:9000
  fermata up --http --durability power
  fermata up --queues gpu,mail
  fermata up --stream-room 40GiB
  fermata up --nats-url nats://broker:4222 --config fermata.json")]
pub struct UpArguments {
    /// Port of the engine's own broker on loopback; a free one when absent
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// What an acknowledged message of the engine's own broker survives
    #[arg(long, value_enum, default_value_t = DurabilityArgument::Power, value_name = "LEVEL")]
    pub durability: DurabilityArgument,
    /// What the engine itself is told
    #[command(flatten)]
    pub engine: EngineArguments,
}

/// What `fermata up` and `fermata worker` tell the engine.
#[derive(Debug, Clone, Args)]
pub struct EngineArguments {
    /// How many data partitions a new engine has; one that was started before keeps its number
    #[arg(long, default_value_t = PARTITIONS_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    pub partitions: u16,
    /// How many servers of a cluster hold each stream of a new engine; one that was started before keeps its number
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=5), value_name = "N")]
    pub replicas: u16,
    /// How much of the broker's file store the streams of a new engine take, 8GiB if nothing is said; given for an
    /// engine that is there, streams with less are enlarged, and none shrinks; `stream_room` in `--config` says the same
    #[arg(long, env = "FERMATA_STREAM_ROOM", value_parser = stream_room, value_name = "SIZE")]
    pub stream_room: Option<u64>,
    /// A plugin and where it listens; can be repeated
    #[arg(long = "plugin", value_name = "NAME=URL")]
    pub plugins: Vec<PluginArgument>,
    /// Configuration file of the engine (JSON)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Answer /health, /ready and /metrics (Prometheus) over HTTP; off when absent, port 0 takes a free one
    #[arg(long, env = "FERMATA_HTTP", num_args = 0..=1, default_missing_value = HTTP_ADDRESS_DEFAULT, value_name = "ADDRESS")]
    pub http: Option<SocketAddr>,
    /// Answer requests for receipts of audit records over HTTP, too: they name tenants and runs, so only
    /// where whoever reaches the address may see these of all tenants
    #[arg(long, env = "FERMATA_HTTP_RECEIPTS", requires = "http")]
    pub http_receipts: bool,
    /// How long attempts that are under way may take to end when the process is asked to
    #[arg(long, env = "FERMATA_DRAIN_SECONDS", default_value_t = ATTEMPTS_LIMIT_DEFAULT.as_secs(), value_parser = clap::value_parser!(u64).range(..=DRAIN_SECONDS_MAX), value_name = "SECONDS")]
    pub drain_seconds: u64,
    /// File with the key that signs checkpoints, the same for all workers; default: audit.key in the data folder,
    /// made when absent
    #[arg(long, value_name = "FILE")]
    pub audit_key: Option<PathBuf>,
    /// File with the secrets that requests to replay are verified with (`whsec_…`, the newest
    /// first); default: the variable FERMATA_REPLAY_SECRETS; without both they are refused
    #[arg(long, value_name = "FILE")]
    pub replay_secrets: Option<PathBuf>,
    /// For how many days after a journal's segment was archived it is kept; default: for ever
    #[arg(long, env = "FERMATA_ARCHIVE_RETENTION_DAYS", value_parser = clap::value_parser!(u64).range(1..=ARCHIVE_DAYS_MAX), value_name = "DAYS")]
    pub archive_retention_days: Option<u64>,
    /// Named queues that this process serves: it runs the tasks whose workflow names one of them
    #[arg(long, value_delimiter = ',', value_parser = queue_name, value_name = "QUEUE")]
    pub queues: Vec<String>,
    /// How many tasks of each queue run at once here
    #[arg(long, default_value_t = PERMITS_DEFAULT as u64, value_parser = clap::value_parser!(u64).range(1..=PERMITS_MAX as u64), value_name = "N")]
    pub queue_permits: u64,
    /// How many keys of events each partition keeps (24 h), and ids of commands, before it rejects events: about 200 bytes of memory each
    #[arg(long, env = "FERMATA_KEYS_MAX", default_value_t = KEYS_MAX_DEFAULT as u64, value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX_MOST as u64), value_name = "N")]
    pub keys_max: u64,
}

fn queue_name(text: &str) -> Result<String, String> {
    if is_queue_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "use 1 to {QUEUE_BYTES_MAX} lower-case letters, digits and `-`, starting with a letter or digit"
    ))
}

/// A size that the streams of an engine may be given, as in `40GiB`.
///
/// # Errors
///
/// When it is none, or not within bounds; for people.
pub fn stream_room(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if (STREAM_ROOM_BYTES_MIN..=STREAM_ROOM_BYTES_MAX).contains(&bytes) {
        return Ok(bytes);
    }
    Err("the streams of an engine take 2GiB to 1024TiB".to_owned())
}

/// A size that one stream may be given, as in `512MiB`.
///
/// # Errors
///
/// When it is none, or more than all streams may be given; for people.
pub fn stream_size(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if (1..=STREAM_ROOM_BYTES_MAX).contains(&bytes) {
        return Ok(bytes);
    }
    Err("a stream of an engine takes 1024TiB at the most".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => Some(0),
        "MiB" => Some(20),
        "GiB" => Some(30),
        "TiB" => Some(40),
        _ => None,
    };
    let number = number.parse::<u64>().ok().zip(shift);
    let bytes = number.and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "expected a size in bytes, MiB, GiB or TiB, as in `40GiB`".to_owned())
}

/// Longest that a retention of archives may be, a century: whoever means more means for ever.
const ARCHIVE_DAYS_MAX: u64 = 36_525;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Longest that a process may wait for attempts when it is asked to end: a day.
/// Whoever means more means that it must not end.
const DRAIN_SECONDS_MAX: u64 = 24 * 60 * 60;

impl EngineArguments {
    /// How long segments of archives are kept, milliseconds; nothing when for ever.
    #[must_use]
    pub fn archive_retention_ms(&self) -> Option<u64> {
        self.archive_retention_days.map(|days| days.saturating_mul(DAY_MS))
    }

    /// Most keys that a partition keeps.
    #[must_use]
    pub fn keys_max(&self) -> usize {
        usize::try_from(self.keys_max).unwrap_or(KEYS_MAX_DEFAULT)
    }

    /// How long attempts may take to end.
    #[must_use]
    pub fn drain_limit(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// The queues that the process serves, each once.
    #[must_use]
    pub fn served_queues(&self) -> ServedQueues {
        let names = self.queues.iter().cloned().collect::<BTreeSet<_>>();
        ServedQueues {
            names: names.into_iter().collect(),
            permits: usize::try_from(self.queue_permits).unwrap_or(PERMITS_DEFAULT),
            ..ServedQueues::default()
        }
    }
}

/// A size as the broker's API has it.
#[must_use]
pub fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What an acknowledged message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityArgument {
    /// A power cut: every message is synced to disk before it is acknowledged
    Power,
    /// A kill of every process, not a power cut
    Process,
}

impl From<DurabilityArgument> for Durability {
    fn from(argument: DurabilityArgument) -> Self {
        match argument {
            DurabilityArgument::Power => Self::Power,
            DurabilityArgument::Process => Self::Process,
        }
    }
}

/// A plugin's name and address, typed as `name=url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginArgument {
    /// What workflows call it.
    pub name: String,
    /// Where it listens.
    pub url: String,
}

impl FromStr for PluginArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, url)) if !name.is_empty() && url.contains("://") => {
                Ok(Self { name: name.to_owned(), url: url.to_owned() })
            }
            Some(_) | None => {
                Err("expected a name and an address, as in `job-store=http://127.0.0.1:9000`"
                    .to_owned())
            }
        }
    }
}

/// What there is to know about a halted partition.
const HALTED_HINT: &str = "\
the other partitions work; what is meant for a halted one is stored and waits. Keep everything as it is:
*A halted partition* in docs/failure-semantics.md says what to do for each reason";

/// Starts the engine and stays until it is told to end.
///
/// # Errors
///
/// When broker or engine cannot be started.
///
/// # Cancel safety
///
/// As a kill: nothing accepted is lost.
pub async fn run(
    arguments: UpArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let own_broker = OwnBroker { durability: arguments.durability.into(), port: arguments.port };
    let mut requests = EndRequests::listen()?;
    let mut running = LocalEngine::start(Start {
        data_dir: global.data_dir(),
        nats_url: global.nats_url.as_deref(),
        own_broker,
        roles: Role::ALL.into_iter().collect(),
        name: None,
        tells_url: true,
        engine: &arguments.engine,
    })
    .await?;
    let limit = arguments.engine.drain_limit();
    let ready = tokio::select! {
        biased;
        () = requests.next() => return local_engine::drain(running, &mut requests, limit).await,
        ready = running.ready() => ready,
    };
    let halted = match ready {
        Ok(halted) => halted,
        Err(error) => {
            running.abandon().await;
            return Err(error);
        }
    };
    tell(&running, &halted, output)?;
    local_engine::stay(running, &mut requests, limit).await
}

/// Says that it is up, where, and what of it is halted.
fn tell(running: &LocalEngine, halted: &[Obstacle], output: &mut Output) -> Result<(), CliError> {
    let (nats_url, http_url) = (without_credentials(running.url()), running.http_url());
    if output.is_json() {
        let halted = halted.iter().filter_map(|obstacle| match obstacle {
            Obstacle::Halted { partition, reason } => {
                Some(json!({ "partition": partition, "reason": reason }))
            }
            Obstacle::Draining
            | Obstacle::Disconnected
            | Obstacle::StandsStill(_)
            | Obstacle::Awaited(_) => None,
        });
        let halted = halted.collect::<Vec<_>>();
        return output.json_line(&json!({
            "ready": halted.is_empty(), "nats_url": nats_url, "http_url": http_url, "halted": halted,
        }));
    }
    output.line(&format!("{} at {nats_url}", output.tone(Tone::Good, "fermata is up")))?;
    running.tell_http_url(output)?;
    for obstacle in halted {
        let title = output.tone(Tone::Bad, "HALTED");
        output.line(&format!("{title}: {obstacle}"))?;
    }
    if !halted.is_empty() {
        output.line(HALTED_HINT)?;
    }
    output.line("publish to fermata.events.<tenant>.<type>; Ctrl-C ends it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_a_size_within_bounds() {
        for (text, bytes) in [("40GiB", 40 << 30), ("2048MiB", 2 << 30), ("1TiB", 1 << 40)] {
            assert_eq!(stream_room(text), Ok(bytes), "{text}");
        }
        assert_eq!(stream_room("8589934592"), Ok(8 << 30));
        for refused in ["", "GiB", "1GiB", "2048TiB", "40GB", "4.5GiB", "-8GiB", "99999999TiB"] {
            assert!(stream_room(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_plugin_is_a_name_and_an_address() {
        let plugin: PluginArgument = "a=http://127.0.0.1:1/x=y".parse().unwrap();

        assert_eq!((plugin.name.as_str(), plugin.url.as_str()), ("a", "http://127.0.0.1:1/x=y"));
        for refused in ["a", "=http://a", "a=localhost:1", ""] {
            assert!(refused.parse::<PluginArgument>().is_err(), "{refused}");
        }
    }
}
