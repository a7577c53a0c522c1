//! The one thread that touches the index: sled blocks, and may panic.
//!
//! Questions come first: a message is applied in a few milliseconds, so that is what a
//! question waits for, however far the index is behind. Where processors are short, runs go
//! before lists of runs: on Linux the thread is nicer than the rest of the process, and it
//! rests where it notices that others wait ([`super::pace`]).

use std::thread;
use std::time::Duration;

use fermata_core::identity::RunId;
use fermata_store::question::ModelState;
use fermata_store::{ReadModel, RunIndex, RunPage, RunQuery, RunSummary, StoreError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::ProjectorError;
use super::following::FollowedFrame;
use super::pace::{Pace, rest_after};
use super::progress::{Progress, stale_at};

/// Questions that wait for the index; more are refused.
pub const QUESTIONS_MAX: usize = 64;

/// By how much the thread is nicer: as much as can be, so that it gets a hundredth of a
/// processor that others want.
#[cfg(target_os = "linux")]
const NICE: i32 = 19;

/// A question to the index. Who asked may be gone by the time of the answer.
#[derive(Debug)]
pub(super) enum Question {
    Runs(RunQuery, oneshot::Sender<(RunPage, ModelState)>),
    Run(RunId, oneshot::Sender<(Option<RunSummary>, ModelState)>),
}

pub(super) struct IndexThread {
    pub model: ReadModel,
    pub frames: mpsc::Receiver<FollowedFrame>,
    pub questions: mpsc::Receiver<Question>,
}

enum Next {
    Question(Question),
    Frame(FollowedFrame),
    End,
}

impl IndexThread {
    /// Runs until nobody sends messages any more; then closes the index.
    pub fn start(self, progress: Progress) -> oneshot::Receiver<Result<(), ProjectorError>> {
        let (sender, ended) = oneshot::channel();
        let runtime = Handle::current();
        let work = move || {
            be_nice();
            // Nobody may be waiting for it.
            let _ = sender.send(self.run(&runtime, &progress));
        };
        if let Err(error) = thread::Builder::new().name("fermata-read-model".to_owned()).spawn(work)
        {
            // The receiver sees that the sender is gone.
            tracing::error!(%error, "no thread for the read model");
        }
        ended
    }

    fn run(mut self, runtime: &Handle, progress: &Progress) -> Result<(), ProjectorError> {
        let mut pace = Pace::new();
        loop {
            match runtime.block_on(self.next()) {
                Next::Question(question) => answer(&mut self.model, question, progress)?,
                Next::Frame(frame) => {
                    let (applied, slice) = pace.work(|| self.apply(&frame, progress));
                    applied?;
                    let stale = stale_at(frame.message.broker_time_ns);
                    let rest = slice.map_or(Duration::ZERO, |slice| rest_after(slice, stale));
                    if !rest.is_zero() && !progress.is_awaited() {
                        self.rest(rest, runtime, progress)?;
                    }
                }
                Next::End => return Ok(self.model.close()?),
            }
        }
    }

    fn apply(&mut self, frame: &FollowedFrame, progress: &Progress) -> Result<(), StoreError> {
        let Some(changes) = frame.read() else { return Ok(()) };
        self.model.apply(&changes)?;
        progress.applied(frame.partition, frame.message.sequence, frame.message.broker_time_ns);
        Ok(())
    }

    /// Does nothing for so long, but for a question, which ends it.
    fn rest(
        &mut self,
        rest: Duration,
        runtime: &Handle,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let question = async { tokio::time::timeout(rest, self.questions.recv()).await };
        match runtime.block_on(question) {
            Ok(Some(question)) => answer(&mut self.model, question, progress),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    async fn next(&mut self) -> Next {
        tokio::select! {
            biased;
            Some(question) = self.questions.recv() => Next::Question(question),
            frame = self.frames.recv() => frame.map_or(Next::End, Next::Frame),
        }
    }
}

fn answer(
    model: &mut ReadModel,
    question: Question,
    progress: &Progress,
) -> Result<(), StoreError> {
    let state = ModelState {
        behind: progress.behind(),
        as_of_ms: progress.as_of_ms(),
        runs_held: model.runs(),
        left_out_until_ms: model.left_out_until_ms(),
    };
    match question {
        Question::Runs(query, reply) => drop(reply.send((model.list(&query)?, state))),
        Question::Run(run, reply) => drop(reply.send((model.get(run)?, state))),
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn be_nice() {
    let thread = rustix::thread::gettid();
    // It does without.
    let _ = rustix::process::setpriority_process(Some(thread), NICE);
}

#[cfg(not(target_os = "linux"))]
fn be_nice() {}
