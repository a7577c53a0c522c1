//! One intake stage as an actor: takes what is passed to it, one at a time and
//! in order, and says when everything that came of it is durable.

use std::fmt;
use std::marker::PhantomData;

use futures_util::future::BoxFuture;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::oneshot;

/// What a stage takes, and where to say that everything that came of it is
/// durable. Dropping it unsaid leaves the source unacknowledged.
#[derive(Debug)]
pub struct Passed<I> {
    /// The input.
    pub input: I,
    /// Told once, when all is durable but what is held back.
    pub done: oneshot::Sender<HeldBack>,
}

/// Places of an input's messages, from 0 and in order, of which nothing was
/// passed on, or not all is known to be durable: they come again, and the
/// others need not wait for them.
pub type HeldBack = Vec<usize>;

/// How much of what came of an input is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durable {
    /// Not all of it: the input comes again.
    No,
    /// All of it, but for messages that come again.
    But(HeldBack),
}

impl From<bool> for Durable {
    fn from(all: bool) -> Self {
        if all { Self::But(HeldBack::new()) } else { Self::No }
    }
}

/// What is particular to a stage.
pub trait Stage: Send + Sync + 'static {
    /// What it takes.
    type Input: fmt::Debug + Send + 'static;

    /// Does what must be done in order, and returns the rest: how much of what came
    /// of the input is durable.
    fn take(&mut self, input: Self::Input) -> BoxFuture<'static, Durable>;
}

/// Starts a stage below a supervisor, or below nobody.
///
/// # Errors
///
/// When the supervisor is stopping.
///
/// # Cancel safety
///
/// The stage may run.
pub async fn spawn_stage<S: Stage>(
    stage: S,
    supervisor: Option<ActorCell>,
) -> Result<ActorRef<Passed<S::Input>>, SpawnErr> {
    let shell = StageActor::<S>(PhantomData);
    let (actor, _) = match supervisor {
        Some(supervisor) => Actor::spawn_linked(None, shell, stage, supervisor).await?,
        None => Actor::spawn(None, shell, stage).await?,
    };
    Ok(actor)
}

struct StageActor<S>(PhantomData<fn(S)>);

impl<S: Stage> Actor for StageActor<S> {
    type Msg = Passed<S::Input>;
    type State = S;
    type Arguments = S;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        stage: S,
    ) -> Result<S, ActorProcessingErr> {
        Ok(stage)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        Passed { input, done }: Self::Msg,
        stage: &mut S,
    ) -> Result<(), ActorProcessingErr> {
        let durable = stage.take(input);
        tokio::spawn(async move {
            if let Durable::But(held_back) = durable.await {
                // Whoever gave up waiting lets the source come again.
                let _ = done.send(held_back);
            }
        });
        Ok(())
    }
}
