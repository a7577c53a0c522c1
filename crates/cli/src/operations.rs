//! How this process answers whoever operates it: the HTTP endpoints of
//! `fermata-api`, in front of the engine.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use fermata_actors::Engine;
use fermata_actors::receipts::{Receipts, ReceiptsError};
use fermata_actors::replay_requests::{self, ReplayRequestError};
use fermata_api::{
    Identity, Obstacle, Operated, Problem, ReceiptProblem, Replay, ReplayProblem, ReplayRequest,
    Server,
};
use fermata_core::flags::Flag;
use fermata_core::identity::PartitionId;
use fermata_wire::replay::{ReplayHeaders, ReplayRefusal};
use tokio::task::JoinHandle;

use crate::error::CliError;
use crate::telemetry;

/// Address of the endpoints when none is named: the port that Prometheus
/// exporters of OpenTelemetry have by convention.
pub const HTTP_ADDRESS_DEFAULT: &str = "127.0.0.1:9464";

/// Name of the file in the data folder in which a running process tells where its
/// endpoints are.
pub const HTTP_FILE: &str = "fermata.http";

/// Running endpoints; they end with the value.
#[derive(Debug)]
pub struct Endpoints {
    url: String,
    file: PathBuf,
    engine: Arc<OnceLock<Started>>,
    server: JoinHandle<()>,
}

/// What is asked once the engine has started.
#[derive(Debug)]
struct Started {
    engine: Engine,
    receipts: Receipts,
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.server.abort();
        // A file that tells of a process which is gone only misleads.
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Endpoints {
    /// Answers at `address` from now on, before the engine has started: the
    /// process lives, and is not ready. Tells where in `file`. Receipts are given to whoever asks,
    /// or to nobody.
    ///
    /// # Errors
    ///
    /// When the address is taken, or the file cannot be written.
    ///
    /// # Cancel safety
    ///
    /// The address is free again when dropped.
    pub async fn start(
        address: SocketAddr,
        worker: String,
        receipts: bool,
        file: PathBuf,
    ) -> Result<Self, CliError> {
        let server = Server::bind(address).await.map_err(|error| not_bound(address, error))?;
        let url = format!("http://{}", server.address());
        std::fs::write(&file, format!("{url}\n"))
            .map_err(CliError::io(format!("write `{}`", file.display())))?;
        let engine = Arc::<OnceLock<Started>>::default();
        let version = env!("CARGO_PKG_VERSION");
        let identity = Identity { worker, version, since: Instant::now() };
        let operated = OperatedEngine { identity, receipts, engine: engine.clone() };
        let server = tokio::spawn(server.run(Arc::new(operated)));
        Ok(Self { url, file, engine, server })
    }

    /// Where they are, as in `http://127.0.0.1:9464`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The engine has started: from here on it is asked.
    pub fn started(&self, engine: &Engine) {
        // There is one engine in a process.
        let receipts = Receipts::new(engine.ports().clone());
        let _ = self.engine.set(Started { engine: engine.clone(), receipts });
    }
}

/// Why nothing can answer at `address`, and what to do.
fn not_bound(address: SocketAddr, error: io::Error) -> CliError {
    let (ip, port) = (address.ip(), address.port());
    let other = SocketAddr::new(ip, 0);
    let why = if error.kind() == io::ErrorKind::AddrInUse {
        format!(
            "port {port} of {ip} is held by another program, perhaps by another `fermata up` or worker (`ss -ltnp \
             'sport = :{port}'` shows which): end that, or name another address; `--http {other}` takes a port that \
             is free"
        )
    } else if error.kind() == io::ErrorKind::AddrNotAvailable {
        format!(
            "this machine has no address {ip}: name one that it has, or 0.0.0.0 for all of them"
        )
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        format!(
            "port {port} is not for every user: name one from 1024, or start the process as a user who may"
        )
    } else {
        return CliError::io(format!("listen at `{address}` (`--http`)"))(error);
    };
    CliError::Usage(format!("nothing can answer at `{address}` (`--http`): {why}"))
}

struct OperatedEngine {
    identity: Identity,
    /// Whether receipts are given.
    receipts: bool,
    engine: Arc<OnceLock<Started>>,
}

impl OperatedEngine {
    fn engine(&self) -> Option<&Engine> {
        self.engine.get().map(|started| &started.engine)
    }
}

impl Operated for OperatedEngine {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    async fn obstacles(&self) -> Vec<Obstacle> {
        let Some(engine) = self.engine() else {
            let detail = "the engine is starting".to_owned();
            return vec![Obstacle { code: "starting", detail }];
        };
        let obstacles = engine.obstacles().await.into_iter();
        obstacles.map(|found| Obstacle { code: found.code(), detail: found.to_string() }).collect()
    }

    fn switched_off(&self) -> Vec<&'static str> {
        let Some(engine) = self.engine() else { return Vec::new() };
        let definitions = engine.ports().definitions.borrow().clone();
        let off = Flag::ALL.into_iter().filter(|flag| !definitions.flags.is_on(*flag));
        off.map(Flag::as_str).collect()
    }

    async fn metrics(&self) -> Result<String, String> {
        if let Some(engine) = self.engine() {
            engine.observe().await;
        }
        telemetry::scrape().map_err(|error| error.to_string())
    }

    async fn receipts(
        &self,
        partition: &str,
        records: BTreeSet<u64>,
    ) -> Result<Vec<String>, Problem> {
        if !self.receipts {
            let detail = "start the process with `--http-receipts`; they name tenants and runs";
            return Err(Problem::receipts(ReceiptProblem::NotServed, detail.to_owned()));
        }
        let Some(started) = self.engine.get() else {
            let detail = "the engine is starting".to_owned();
            return Err(Problem::receipts(ReceiptProblem::Unavailable, detail));
        };
        let Ok(partition) = partition.parse::<PartitionId>() else {
            let detail = format!("`{partition}` is no partition: a number, or `control`");
            return Err(Problem::receipts(ReceiptProblem::NotFound, detail));
        };
        let receipts = started.receipts.of(partition, &records).await;
        let receipts = receipts.map_err(|error| receipts_problem(&error))?;
        let texts = receipts.iter().map(fermata_audit::Receipt::to_json);
        let texts = texts.collect::<Result<_, _>>();
        texts.map_err(|error| Problem::receipts(ReceiptProblem::Unsound, error.to_string()))
    }

    fn verify_replay(&self, request: &ReplayRequest) -> Result<(), Problem> {
        let Some(engine) = self.engine() else {
            let detail = "the engine is starting".to_owned();
            return Err(Problem::replay(ReplayProblem::Unavailable, detail));
        };
        let headers = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        replay_requests::verify(engine.ports(), ReplayHeaders::new(headers), &request.body)
            .map_err(|error| Problem::replay(kind_of(&error), error.to_string()))
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Vec<Replay>, Problem> {
        let Some(engine) = self.engine() else {
            let detail = "the engine is starting".to_owned();
            return Err(Problem::replay(ReplayProblem::Unavailable, detail));
        };
        let headers = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers = ReplayHeaders::new(headers);
        let stored = replay_requests::take(engine.ports(), headers, &request.body).await;
        let stored = stored.map_err(|error| Problem::replay(kind_of(&error), error.to_string()))?;
        let replays = stored.into_iter().map(|stored| Replay {
            event: stored.event,
            tenant: stored.tenant,
            replay: stored.replay.to_string(),
            sequence: stored.sequence,
        });
        Ok(replays.collect())
    }
}

fn receipts_problem(error: &ReceiptsError) -> Problem {
    let kind = match error {
        ReceiptsError::TooMany(_) => ReceiptProblem::Malformed,
        ReceiptsError::NoPartition(_) | ReceiptsError::NotSigned { .. } => ReceiptProblem::NotFound,
        ReceiptsError::Reading { .. } | ReceiptsError::Busy(_) => ReceiptProblem::Reading,
        ReceiptsError::TooLarge { .. } => ReceiptProblem::LogTooLarge,
        ReceiptsError::Unsound { .. } => ReceiptProblem::Unsound,
        ReceiptsError::Slow { .. } | ReceiptsError::Message(_) | ReceiptsError::Log(_) => {
            ReceiptProblem::Unavailable
        }
    };
    let source = error.source().map(|source| format!(": {source}"));
    Problem::receipts(kind, format!("{error}{}", source.unwrap_or_default()))
}

fn kind_of(error: &ReplayRequestError) -> ReplayProblem {
    match error {
        ReplayRequestError::Refused(ReplayRefusal::NotConfigured) => ReplayProblem::NotConfigured,
        ReplayRequestError::Refused(
            ReplayRefusal::Unsigned | ReplayRefusal::Expired | ReplayRefusal::Forged,
        ) => ReplayProblem::NotSigned,
        ReplayRequestError::Malformed(_) => ReplayProblem::Malformed,
        ReplayRequestError::TooMany(_) | ReplayRequestError::TooLarge => ReplayProblem::TooLarge,
        ReplayRequestError::Unusable(_) => ReplayProblem::Unusable,
        ReplayRequestError::Differs => ReplayProblem::Differs,
        ReplayRequestError::Unavailable(_) => ReplayProblem::Unavailable,
        ReplayRequestError::Unnamed => ReplayProblem::Unnamed,
    }
}
