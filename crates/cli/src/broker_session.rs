//! The way to the broker and to the engine on it.

use std::time::{Duration, Instant};

use fermata_actors::definitions::active_definitions;
use fermata_core::command::Command;
use fermata_core::identity::PartitionId;
use fermata_core::partition::Definitions;
use fermata_jetstream::connection::ConnectOptions;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_jetstream::engine_config::read_engine_config;
use fermata_jetstream::{Broker, Bytes, PublishOutcome, Publisher, PublisherOptions, Refusal};
use fermata_wire::commands::CommandFrame;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::arguments::GlobalArguments;
use crate::error::CliError;

/// How long a command waits for the engine's answer: a partition whose owner was
/// killed is taken over after its lease of 15 s has expired and its journal was replayed.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long the first connect is tried: who types a command waits for it.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// How long a command waits for servers that elect who leads the stream CONFIG, the first that it
/// reads: they take 4 to 9 s when one of them just falls silent. A stream that nobody may ask is told as late.
const ELECTION_LIMIT: Duration = Duration::from_secs(10);

/// Pause before it is read again.
const ELECTION_PAUSE: Duration = Duration::from_millis(200);

/// What every starter of the engine agreed on, as it stands in the stream CONFIG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineConfig {
    /// Names the engine; its audit logs are `<engine>/<partition>`.
    pub engine: String,
    /// How many data partitions there are.
    pub partitions: u16,
    /// Key that checkpoints are verified with.
    pub audit_vkey: String,
    /// Version of this message.
    pub version: u32,
}

impl EngineConfig {
    /// Every partition, the control partition first.
    #[must_use]
    pub fn partition_ids(&self) -> Vec<PartitionId> {
        std::iter::once(PartitionId::CONTROL).chain((0..self.partitions).map(PartitionId)).collect()
    }

    /// Name of a partition's audit log.
    #[must_use]
    pub fn audit_origin(&self, partition: PartitionId) -> String {
        format!("{}/{partition}", self.engine)
    }
}

/// Connections to the broker, and what is needed to talk to the engine.
#[derive(Debug, Clone)]
pub struct BrokerSession {
    broker: Broker,
    /// What was read already: it never changes.
    config: Option<EngineConfig>,
}

/// The address of the broker: the one named, or that of the running local engine.
///
/// # Errors
///
/// [`CliError::NoBroker`] when neither is there.
pub fn broker_url(global: &GlobalArguments) -> Result<String, CliError> {
    if let Some(url) = &global.nats_url {
        return Ok(url.clone());
    }
    let url_file = global.url_file();
    match std::fs::read_to_string(&url_file) {
        Ok(url) if !url.trim().is_empty() => Ok(url.trim().to_owned()),
        Ok(_) | Err(_) => Err(CliError::NoBroker { url_file: url_file.display().to_string() }),
    }
}

impl BrokerSession {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When no broker is known, or none answers; [`CliError::OtherEngine`] when the address is the
    /// folder's and leads to an engine that is not the folder's.
    ///
    /// # Cancel safety
    ///
    /// Nothing stays open when dropped.
    pub async fn open(global: &GlobalArguments) -> Result<Self, CliError> {
        let url = broker_url(global)?;
        let is_of_folder = global.nats_url.is_none();
        // The engine of this folder starts its own broker again where that ends; one that was named is there or not.
        let mut session = Self::connect(&url, is_of_folder).await?;
        if is_of_folder {
            session.check_engine(global, url).await?;
        }
        Ok(session)
    }

    /// An engine that was killed leaves its address behind, and the port may be another engine's by now.
    async fn check_engine(
        &mut self,
        global: &GlobalArguments,
        url: String,
    ) -> Result<(), CliError> {
        let Ok(kept) = std::fs::read_to_string(global.engine_file()) else { return Ok(()) };
        // Where it cannot be read, the command itself will say so, in its own words.
        let Ok(Some(stored)) = read_engine_config(&self.broker).await else { return Ok(()) };
        self.config = serde_json::from_slice(&stored.payload).ok();
        match &self.config {
            Some(config) if config.engine != kept.trim() => Err(CliError::OtherEngine {
                url,
                url_file: global.url_file().display().to_string(),
                found: config.engine.clone(),
                kept: kept.trim().to_owned(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Connects to `url`.
    ///
    /// # Errors
    ///
    /// When no broker answers there.
    ///
    /// # Cancel safety
    ///
    /// Nothing stays open when dropped.
    pub async fn open_url(url: &str) -> Result<Self, CliError> {
        Self::connect(url, false).await
    }

    async fn connect(url: &str, awaits_listener: bool) -> Result<Self, CliError> {
        let options = ConnectOptions {
            name: "fermata-cli".to_owned(),
            connect_limit: CONNECT_LIMIT,
            awaits_listener,
            ..ConnectOptions::default()
        };
        Ok(Self { broker: Broker::connect(url, options).await?, config: None })
    }

    /// The connections.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// What the engine's starters agreed on.
    ///
    /// # Errors
    ///
    /// [`CliError::NoEngine`] when no engine was ever started here.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn engine_config(&self) -> Result<EngineConfig, CliError> {
        if let Some(config) = &self.config {
            return Ok(config.clone());
        }
        let begun = Instant::now();
        let read = loop {
            match read_engine_config(&self.broker).await {
                Err(error) if error.is_of_an_election() && begun.elapsed() < ELECTION_LIMIT => {
                    tokio::time::sleep(ELECTION_PAUSE).await;
                }
                read => break read,
            }
        };
        let stored = match read {
            Ok(stored) => stored.ok_or(CliError::NoEngine)?,
            Err(error) if error.is_stream_not_found() => return Err(CliError::NoEngine),
            Err(error) if error.is_of_an_election() => return Err(error.into()),
            // Reading a message of a stream that is not there is told in other words.
            Err(error) => {
                let state = fermata_jetstream::StreamReader::new(&self.broker)
                    .stream_state(fermata_jetstream::topology::CONFIG_STREAM)
                    .await;
                return match state {
                    Err(state) if state.is_stream_not_found() => Err(CliError::NoEngine),
                    Ok(_) | Err(_) => Err(error.into()),
                };
            }
        };
        serde_json::from_slice(&stored.payload).map_err(|source| CliError::Json {
            what: "the engine's configuration".to_owned(),
            source,
        })
    }

    /// A publisher over the publishing connection.
    ///
    /// # Errors
    ///
    /// When the connection is closed.
    ///
    /// # Cancel safety
    ///
    /// Nothing stays behind when dropped.
    pub async fn publisher(&self) -> Result<Publisher, CliError> {
        Ok(Publisher::new(&self.broker, PublisherOptions::default()).await?)
    }

    /// The bucket of definitions and the store of plans.
    ///
    /// # Errors
    ///
    /// [`CliError::NoEngine`] when no engine was ever started here.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn definitions_store(&self) -> Result<DefinitionsStore, CliError> {
        self.engine_config().await?;
        Ok(DefinitionsStore::open(&self.broker).await?)
    }

    /// The active definitions, as the control partition projects them; none before the first.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn active_definitions(&self) -> Result<Definitions, CliError> {
        let store = self.definitions_store().await?;
        Ok(active_definitions(&store).await?)
    }

    /// Sends a command to a partition and waits for the answer. `command` is made for the
    /// subject to answer to.
    ///
    /// The command is stored before the wait: with no answer it is decided when an engine runs.
    ///
    /// # Errors
    ///
    /// [`CliError::NotStored`], or [`CliError::NoAnswer`] after [`ANSWER_LIMIT`].
    ///
    /// # Cancel safety
    ///
    /// When dropped, the command may be stored.
    pub async fn ask_partition(
        &self,
        partition: PartitionId,
        limit: Duration,
        command: impl FnOnce(std::sync::Arc<str>) -> Command,
    ) -> Result<Value, CliError> {
        let inbox = format!("_INBOX.{}", random_id().simple());
        let mut answers = CoreMessages::new(&self.broker).subscribe(&inbox).await?;
        let frame = CommandFrame { floor: 0, commands: vec![command(inbox.into())] };
        let publisher = self.publisher().await?;
        let subject = fermata_wire::subjects::commands(partition);
        let payload = Bytes::from(frame.encode()?);
        let publish =
            async || publisher.publish(subject.clone(), None, payload.clone()).await.await;
        stored_by(&self.broker, &subject, publish).await?;
        match tokio::time::timeout(limit, answers.next()).await {
            Ok(Some(answer)) => serde_json::from_slice(&answer.payload).map_err(|source| {
                CliError::Json { what: "the engine's answer".to_owned(), source }
            }),
            Ok(None) | Err(_) => Err(CliError::NoAnswer {
                seconds: limit.as_secs(),
                what_now: "the command is stored and will be decided when an engine runs; \
                           `fermata doctor` tells what is missing"
                    .to_owned(),
            }),
        }
    }
}

/// The sequence at which a message is stored by `publish`. That is made again for a while when nobody
/// answers, which is how a stream shows that its servers elect who leads it; nothing is stored then.
///
/// # Errors
///
/// [`CliError::NotStored`], with a reason for people; [`CliError::NoEngine`] where no engine was started,
/// and [`CliError::NotLed`] after 10 s.
///
/// # Cancel safety
///
/// When dropped, the message may be stored.
pub async fn stored_by(
    broker: &Broker,
    subject: &str,
    publish: impl AsyncFn() -> PublishOutcome,
) -> Result<u64, CliError> {
    let begun = Instant::now();
    loop {
        match stored_sequence(subject, &publish().await) {
            Err(CliError::NoEngine) if has_engine(broker).await => {}
            answered => return answered,
        }
        if begun.elapsed() >= ELECTION_LIMIT {
            let (subject, seconds) = (subject.to_owned(), ELECTION_LIMIT.as_secs());
            return Err(CliError::NotLed { subject, seconds });
        }
        tokio::time::sleep(ELECTION_PAUSE).await;
    }
}

/// Whether an engine was started here once, as far as anybody can tell.
async fn has_engine(broker: &Broker) -> bool {
    match read_engine_config(broker).await {
        Ok(stored) => stored.is_some(),
        Err(error) => !error.is_stream_not_found(),
    }
}

/// The sequence at which a message is stored.
///
/// # Errors
///
/// [`CliError::NotStored`], with a reason for people.
pub fn stored_sequence(subject: &str, outcome: &PublishOutcome) -> Result<u64, CliError> {
    let (reason, unknown) = match outcome {
        PublishOutcome::Stored { sequence, .. } => return Ok(*sequence),
        PublishOutcome::Refused { refusal: Refusal::NoResponders, .. } => {
            return Err(CliError::NoEngine);
        }
        PublishOutcome::Refused { refusal: Refusal::StreamFull, code, description, .. } => (
            format!(
                "{description} (code {code}); `fermata doctor` says which stream is full, and what gives it room"
            ),
            false,
        ),
        PublishOutcome::Refused { code, description, .. } => {
            (format!("{description} (code {code})"), false)
        }
        PublishOutcome::Unknown => ("the broker did not answer in time".to_owned(), true),
    };
    Err(CliError::NotStored { subject: subject.to_owned(), reason, unknown })
}

/// A random UUID (RFC 9562, version 4).
#[must_use]
pub fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

/// Who asks, when nobody says so: the user of the operating system, by number where
/// the environment has no name (in a container, say).
#[must_use]
pub fn asking_user() -> String {
    ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .or_else(user_number)
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(unix)]
fn user_number() -> Option<String> {
    let user = rustix::process::getuid();
    Some(if user.is_root() { "root".to_owned() } else { format!("uid {}", user.as_raw()) })
}

#[cfg(not(unix))]
fn user_number() -> Option<String> {
    None
}
