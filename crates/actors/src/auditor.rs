//! Auditor: the shell around [`fermata_partition::auditor::Auditor`], one per
//! owned partition.

mod reading;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use fermata_audit::Checkpoint;
use fermata_core::flags::Flag;
use fermata_core::identity::PartitionId;
use fermata_jetstream::StoredMessage;
use fermata_jetstream::reader::ReadError;
use fermata_partition::append::{ReadAnswer, Send};
use fermata_partition::auditor::{
    AuditMark, Auditor as Machine, AuditorConfig, BACKLOG_BYTES_MAX, Input, Output,
};
use fermata_partition::message::{AppendOutcome, Message};
use fermata_wire::subjects;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::OwnedSemaphorePermit;

use crate::checkpoint_log::{CheckpointLog, newest_of_stream};
use crate::coordinator::CoordinatorMessage;
use crate::ports::{Ports, append_outcome};
use crate::standstill::{Place, Trouble};
use reading::{read_journal, read_stored};

/// How often an auditor looks at the time.
const TICK: Duration = Duration::from_millis(100);

/// Pause before an append or a read is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What an auditor is told.
#[derive(Debug)]
pub enum AuditorMessage {
    /// A new owner replays from the first message on, or from behind its
    /// snapshot: begin anew.
    Begin {
        /// Number of the owner among those of its coordinator; told back with
        /// whatever ends the owner.
        generation: u64,
        /// Tag of the owner, unique to its attempt.
        writer: String,
        /// What the owner's snapshot says of the entries before it.
        behind: Option<AuditMark>,
        /// Told how many records are signed, or why nothing can be trusted.
        signed: RpcReplyPort<Result<u64, String>>,
    },
    /// A committed message of the journal; the permit bounds what waits here.
    Journal {
        /// Its sequence.
        sequence: u64,
        /// Its bytes; `None` for a foreign message.
        frame: Option<Bytes>,
        /// Held until the frame is taken.
        permit: OwnedSemaphorePermit,
    },
    /// The owner has taken over: append from here on.
    Live,
    /// A snapshot ends where there are so many records: say when they are audited.
    Mark(u64),
    /// Something asked for came back; the number tells old answers from new.
    Answer(u64, Input),
    /// Time has passed.
    Tick,
    /// Something held back is due.
    Wake,
}

/// Why there is no newest checkpoint.
enum CheckpointError {
    /// It could not be read; it can be tried again.
    Unread(String),
    /// It is not what was signed.
    Untrusted(String),
}

/// Behaviour and ports.
#[derive(Debug)]
pub struct Auditor {
    ports: Ports,
    partition: PartitionId,
    stream: String,
    subject: String,
    owner: ActorRef<CoordinatorMessage>,
    checkpoints: CheckpointLog,
}

/// The machine of the present owner, if there is one.
#[derive(Debug, Default)]
pub struct AuditorState {
    machine: Option<Machine>,
    generation: u64,
    /// Permits of journal messages that are not stored yet, by their sequence:
    /// what the auditor lags behind holds the owner back.
    permits: VecDeque<(u64, OwnedSemaphorePermit)>,
    /// The owner's number, see [`AuditorMessage::Begin`].
    owner_generation: u64,
    wakes: bool,
    /// When the append that is under way was asked for, monotonic clock, milliseconds.
    asked_ms: u64,
}

impl Auditor {
    /// The auditor of `partition`, reporting to `owner`.
    #[must_use]
    pub fn new(ports: Ports, partition: PartitionId, owner: ActorRef<CoordinatorMessage>) -> Self {
        let stream = format!("AUDIT_{partition}");
        let subject = subjects::audit_log(partition);
        let checkpoints = CheckpointLog::start(ports.clone(), partition);
        Self { ports, stream, subject, owner, partition, checkpoints }
    }
}

impl Actor for Auditor {
    type Msg = AuditorMessage;
    type State = AuditorState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<AuditorMessage>,
        (): (),
    ) -> Result<AuditorState, ActorProcessingErr> {
        drop(myself.send_interval(TICK, || AuditorMessage::Tick));
        Ok(AuditorState::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<AuditorMessage>,
        message: AuditorMessage,
        state: &mut AuditorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            AuditorMessage::Begin { generation, writer, behind, signed } => {
                state.owner_generation = generation;
                // A coordinator that has gone on needs no answer.
                let _ = signed.send(self.begin(writer, behind, state).await);
            }
            AuditorMessage::Journal { sequence, frame, permit } => {
                state.permits.push_back((sequence, permit));
                self.feed(&myself, Input::Journal { sequence, frame }, state).await;
            }
            AuditorMessage::Live => self.feed(&myself, Input::Live, state).await,
            AuditorMessage::Mark(size) => self.feed(&myself, Input::Mark(size), state).await,
            AuditorMessage::Answer(generation, input) if generation == state.generation => {
                self.watch(&input, state);
                self.feed(&myself, input, state).await;
            }
            AuditorMessage::Answer(..) => {}
            AuditorMessage::Tick => self.feed(&myself, Input::Tick, state).await,
            AuditorMessage::Wake => {
                state.wakes = false;
                self.feed(&myself, Input::Tick, state).await;
            }
        }
        let now = self.ports.clock.now();
        let appends_in = state.machine.as_ref().and_then(|machine| machine.appends_in_ms(now));
        if let (Some(ms), false) = (appends_in, state.wakes) {
            state.wakes = true;
            // One more, so that the clock has passed it.
            let wait = Duration::from_millis(ms + 1);
            drop(myself.send_after(wait, || AuditorMessage::Wake));
        }
        let held_from = state.machine.as_ref().and_then(Machine::holds_back_from);
        let is_settled = |sequence: u64| held_from.is_none_or(|from| sequence < from);
        while state.permits.pop_front_if(|(sequence, _)| is_settled(*sequence)).is_some() {}
        Ok(())
    }
}

impl Auditor {
    /// Whether the log takes what is appended; a conflict says that it does.
    fn watch(&self, input: &Input, state: &AuditorState) {
        let Input::Appended(outcome) = input else { return };
        let (place, now_ms) =
            (Place::AuditLog(self.partition), self.ports.clock.now().monotonic_ms);
        match Trouble::of(outcome) {
            Some(trouble) => {
                self.ports.standstills.tried_again(place, trouble, state.asked_ms, now_ms);
            }
            None => self.ports.standstills.ended(place),
        }
    }

    async fn begin(
        &self,
        writer: String,
        behind: Option<AuditMark>,
        state: &mut AuditorState,
    ) -> Result<u64, String> {
        let checkpoint = loop {
            match self.newest_checkpoint().await {
                Ok(checkpoint) => break checkpoint,
                Err(CheckpointError::Unread(reason)) => {
                    tracing::warn!(partition = %self.partition, reason, "the checkpoint cannot be read yet");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(CheckpointError::Untrusted(reason)) => return Err(reason),
            }
        };
        // The snapshot's own note vouches for it where the others are behind.
        let verifier = [self.ports.facts.signer.verifier()];
        let brought =
            behind.as_ref().and_then(|mark| Checkpoint::open(mark.note.as_bytes(), &verifier).ok());
        let checkpoint = checkpoint.into_iter().chain(brought).max_by_key(Checkpoint::size);
        let signed = checkpoint.as_ref().map_or(0, Checkpoint::size);
        self.ports.facts.checkpoints.note_signed(self.partition, signed);
        let config = AuditorConfig {
            origin: self.ports.facts.origin(self.partition),
            signer: self.ports.facts.signer.clone(),
            writer,
            checkpoint,
            backlog_bytes_max: BACKLOG_BYTES_MAX,
            behind,
        };
        state.machine = Some(Machine::new(config));
        state.generation += 1;
        Ok(signed)
    }

    /// The larger of what the stream and the file hold. A stream that was cut
    /// back is behind the file, and a folder that was lost is behind the stream.
    async fn newest_checkpoint(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        let verifier = [self.ports.facts.signer.verifier()];
        let unread = |error: &dyn std::error::Error| CheckpointError::Unread(error.to_string());
        let stored = newest_of_stream(
            &self.ports.reader,
            self.ports.facts.signer.verifier(),
            self.partition,
        );
        let (_, stored) = stored.await.map_err(|error| unread(&error))?;
        let stored = stored.map(|stored| stored.checkpoint);
        let folder = &self.ports.facts.checkpoints;
        let origin = self.ports.facts.origin(self.partition);
        let file = folder.read(self.partition, &origin).await.map_err(|error| unread(&error))?;
        let file = file.map(|note| Checkpoint::open(&note, &verifier)).transpose();
        let file = file.map_err(|error| {
            let path = folder.file(self.partition);
            let reason =
                format!("the checkpoint in `{}` cannot be trusted: {error}", path.display());
            CheckpointError::Untrusted(reason)
        })?;
        Ok(stored.into_iter().chain(file).max_by_key(Checkpoint::size))
    }

    async fn feed(
        &self,
        myself: &ActorRef<AuditorMessage>,
        input: Input,
        state: &mut AuditorState,
    ) {
        let Some(machine) = &mut state.machine else { return };
        let mut outputs = Vec::new();
        machine.handle(input, self.ports.clock.now(), &mut outputs);
        for output in outputs {
            self.perform(myself, state, output).await;
        }
    }

    async fn perform(
        &self,
        myself: &ActorRef<AuditorMessage>,
        state: &mut AuditorState,
        output: Output,
    ) {
        let (generation, owner_generation) = (state.generation, state.owner_generation);
        match output {
            Output::Append(send) => {
                state.asked_ms = self.ports.clock.now().monotonic_ms;
                self.append(myself, generation, send, Duration::ZERO);
            }
            Output::AppendLater(send) => self.append(myself, generation, send, AGAIN_AFTER),
            Output::ReadAudit { sequence, later } => {
                let (ports, stream, myself) =
                    (self.ports.clone(), self.stream.clone(), myself.clone());
                tokio::spawn(async move {
                    if later {
                        tokio::time::sleep(AGAIN_AFTER).await;
                    }
                    let answer = read_answer(&ports, &stream, sequence).await;
                    let _ = myself.cast(AuditorMessage::Answer(generation, Input::Read(answer)));
                });
            }
            Output::ReadStored { from } => {
                let (ports, stream, myself) =
                    (self.ports.clone(), self.stream.clone(), myself.clone());
                tokio::spawn(read_stored(ports, stream, from, generation, myself));
            }
            Output::ReadJournal { from, to } => {
                let (ports, partition, myself) =
                    (self.ports.clone(), self.partition, myself.clone());
                tokio::spawn(async move {
                    let messages = read_journal(&ports, partition, from, to).await;
                    let input = Input::JournalAgain(messages);
                    let _ = myself.cast(AuditorMessage::Answer(generation, input));
                });
            }
            Output::Feed { .. } if !self.sends_feed() => {}
            Output::Feed { tenant, frame } => {
                let subject = subjects::audit_feed(tenant.as_ref());
                // Subscribers who miss a frame read the stored log.
                let _ = self.ports.core.publish_core(subject, frame.into()).await;
            }
            Output::Checkpoint { note, size, .. } => {
                self.ports.facts.checkpoints.note_signed(self.partition, size);
                self.checkpoints.offer(note, size);
            }
            Output::Marked(mark) => {
                let _ = self.owner.cast(CoordinatorMessage::Marked(owner_generation, mark));
            }
            Output::Halt(reason) => {
                tracing::error!(partition = %self.partition, %reason, "the audit log cannot be trusted");
                let _ = self
                    .owner
                    .cast(CoordinatorMessage::AuditHalted(owner_generation, reason.to_string()));
            }
            Output::StandDown { by } => {
                tracing::warn!(partition = %self.partition, by, "another auditor goes on");
                let _ = self.owner.cast(CoordinatorMessage::AuditLost(owner_generation));
            }
        }
    }

    /// Whether subscribers are sent entries; those who are not read the stored log.
    fn sends_feed(&self) -> bool {
        self.ports.definitions.borrow().flags.is_on(Flag::AuditFeed)
    }

    fn append(
        &self,
        myself: &ActorRef<AuditorMessage>,
        generation: u64,
        send: Send,
        pause: Duration,
    ) {
        let (ports, subject, myself) = (self.ports.clone(), self.subject.clone(), myself.clone());
        tokio::spawn(async move {
            let outcome = append(&ports, subject, send, pause).await;
            let _ = myself.cast(AuditorMessage::Answer(generation, Input::Appended(outcome)));
        });
    }
}

/// Appends with the fence and says what became of it.
pub(crate) async fn append(
    ports: &Ports,
    subject: String,
    send: Send,
    pause: Duration,
) -> AppendOutcome {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    let Send { expected_last_sequence, writer, payload } = send;
    let outcome = ports.publisher.append(subject, expected_last_sequence, &writer, payload).await;
    append_outcome(&outcome)
}

/// Reads what stands behind a fence.
pub(crate) async fn read_answer(ports: &Ports, stream: &str, sequence: u64) -> ReadAnswer {
    let answer = async {
        if let Some(message) = ports.reader.read_one(stream, sequence).await? {
            return Ok::<_, ReadError>(ReadAnswer::Found(message_of(message)));
        }
        let state = ports.reader.stream_state(stream).await?;
        match state.first_sequence > sequence && state.last_sequence >= sequence {
            true => Ok(ReadAnswer::Purged),
            false => Ok(ReadAnswer::Absent { last_sequence: state.last_sequence }),
        }
    };
    answer.await.unwrap_or_else(|error| {
        tracing::warn!(stream, sequence, %error, "a read failed and is tried again");
        ReadAnswer::Failed
    })
}

/// A stored message as the protocol sees it.
#[must_use]
pub fn message_of(message: StoredMessage) -> Message {
    let StoredMessage { sequence, broker_time_ns, writer, payload, .. } = message;
    Message { sequence, broker_time_ns, writer, payload }
}
