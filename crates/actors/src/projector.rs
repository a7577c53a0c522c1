//! Projector: keeps the read model of runs up to date and answers questions about it.
//!
//! ```text
//! JOURNAL_0 ─► follower ─┐
//! JOURNAL_1 ─► follower ─┼─► one thread with the index ◄── questions ◄── fermata.query.*
//!   …                    ┘        (questions first)   ──► answers
//! ```
//!
//! Nothing is decided from what it keeps. Whatever goes wrong, the index is made anew from the
//! journals: the actor fails and the supervisor starts another, which finds an index that was
//! not closed. One process at a time keeps a folder; another waits for it and says so.

mod following;
mod index_thread;
mod pace;
mod progress;
mod questions;
mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fermata_core::digest::Digest;
use fermata_core::identity::PartitionId;
use fermata_jetstream::reader::{FollowError, ReadError};
use fermata_jetstream::topology::journal_stream;
use fermata_store::index::{Origin, StreamOrigin};
use fermata_store::{OpenError, ReadModel, RunIndex, StoreError, StoreLimits};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::ports::Ports;

use index_thread::{IndexThread, QUESTIONS_MAX};
use progress::Progress;
pub use source::{FrameSource, Frames, JournalSource};

/// How often a folder that another process uses is tried again.
pub const LOCK_INTERVAL: Duration = Duration::from_secs(5);

/// Journal messages that wait for the index, each of at most 1 MiB.
pub const FRAMES_HELD_MAX: usize = 16;

/// What a projector is told.
#[derive(Debug)]
pub enum ProjectorMessage {
    /// The work ended by itself.
    Failed(ProjectorError),
}

/// Why the read model cannot be kept at the moment.
#[derive(Debug, Error)]
pub enum ProjectorError {
    /// The folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The index cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A journal cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// A journal cannot be looked at.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nobody can ask.
    #[error(transparent)]
    Questions(#[from] fermata_jetstream::core_messages::CoreMessageError),
    /// A part of it ended without a word.
    #[error("a part of the projector ended: {0}")]
    Ended(&'static str),
}

/// Behaviour and ports.
#[derive(Debug)]
pub struct Projector {
    ports: Ports,
    folder: PathBuf,
}

/// The work, and how to end it.
#[derive(Debug)]
pub struct ProjectorState {
    stop: watch::Sender<bool>,
    work: JoinHandle<()>,
}

impl Projector {
    /// Keeps the read model in `folder`.
    #[must_use]
    pub fn new(ports: Ports, folder: PathBuf) -> Self {
        Self { ports, folder }
    }
}

impl Actor for Projector {
    type Msg = ProjectorMessage;
    type State = ProjectorState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<ProjectorMessage>,
        (): (),
    ) -> Result<ProjectorState, ActorProcessingErr> {
        let (stop, stopped) = watch::channel(false);
        let source = Arc::new(JournalSource::new(self.ports.reader.clone()));
        let projection =
            Projection { ports: self.ports.clone(), folder: self.folder.clone(), source };
        let work = tokio::spawn(async move {
            if let Err(error) = projection.run(stopped).await {
                // An actor that is gone needs no word.
                let _ = myself.cast(ProjectorMessage::Failed(error));
            }
        });
        Ok(ProjectorState { stop, work })
    }

    async fn handle(
        &self,
        _: ActorRef<ProjectorMessage>,
        message: ProjectorMessage,
        _: &mut ProjectorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ProjectorMessage::Failed(error) => Err(Box::new(error)),
        }
    }

    async fn post_stop(
        &self,
        _: ActorRef<ProjectorMessage>,
        state: &mut ProjectorState,
    ) -> Result<(), ActorProcessingErr> {
        state.stop.send_replace(true);
        // The index is closed in order; whoever stops the actor has a limit for it.
        let _ = (&mut state.work).await;
        Ok(())
    }
}

/// One life of a read model, from opening it to closing it.
struct Projection<S> {
    ports: Ports,
    folder: PathBuf,
    source: Arc<S>,
}

impl<S: FrameSource> Projection<S> {
    async fn run(self, mut stopped: watch::Receiver<bool>) -> Result<(), ProjectorError> {
        let model = tokio::select! {
            model = self.open() => model?,
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        };
        let partitions = self.partitions();
        let mut positions = Vec::with_capacity(partitions.len());
        for partition in &partitions {
            positions.push((*partition, model.position(*partition)?.sequence));
        }
        let progress = Progress::new(positions.iter().copied());
        let (frames, frames_in) = mpsc::channel(FRAMES_HELD_MAX);
        let (questions, questions_in) = mpsc::channel(QUESTIONS_MAX);
        let thread = IndexThread { model, frames: frames_in, questions: questions_in };
        let mut thread = thread.start(progress.clone());
        let mut parts = JoinSet::new();
        for (partition, applied) in positions {
            let following = following::Following {
                partition,
                source: self.source.clone(),
                frames: frames.clone(),
            };
            parts.spawn(following.run(applied + 1));
        }
        drop(frames);
        let (reader, core) = (self.ports.reader.clone(), self.ports.core.clone());
        parts.spawn(questions::answer(core, questions, progress.clone()));
        parts.spawn(progress.clone().look_at_ends(reader));
        tokio::select! {
            // A sender that is gone stops, too.
            _ = stopped.wait_for(|stopped| *stopped) => {}
            ended = parts.join_next() => match ended {
                Some(Ok(Err(error))) => return Err(error),
                Some(Ok(Ok(()))) | Some(Err(_)) | None => {
                    return Err(ProjectorError::Ended("one that follows or answers"));
                }
            },
            ended = &mut thread => {
                return Err(ended.unwrap_or(Err(ProjectorError::Ended("the index"))).err()
                    .unwrap_or(ProjectorError::Ended("the index")));
            }
        }
        // With all that send to it gone, the thread closes the index.
        parts.shutdown().await;
        thread.await.unwrap_or(Err(ProjectorError::Ended("the index")))
    }

    fn partitions(&self) -> Vec<PartitionId> {
        (0..self.ports.facts.partitions).map(PartitionId).collect()
    }

    /// Opens the read model; one that does not go with the journals is made anew.
    async fn open(&self) -> Result<ReadModel, ProjectorError> {
        let origin = self.origin().await?;
        let mut told = false;
        loop {
            let (folder, of) = (self.folder.clone(), origin.clone());
            let opening = move || ReadModel::open(&folder, &of, StoreLimits::default());
            let opened = match tokio::task::spawn_blocking(opening).await {
                Ok(Ok(opened)) => opened,
                Ok(Err(error @ OpenError::Locked { .. })) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "this process waits for it; runs are listed by the other one");
                    }
                    tokio::time::sleep(LOCK_INTERVAL).await;
                    continue;
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(ProjectorError::Ended("opening the index")),
            };
            if let Some(reason) = opened.rebuild {
                let folder = self.folder.display();
                tracing::info!(%reason, %folder, "the read model is made from the journals");
            }
            match self.doubt(&opened.model).await? {
                None => return Ok(opened.model),
                // One that is dropped was not closed.
                Some(doubt) => {
                    tracing::warn!(%doubt, "the read model does not go with the journals")
                }
            }
        }
    }

    async fn origin(&self) -> Result<Origin, ProjectorError> {
        let mut streams = Vec::new();
        for partition in self.partitions() {
            let stream = journal_stream(partition);
            let created = self.ports.reader.stream_created(&stream).await?;
            streams.push(StreamOrigin { partition, stream, created });
        }
        Ok(Origin { engine: self.ports.facts.engine.clone(), streams })
    }

    /// Why what was applied is not what the journals hold, if it is not.
    async fn doubt(&self, model: &ReadModel) -> Result<Option<String>, ProjectorError> {
        for partition in self.partitions() {
            let (position, stream) = (model.position(partition)?, journal_stream(partition));
            let end = self.ports.reader.stream_state(&stream).await?.last_sequence;
            if position.sequence > end {
                let applied = position.sequence;
                return Ok(Some(format!(
                    "it has applied {applied} of `{stream}`, which ends at {end}"
                )));
            }
            if position.sequence == 0 {
                continue;
            }
            // One that was purged says nothing.
            let message = self.ports.reader.read_one(&stream, position.sequence).await?;
            if message.is_some_and(|message| Digest::of(&message.payload) != position.digest) {
                let at = position.sequence;
                return Ok(Some(format!("`{stream}` holds another message at {at}")));
            }
        }
        Ok(None)
    }
}
