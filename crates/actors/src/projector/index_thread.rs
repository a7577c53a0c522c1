//! The one thread that touches the index: sled blocks, and may panic.
//!
//! Questions come first: a message is applied in a few milliseconds, so that is what a
//! question waits for, however far the index is behind. On Linux the thread is nicer than the
//! rest of the process: where processors are short, runs go before lists of runs.

use std::thread;

use fermata_core::identity::RunId;
use fermata_store::question::ModelState;
use fermata_store::{FrameChanges, ReadModel, RunIndex, RunPage, RunQuery, RunSummary, StoreError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::ProjectorError;
use super::progress::Progress;

/// Questions that wait for the index; more are refused.
pub const QUESTIONS_MAX: usize = 64;

/// By how much the thread is nicer: it gets a tenth of a processor that others want.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// A question to the index. Who asked may be gone by the time of the answer.
#[derive(Debug)]
pub(super) enum Question {
    Runs(RunQuery, oneshot::Sender<(RunPage, ModelState)>),
    Run(RunId, oneshot::Sender<(Option<RunSummary>, ModelState)>),
}

pub(super) struct IndexThread {
    pub model: ReadModel,
    pub frames: mpsc::Receiver<FrameChanges>,
    pub questions: mpsc::Receiver<Question>,
}

enum Next {
    Question(Question),
    Frame(FrameChanges),
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
        loop {
            match runtime.block_on(self.next()) {
                Next::Question(question) => answer(&mut self.model, question, progress)?,
                Next::Frame(frame) => {
                    self.model.apply(&frame)?;
                    progress.applied(frame.partition, frame.sequence);
                }
                Next::End => return Ok(self.model.close()?),
            }
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
