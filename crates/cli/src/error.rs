//! What can go wrong, and what the program's exit code says about it.

mod advice;
mod exit_code;

use std::io;

use fermata_actors::definitions::ProjectionError;
use fermata_actors::journal_archive::ArchiveError;
use fermata_jetstream::api::ApiError;
use fermata_jetstream::connection::ConnectError;
use fermata_jetstream::core_messages::CoreMessageError;
use fermata_jetstream::definitions_store::StoreError;
use fermata_jetstream::leases::LeaseError;
use fermata_jetstream::publisher::PublisherError;
use fermata_jetstream::reader::{FollowError, ReadError};
use fermata_jetstream::server::ServerError;
use fermata_jetstream::topology::{EnlargeError, TopologyError};
use fermata_wire::WireError;
use thiserror::Error;

use crate::local_engine::{BROKER_RESTARTS_MAX, BROKER_RESTARTS_WINDOW};
use crate::telemetry::TelemetryError;

pub use exit_code::{EXIT_CODES_HELP, ExitCode};

pub use advice::{after_connect, in_one_line, reasons};
use advice::{after_io, after_missing};

/// Why a command did not do its work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CliError {
    /// The arguments do not go together, or name something unusable.
    #[error("{0}")]
    Usage(String),
    /// A file or stream of the operating system failed.
    #[error("could not {action}{}", after_io(source))]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nothing could be written to standard output.
    #[error("could not write the output")]
    Output(#[from] io::Error),
    /// Nobody says where the broker is.
    #[error(
        "no broker is known: `{url_file}` is not there; start one with `fermata up`, or name one with `--nats-url`"
    )]
    NoBroker {
        /// The file that a running local engine writes.
        url_file: String,
    },
    /// The broker cannot be reached.
    #[error("the broker cannot be reached; {}", after_connect(.0))]
    Connect(#[from] ConnectError),
    /// The port that the engine's own broker was to have is another program's.
    #[error(
        "port {port} is held by another program, perhaps by another `fermata up` or nats-server (`ss -ltnp 'sport = \
         :{port}'` shows which): end that, name another port with `--port`, or use the broker that is there with \
         `--nats-url nats://127.0.0.1:{port}`"
    )]
    PortTaken {
        /// Which.
        port: u16,
        /// What the server said.
        #[source]
        source: ServerError,
    },
    /// The engine's own broker does not stay.
    #[error(
        "the engine's own broker ended, and was started again {} times within {} min in vain; all that was stored is \
         there when `fermata up` is started anew; `{log}` says why it ended",
        BROKER_RESTARTS_MAX,
        BROKER_RESTARTS_WINDOW.as_secs() / 60
    )]
    BrokerEnded {
        /// The file that it writes.
        log: String,
        /// Why it could not be started, where that was so.
        #[source]
        last: Option<ServerError>,
    },
    /// No engine was ever started on the broker.
    #[error("no engine was ever started on this broker; start one with `fermata up`")]
    NoEngine,
    /// The address in the folder leads to another engine by now.
    #[error(
        "the engine of this folder does not run any more: at {url}, where `{url_file}` says that it is, another one \
         answers (`{found}` instead of `{kept}`); start this folder's engine again with `fermata up`, or name the \
         broker of the other one with `--nats-url {url}`"
    )]
    OtherEngine {
        /// Where the folder says that the broker is.
        url: String,
        /// The file that says so.
        url_file: String,
        /// The engine that is there.
        found: String,
        /// The engine of the folder.
        kept: String,
    },
    /// The broker of a running engine has another one by now.
    #[error(
        "{replaced}. Have the data of `{}` back and start this again; or, if it is to work for what is there now, name a \
         new folder with `--data-dir`, or remove `{engine_file}` first",
        .replaced.engine
    )]
    EngineReplaced {
        /// What is there.
        replaced: fermata_actors::engine::EngineReplaced,
        /// The file that says whose the folder is.
        engine_file: String,
    },
    /// Nobody answered in time.
    #[error("no engine answered within {seconds} s; {what_now}")]
    NoAnswer {
        /// How long was waited.
        seconds: u64,
        /// What the person should know or do.
        what_now: String,
    },
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The broker refused a message or did not answer.
    #[error("{} `{subject}`: {reason}", not_stored(*unknown))]
    NotStored {
        /// Where it was to go.
        subject: String,
        /// What happened.
        reason: String,
        /// Whether it may be stored all the same.
        unknown: bool,
    },
    /// The broker did not answer in time for an event, which may be stored.
    #[error(
        "the broker did not answer in time, so nobody knows whether the event for `{subject}` is stored. Publish it \
         again {}: if it is, that is recognised, and nothing starts twice",
        id.as_ref().map_or("with the id that it has".to_owned(), |id| format!("with `--id {id}`"))
    )]
    MaybePublished {
        /// Where it was to go.
        subject: String,
        /// Its id, where whoever published it did not write it into a file.
        id: Option<String>,
    },
    /// Nobody took a message, for no server led its stream.
    #[error(
        "no server has led the stream of `{subject}` for {seconds} s; `fermata doctor` tells what is missing"
    )]
    NotLed {
        /// Where it was to go.
        subject: String,
        /// How long it was tried.
        seconds: u64,
    },
    /// What was asked for is not safe as things stand, and nothing was done.
    #[error("{0}")]
    Refused(String),
    /// The broker has not the room that an engine's streams need, and none was made.
    #[error("{0}")]
    NoRoom(String),
    /// A stream of the engine is gone.
    #[error(
        "the broker does not have the engine's stream `{stream}`; `fermata doctor` says what is missing{}",
        after_missing(stream)
    )]
    NoStream {
        /// Which.
        stream: String,
    },
    /// A stream could not be read.
    #[error(transparent)]
    Read(ReadError),
    /// A stream could not be followed.
    #[error(transparent)]
    Follow(FollowError),
    /// An archived journal cannot be read.
    #[error(transparent)]
    Archive(ArchiveError),
    /// Definitions or plans could not be stored or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is active cannot be had.
    #[error(
        "the active definitions cannot be read; the engine that owns `control` projects them again"
    )]
    Definitions(#[source] ProjectionError),
    /// A message without a stream failed.
    #[error(transparent)]
    CoreMessage(#[from] CoreMessageError),
    /// No publisher could be made.
    #[error(transparent)]
    Publisher(#[from] PublisherError),
    /// Leases could not be read.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The streams could not be compared.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Streams could not be enlarged.
    #[error(transparent)]
    Enlarge(#[from] EnlargeError),
    /// The local server could not be found or started.
    #[error(transparent)]
    Server(ServerError),
    /// Stored bytes cannot be read.
    #[error("could not read {what}")]
    Unreadable {
        /// What.
        what: String,
        /// Why not.
        #[source]
        source: WireError,
    },
    /// Bytes could not be written as a message.
    #[error(transparent)]
    Encode(#[from] WireError),
    /// JSON that should be readable is not.
    #[error("could not read {what}")]
    Json {
        /// What.
        what: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// What was given to a command is not the JSON that it should be.
    #[error("{what} is no JSON")]
    Given {
        /// What.
        what: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The audit key cannot be used.
    #[error("the audit key is no verification key")]
    Key(#[from] fermata_audit::KeyError),
    /// Logs, traces or metrics could not be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// Anything that a command's own parts report.
    #[error("{action} failed")]
    Failed {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CliError {
    /// What the shell is told.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_)
            | Self::Io { .. }
            | Self::Given { .. }
            | Self::Key(_)
            | Self::Telemetry(_) => ExitCode::Usage,
            Self::NoBroker { .. }
            | Self::Connect(_)
            | Self::PortTaken { .. }
            | Self::NoEngine
            | Self::OtherEngine { .. }
            | Self::EngineReplaced { .. }
            | Self::NoAnswer { .. }
            | Self::NotStored { unknown: true, .. }
            | Self::MaybePublished { .. }
            | Self::NotLed { .. }
            | Self::CoreMessage(_)
            | Self::BrokerEnded { .. }
            | Self::Definitions(_)
            | Self::NoRoom(_)
            | Self::NoStream { .. } => ExitCode::Unreachable,
            // What the environment names is as what the command line names.
            Self::Server(ServerError::Named { .. }) => ExitCode::Usage,
            Self::Server(_) => ExitCode::Unreachable,
            Self::NotStored { unknown: false, .. } | Self::Refused(_) => ExitCode::Findings,
            Self::NotFound(_) => ExitCode::NotFound,
            Self::Read(error) => of_read(error),
            Self::Follow(error) => of_follow(error),
            Self::Archive(ArchiveError::Follow(error)) => of_follow(error),
            Self::Archive(ArchiveError::Read(error)) => of_read(error),
            Self::Store(error) | Self::Archive(ArchiveError::Store(error)) => of_store(error),
            Self::Archive(
                ArchiveError::Segment { .. } | ArchiveError::Wire(_) | ArchiveError::Removed(_),
            ) => ExitCode::Internal,
            Self::Topology(error) => of_topology(error),
            Self::Enlarge(error) => of_topology(&error.source),
            Self::Publisher(_)
            | Self::Lease(_)
            | Self::Output(_)
            | Self::Unreadable { .. }
            | Self::Encode(_)
            | Self::Json { .. }
            | Self::Failed { .. } => ExitCode::Internal,
        }
    }

    /// Whether whoever reads our output has gone away.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Says that a file operation failed.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Says that `what` cannot be decoded.
    pub fn unreadable(what: impl Into<String>) -> impl FnOnce(WireError) -> Self {
        let what = what.into();
        move |source| Self::Unreadable { what, source }
    }
}

fn not_stored(unknown: bool) -> &'static str {
    match unknown {
        true => "nobody knows whether the broker stored the message for",
        false => "the broker did not take the message for",
    }
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::PortTaken { port, .. } => Self::PortTaken { port, source: error },
            ServerError::NotFound { .. }
            | ServerError::TooOld { .. }
            | ServerError::NoVersion { .. }
            | ServerError::Named { .. }
            | ServerError::DataFolderInUse { .. }
            | ServerError::Io { .. }
            | ServerError::EndedEarly { .. }
            | ServerError::NotReady { .. }
            | ServerError::NoLeader { .. } => Self::Server(error),
        }
    }
}

impl From<ProjectionError> for CliError {
    fn from(error: ProjectionError) -> Self {
        match error {
            ProjectionError::Store(error) => Self::Store(error),
            ProjectionError::Message(source) => Self::unreadable("the active definitions")(source),
            error @ (ProjectionError::Missing { .. }
            | ProjectionError::Silent { .. }
            | ProjectionError::Damaged { .. }
            | ProjectionError::Unsound(_)) => Self::Definitions(error),
        }
    }
}

impl From<ReadError> for CliError {
    fn from(error: ReadError) -> Self {
        match missing_stream(&error) {
            Some(stream) => Self::NoStream { stream },
            None => Self::Read(error),
        }
    }
}

impl From<FollowError> for CliError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Read { stream, source } if source.is_stream_not_found() => {
                Self::NoStream { stream }
            }
            FollowError::Read { .. } | FollowError::Gap { .. } | FollowError::EndsBefore { .. } => {
                Self::Follow(error)
            }
        }
    }
}

impl From<ArchiveError> for CliError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Follow(FollowError::Read { stream, source })
                if source.is_stream_not_found() =>
            {
                Self::NoStream { stream }
            }
            ArchiveError::Read(source) if source.is_stream_not_found() => source.into(),
            ArchiveError::Store(_)
            | ArchiveError::Follow(_)
            | ArchiveError::Read(_)
            | ArchiveError::Segment { .. }
            | ArchiveError::Wire(_)
            | ArchiveError::Removed(_) => Self::Archive(error),
        }
    }
}

/// The stream that is not there, if that is what is wrong.
fn missing_stream(error: &ReadError) -> Option<String> {
    if !error.is_stream_not_found() {
        return None;
    }
    match error {
        ReadError::Message { stream, .. } => Some(stream.clone()),
        // Requests about a stream end in its name.
        ReadError::Api(ApiError::Refused { request, .. }) => {
            request.rsplit('.').next().map(str::to_owned)
        }
        ReadError::Api(_) | ReadError::Subscribe(_) => None,
    }
}

fn of_read(error: &ReadError) -> ExitCode {
    match error {
        ReadError::Api(error) => of_api(error),
        ReadError::Message { .. } | ReadError::Subscribe(_) => ExitCode::Unreachable,
    }
}

fn of_follow(error: &FollowError) -> ExitCode {
    match error {
        FollowError::Read { source, .. } => of_read(source),
        FollowError::Gap { .. } | FollowError::EndsBefore { .. } => ExitCode::Internal,
    }
}

fn of_topology(error: &TopologyError) -> ExitCode {
    match error {
        TopologyError::NoRoom { .. } | TopologyError::NotAllFit(_) => ExitCode::Unreachable,
        TopologyError::Api { source, .. } => of_api(source),
    }
}

/// What the store refuses, for want of room first of all, is the broker's.
fn of_store(error: &StoreError) -> ExitCode {
    match error {
        StoreError::Broker { .. } => ExitCode::Unreachable,
        StoreError::Damaged { .. } | StoreError::TooLarge { .. } => ExitCode::Internal,
    }
}

fn of_api(error: &ApiError) -> ExitCode {
    match error {
        ApiError::NoAnswer { .. }
        | ApiError::NoResponders { .. }
        | ApiError::CutOff { .. }
        | ApiError::NotSent { .. } => ExitCode::Unreachable,
        ApiError::Refused { .. } | ApiError::Unreadable { .. } => ExitCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_exit_code() {
        let codes = [
            ExitCode::Success,
            ExitCode::Findings,
            ExitCode::Usage,
            ExitCode::Unreachable,
            ExitCode::NotFound,
            ExitCode::Internal,
            ExitCode::Interrupted,
        ];
        for code in codes {
            let line = format!("\n  {:<4}", code.number());
            assert!(EXIT_CODES_HELP.contains(&line), "{code:?}");
        }
    }

    #[test]
    fn the_page_of_commands_lists_the_exit_codes_that_the_help_lists() {
        let lines = EXIT_CODES_HELP.lines().skip(1);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let listed = lines.map(words).collect::<Vec<_>>().join("; ");

        let page = include_str!("../../../docs/cli.md");
        assert!(page.contains(&format!("Exit codes: {listed}.\n")), "docs/cli.md lacks: {listed}");
    }

    #[test]
    fn a_reader_that_went_away_is_told_from_a_full_disk() {
        let gone = CliError::Output(io::ErrorKind::BrokenPipe.into());
        let full = CliError::Output(io::ErrorKind::StorageFull.into());

        assert!(gone.is_broken_pipe() && !full.is_broken_pipe());
    }
}
