//! An engine in this process: its folder, its keys, a broker of its own when
//! none is named, and the way down again.
//!
//! ```text
//! <data dir>/fermata.url      where the broker listens, without credentials, while the engine runs
//! <data dir>/engine           the engine's name: the folder works for no other one, and an address that another one has is seen
//! <data dir>/fermata.monitor  where the engine's own broker can be monitored, while it runs
//! <data dir>/fermata.http     where this process answers over HTTP, if it does
//! <data dir>/lock             held by the one process that uses the folder
//! <data dir>/worker           this worker's name, the same after a restart
//! <data dir>/audit.key        the key that signs checkpoints; keep it, and keep it secret
//! <data dir>/checkpoints/     the newest checkpoint of each partition, synced
//! <data dir>/read-model/      the list of runs, made anew from the journals when in doubt
//! <data dir>/nats/            streams and log of the engine's own broker
//! ```

mod absence;
mod data_folder;
mod ending;
mod engine_file;
mod kept_broker;
mod not_started;
mod settling;
mod unknown_calls;
mod whose;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fermata_actors::readiness::Obstacle;
use fermata_actors::supervisor::Drained;
use fermata_actors::{Engine, EngineConfig, EngineError, Role};
use fermata_audit::Signer;
use fermata_jetstream::connection::without_credentials;
use fermata_jetstream::leases::is_worker_name;
use fermata_jetstream::topology::{Enlarged, Enlargement, STREAM_ROOM_BYTES_DEFAULT};
use fermata_jetstream::{Durability, ServerOptions, Topology};
use fermata_partition::snapshot::SnapshotPolicy;
use fermata_wire::replay::ReplayKeys;
use tokio::task::{AbortHandle, JoinSet};

use crate::arguments::{ENGINE_FILE, GlobalArguments, URL_FILE};
use crate::commands::doctor::MONITOR_FILE;
use crate::commands::up::{EngineArguments, bytes};
use crate::error::CliError;
use crate::operations::{Endpoints, HTTP_FILE};
use crate::output::Output;
use crate::telemetry;

use data_folder::DataFolder;
pub use data_folder::make_folder;
pub use ending::{EndRequests, Ended, drain, stay};
use engine_file::EngineFile;
pub use kept_broker::{BROKER_RESTARTS_MAX, BROKER_RESTARTS_WINDOW};
use kept_broker::{KeptBroker, keep};
use not_started::not_started;
pub use settling::{READY_LIMIT, TELL_INTERVAL};
use whose::{engine_of, replaced_in};

/// The file in a data folder that holds the private audit key.
pub const AUDIT_KEY_FILE: &str = "audit.key";

/// Name under which checkpoints are signed.
const KEY_NAME: &str = "fermata-audit";

/// How often figures are gathered that are exported: as often as a scraper comes
/// that is in a hurry.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);

/// A broker of the engine's own.
#[derive(Debug, Clone, Copy)]
pub struct OwnBroker {
    /// What an acknowledged message survives.
    pub durability: Durability,
    /// Port on loopback; a free one when absent.
    pub port: Option<u16>,
}

/// How to start.
#[derive(Debug)]
pub struct Start<'a> {
    /// Folder of the engine.
    pub data_dir: &'a Path,
    /// Address of the broker; absent when the engine brings its own.
    pub nats_url: Option<&'a str>,
    /// The engine's own broker, where no other is named.
    pub own_broker: OwnBroker,
    /// What this process does.
    pub roles: BTreeSet<Role>,
    /// The worker's name; absent means the one in the folder.
    pub name: Option<&'a str>,
    /// Whether commands with this folder are to find the broker by it.
    pub tells_url: bool,
    /// What the engine is told.
    pub engine: &'a EngineArguments,
}

/// A running engine, and its broker if it brought one.
#[derive(Debug)]
pub struct LocalEngine {
    engine: Engine,
    broker: Option<KeptBroker>,
    url: String,
    url_file: Option<PathBuf>,
    endpoints: Option<Endpoints>,
    /// What looks on and tells; ends with the value.
    _onlookers: JoinSet<()>,
    /// Of these, what tells of a broker that is another's.
    absence: Option<AbortHandle>,
    data_dir: PathBuf,
    _folder: DataFolder,
}

impl Drop for LocalEngine {
    fn drop(&mut self) {
        // A file that tells of an engine which is gone only misleads.
        self.url_file.iter().for_each(|file| {
            let _ = std::fs::remove_file(file);
        });
    }
}

impl LocalEngine {
    /// Starts the broker, if none is named, and the engine.
    ///
    /// # Errors
    ///
    /// When the folder cannot be used, or broker or engine cannot be started.
    ///
    /// # Cancel safety
    ///
    /// What was started ends when dropped.
    pub async fn start(start: Start<'_>) -> Result<Self, CliError> {
        let data_dir = start.data_dir;
        let folder = DataFolder::hold(data_dir)?;
        if start.tells_url {
            // What is there tells of one that was killed.
            let _ = std::fs::remove_file(data_dir.join(URL_FILE));
        }
        let key_file = audit_key_file(&start);
        let had_key = key_file.exists();
        let file = EngineFile::read(start.engine.config.as_deref())?;
        let stream_room = start.engine.stream_room.or(file.stream_room);
        let room_bytes = bytes(stream_room.unwrap_or(STREAM_ROOM_BYTES_DEFAULT));
        let config = engine_config(&start, file, room_bytes)?;
        let endpoints = match start.engine.http {
            Some(address) => {
                let file = data_dir.join(HTTP_FILE);
                let (worker, receipts) = (config.worker.clone(), start.engine.http_receipts);
                Some(Endpoints::start(address, worker, receipts, file).await?)
            }
            None => None,
        };
        let monitor_file = data_dir.join(MONITOR_FILE);
        let (broker, url) = match start.nats_url {
            Some(url) => {
                // It would tell of a broker that this folder had of its own, before.
                let _ = std::fs::remove_file(&monitor_file);
                (None, url.to_owned())
            }
            None => {
                let OwnBroker { durability, port } = start.own_broker;
                let data_dir = data_dir.join("nats");
                let options = ServerOptions { data_dir, durability, port, monitor: true };
                let broker = KeptBroker::start(options, monitor_file).await?;
                let url = broker.url();
                (Some(broker), url)
            }
        };
        let monitor_url = broker.as_ref().and_then(KeptBroker::monitor_url);
        let config = EngineConfig { nats_url: url.clone(), monitor_url, ..config };
        let engine = match Engine::start(config).await {
            Ok(engine) => engine,
            Err(error) => {
                if matches!(error, EngineError::OtherKey { .. } | EngineError::Replaced(_))
                    && !had_key
                {
                    // Made a moment ago, and of no use: the next start would find it.
                    let _ = std::fs::remove_file(&key_file);
                }
                return Err(not_started(data_dir, error));
            }
        };
        if stream_room.is_some() {
            enlarge_streams(&engine, room_bytes).await?;
        }
        if let Some(endpoints) = &endpoints {
            endpoints.started(&engine);
        }
        let mut onlookers = JoinSet::new();
        onlookers.spawn(unknown_calls::tell(engine.clone()));
        if telemetry::is_export_wanted() {
            onlookers.spawn(export(engine.clone()));
        }
        let absence = broker
            .is_none()
            .then(|| onlookers.spawn(absence::tell(engine.clone(), without_credentials(&url))));
        let url_file = start.tells_url.then(|| data_dir.join(URL_FILE));
        if engine_of(data_dir)?.as_ref() != Some(&engine.ports().facts.engine) {
            write_line(&data_dir.join(ENGINE_FILE), &engine.ports().facts.engine)?;
        }
        if let Some(file) = &url_file {
            // Whoever may read the folder is not told a password by it.
            write_line(file, &without_credentials(&url))?;
        }
        let data_dir = data_dir.to_owned();
        Ok(Self {
            engine,
            broker,
            url,
            url_file,
            endpoints,
            absence,
            _onlookers: onlookers,
            data_dir,
            _folder: folder,
        })
    }

    /// Where the broker listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the endpoints are, if there are any.
    #[must_use]
    pub fn http_url(&self) -> Option<&str> {
        self.endpoints.as_ref().map(Endpoints::url)
    }

    /// Says where the endpoints are, if there are any.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn tell_http_url(&self, output: &mut Output) -> Result<(), CliError> {
        match self.http_url() {
            Some(url) => output.line(&format!("{url}/health, /ready and /metrics answer")),
            None => Ok(()),
        }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Waits until what is published is decided at once; says every [`TELL_INTERVAL`] what it
    /// waits for. What is halted here is not waited for, and given: it stays so until somebody
    /// acts.
    ///
    /// # Errors
    ///
    /// When that takes longer than [`READY_LIMIT`], or the engine or its broker ends by itself.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped; the broker may be down, and is started by the next call.
    pub async fn ready(&mut self) -> Result<Vec<Obstacle>, CliError> {
        let Self { engine, broker, data_dir: folder, .. } = self;
        tokio::select! {
            settled = settling::settled(engine) => settled,
            ended = keep(broker) => Err(ended),
            replaced = engine.replaced() => Err(replaced_in(folder, replaced)),
        }
    }

    /// What other commands of this program need to reach it.
    #[must_use]
    pub fn arguments(&self, global: &GlobalArguments) -> GlobalArguments {
        GlobalArguments { nats_url: Some(self.url.clone()), ..global.clone() }
    }

    /// Stays until the engine ends by itself, its own broker too often to be started again, or its broker's data
    /// is another engine's.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped; the broker may be down, and is started by the next call.
    pub async fn ended(&mut self) -> Ended {
        let Self { engine, broker, data_dir: folder, .. } = self;
        tokio::select! {
            error = keep(broker) => Ended::Broker(error),
            replaced = engine.replaced() => Ended::Broker(replaced_in(folder, replaced)),
            () = engine.ended() => Ended::Engine,
        }
    }

    /// Finishes what is in flight and ends the engine, then its broker. Attempts
    /// that are under way may take as long as `limit`.
    ///
    /// # Errors
    ///
    /// When the broker cannot be ended.
    ///
    /// # Cancel safety
    ///
    /// As a kill: nothing accepted is lost.
    pub async fn shut_down(mut self, limit: Duration) -> Result<Drained, CliError> {
        self.absence.iter().for_each(AbortHandle::abort);
        let Self { engine, broker, .. } = &mut self;
        let drained = tokio::select! {
            drained = engine.drain(limit) => drained,
            // It is not started any more: what is held cannot be finished, and comes again.
            _ = keep(broker) => engine.drain(limit).await,
        };
        if let Some(broker) = self.broker.take() {
            broker.stop().await?;
        }
        Ok(drained)
    }

    /// Ends at once: as a kill, but for the files that would mislead, and its own broker, which
    /// is asked to end if it runs.
    ///
    /// # Cancel safety
    ///
    /// As a kill: nothing accepted is lost.
    pub async fn abandon(mut self) {
        if let Some(broker) = self.broker.take() {
            // Why it is abandoned is told, and matters more.
            let _ = broker.stop().await;
        }
    }
}

/// Keeps the figures fresh that are exported. Whoever scrapes gathers them itself.
async fn export(engine: Engine) {
    loop {
        engine.observe().await;
        tokio::time::sleep(OBSERVE_INTERVAL).await;
    }
}

/// Gives the streams of an engine that was there as much as was asked for; a new one has it.
async fn enlarge_streams(engine: &Engine, room_bytes: i64) -> Result<(), CliError> {
    let ports = engine.ports();
    let topology = Topology { partitions: ports.facts.partitions, ..Topology::default() };
    let specs = topology.fitted_to(room_bytes).streams();
    let enlargement = Enlargement::plan(&ports.broker, &specs).await?;
    for Enlarged { stream, from_bytes, to_bytes } in enlargement.make(&ports.broker).await? {
        tracing::warn!(stream, from_bytes, to_bytes, "a stream was enlarged (`--stream-room`)");
    }
    Ok(())
}

fn audit_key_file(start: &Start<'_>) -> PathBuf {
    start.engine.audit_key.clone().unwrap_or_else(|| start.data_dir.join(AUDIT_KEY_FILE))
}

fn engine_config(
    start: &Start<'_>,
    file: EngineFile,
    room_bytes: i64,
) -> Result<EngineConfig, CliError> {
    let data_dir = start.data_dir;
    let key_file = audit_key_file(start);
    let (partitions, replicas) = (start.engine.partitions, usize::from(start.engine.replicas));
    let topology = Topology { partitions, replicas, ..Topology::default() };
    Ok(EngineConfig {
        nats_url: String::new(),
        monitor_url: None,
        worker: worker_name(start)?,
        roles: start.roles.clone(),
        topology: topology.fitted_to(room_bytes),
        executors: file.executors(start.engine),
        signer: signer(&key_file, start.engine.audit_key.is_some())?,
        engine: format!("fermata-{}", short_random()),
        belongs_to: engine_of(data_dir)?,
        checkpoint_dir: data_dir.join("checkpoints"),
        read_model_dir: data_dir.join("read-model"),
        snapshots: SnapshotPolicy {
            archive_retention_ms: start.engine.archive_retention_ms(),
            ..SnapshotPolicy::default()
        },
        replay_keys: replay_keys(start.engine.replay_secrets.as_deref())?,
        queues: start.engine.served_queues(),
        keys_max: start.engine.keys_max(),
    })
}

/// The variable that holds secrets of replays, where no file does.
const REPLAY_SECRETS_VARIABLE: &str = "FERMATA_REPLAY_SECRETS";

/// The secrets that requests to replay are signed and verified with; none when
/// neither the file nor the variable is there.
///
/// # Errors
///
/// When the file cannot be read, or what is there are no secrets.
pub fn replay_keys(file: Option<&Path>) -> Result<ReplayKeys, CliError> {
    let (name, text) = match file {
        Some(file) => {
            let name = format!("`{}`", file.display());
            let text =
                std::fs::read_to_string(file).map_err(CliError::io(format!("read {name}")))?;
            (name, text)
        }
        None => {
            let text = std::env::var(REPLAY_SECRETS_VARIABLE).unwrap_or_default();
            (REPLAY_SECRETS_VARIABLE.to_owned(), text)
        }
    };
    ReplayKeys::parse(&text).map_err(|error| CliError::Usage(format!("{name}: {error}")))
}

fn short_random() -> String {
    crate::broker_session::random_id().simple().to_string().chars().take(12).collect()
}

/// The file in which an engine's folder keeps the name of its worker.
#[must_use]
pub fn worker_file(data_dir: &Path) -> PathBuf {
    data_dir.join("worker")
}

/// The name given, or the one that this folder has had since it was made.
fn worker_name(start: &Start<'_>) -> Result<String, CliError> {
    if let Some(name) = start.name {
        if !is_worker_name(name) {
            let refused =
                format!("`{name}` cannot name a worker; use letters, digits, `-` and `_`");
            return Err(CliError::Usage(refused));
        }
        return Ok(name.to_owned());
    }
    let file = worker_file(start.data_dir);
    match std::fs::read_to_string(&file) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Ok(_) | Err(_) => {
            let name = format!("worker-{}", short_random());
            write_line(&file, &name)?;
            Ok(name)
        }
    }
}

fn write_line(file: &Path, line: &str) -> Result<(), CliError> {
    std::fs::write(file, format!("{line}\n"))
        .map_err(CliError::io(format!("write `{}`", file.display())))
}

/// The key in `file`, made where it is not there: only its owner may read it. A file that was named is there: in the place of
/// a name that was mistyped a new engine would get a key that nobody meant.
fn signer(file: &Path, is_named: bool) -> Result<Signer, CliError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Signer::parse(text.trim())?),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_named => {
            Err(CliError::Usage(format!(
                "there is no file `{}` (`--audit-key`); copy it from the engine that has it, or leave \
                 `--audit-key` out for a new engine: a key is made as `{AUDIT_KEY_FILE}` in the data folder",
                file.display()
            )))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let signer = Signer::from_seed(KEY_NAME, rand::random())?;
            write_secret(file, &signer.to_private_text())
                .map_err(CliError::io(format!("write `{}`", file.display())))?;
            Ok(signer)
        }
        Err(error) => Err(CliError::io(format!("read `{}`", file.display()))(error)),
    }
}

fn write_secret(file: &Path, text: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(file)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_where_none_was_named_and_not_in_the_place_of_one_that_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(AUDIT_KEY_FILE);

        let refused = signer(&file, true).unwrap_err().to_string();
        assert!(refused.contains("leave `--audit-key` out"), "{refused}");
        assert!(!file.exists());
        let made = signer(&file, false).unwrap().vkey();
        assert_eq!(signer(&file, true).unwrap().vkey(), made);
    }
}
