//! Answers questions that come over the broker.

use std::time::Duration;

use fermata_jetstream::Bytes;
use fermata_jetstream::core_messages::{CoreMessage, CoreMessages};
use fermata_store::question::{
    ANSWER_BYTES_MAX, Answer, AtLeast, ModelState, NoAnswer, NoAnswerCode, QUESTION_BYTES_MAX,
    RUN_SUBJECT, RUNS_SUBJECT, RunAnswer, RunQuestion, RunsAnswer, RunsQuestion,
};
use fermata_store::{RunPage, RunSummary};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::ProjectorError;
use super::index_thread::{QUESTIONS_MAX, Question};
use super::progress::Progress;

/// Every subject of questions.
const SUBJECTS: &str = "fermata.query.*";

/// How long a question waits for the journal messages that it wants known.
pub const AT_LEAST_LIMIT: Duration = Duration::from_secs(2);

/// Answers questions until nobody takes them any more.
pub(super) async fn answer(
    core: CoreMessages,
    index: mpsc::Sender<Question>,
    progress: Progress,
) -> Result<(), ProjectorError> {
    let mut subscription = core.subscribe(SUBJECTS).await?;
    let mut answering = JoinSet::new();
    while let Some(message) = subscription.next().await {
        while answering.try_join_next().is_some() {}
        let Some(reply) = message.reply.clone() else { continue };
        let (core, is_full) = (core.clone(), answering.len() >= QUESTIONS_MAX);
        let asking = Asking { index: index.clone(), progress: progress.clone() };
        answering.spawn(async move {
            let bytes = if is_full { busy() } else { asking.answer(&message).await };
            // Who does not get it asks again, or reads the journals.
            let _ = core.publish_core(reply, bytes).await;
        });
    }
    Err(ProjectorError::Ended("the subscription to questions"))
}

struct Asking {
    index: mpsc::Sender<Question>,
    progress: Progress,
}

impl Asking {
    async fn answer(&self, message: &CoreMessage) -> Bytes {
        match message.subject.as_str() {
            RUNS_SUBJECT => encode(&match read::<RunsQuestion>(message) {
                Err(refused) => Answer::Error(refused),
                Ok(RunsQuestion { query, at_least }) => {
                    let asked = |reply| Question::Runs(query, reply);
                    answered(self.ask(&at_least, asked).await, |page: RunPage, state| RunsAnswer {
                        page: page.cut_to(ANSWER_BYTES_MAX, size),
                        state,
                    })
                }
            }),
            RUN_SUBJECT => encode(&match read::<RunQuestion>(message) {
                Err(refused) => Answer::Error(refused),
                Ok(RunQuestion { run, at_least }) => {
                    let asked = |reply| Question::Run(run, reply);
                    answered(self.ask(&at_least, asked).await, |run, state| RunAnswer {
                        run,
                        state,
                    })
                }
            }),
            other => {
                let detail = format!(
                    "nothing is asked on `{other}`; `{RUNS_SUBJECT}` and `{RUN_SUBJECT}` are"
                );
                encode::<()>(&Answer::Error(NoAnswer { code: NoAnswerCode::Malformed, detail }))
            }
        }
    }

    async fn ask<T>(
        &self,
        at_least: &[AtLeast],
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, NoAnswer> {
        if tokio::time::timeout(AT_LEAST_LIMIT, self.progress.reached(at_least)).await.is_err() {
            let behind = self.progress.behind();
            let detail = format!("the read model is {behind} journal messages behind");
            return Err(NoAnswer { code: NoAnswerCode::Behind, detail });
        }
        let gone = || NoAnswer {
            code: NoAnswerCode::Unavailable,
            detail: "the read model is being made anew".to_owned(),
        };
        let (sender, receiver) = oneshot::channel();
        self.index.send(question(sender)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())
    }
}

fn answered<T, A>(
    found: Result<(T, ModelState), NoAnswer>,
    answer: impl FnOnce(T, ModelState) -> A,
) -> Answer<A> {
    match found {
        Ok((found, state)) => Answer::Ok(answer(found, state)),
        Err(refused) => Answer::Error(refused),
    }
}

fn read<T: DeserializeOwned>(message: &CoreMessage) -> Result<T, NoAnswer> {
    let malformed = |detail| NoAnswer { code: NoAnswerCode::Malformed, detail };
    if message.payload.len() > QUESTION_BYTES_MAX {
        return Err(malformed(format!("more than {QUESTION_BYTES_MAX} bytes are no question")));
    }
    serde_json::from_slice(&message.payload).map_err(|error| malformed(error.to_string()))
}

fn busy() -> Bytes {
    let detail = format!("{QUESTIONS_MAX} questions are waiting already");
    encode::<()>(&Answer::Error(NoAnswer { code: NoAnswerCode::Busy, detail }))
}

fn encode<T: Serialize>(answer: &Answer<T>) -> Bytes {
    // Texts and numbers: nothing that JSON cannot say.
    serde_json::to_vec(answer).unwrap_or_default().into()
}

fn size(run: &RunSummary) -> usize {
    serde_json::to_vec(run).map_or(0, |bytes| bytes.len() + 1)
}
