//! A source is acknowledged only after everything that came of it is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fermata_actors::Role;
use fermata_actors::hop::{Hop, Passed};
use fermata_actors::listener::Listener;
use fermata_jetstream::Durability;
use fermata_tests::{TestBroker, TestEngine, events};
use fermata_wire::stages::AdmittedFrame;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;

/// How long a redelivery may take: the pause before it is a second.
const LIMIT: Duration = Duration::from_secs(20);

/// A stage whose outputs cannot be stored the first time.
struct FailsOnce {
    frames: AtomicU32,
    seen: mpsc::UnboundedSender<(u32, Vec<u64>)>,
}

impl Actor for FailsOnce {
    type Msg = Passed<AdmittedFrame>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        message: Passed<AdmittedFrame>,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let number = self.frames.fetch_add(1, Ordering::Relaxed);
        let positions = message.frame.events.iter().map(|event| event.source.sequence).collect();
        self.seen.send((number, positions))?;
        if number > 0 {
            let _ = message.done.send(());
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_outputs_were_not_stored_is_delivered_again() {
    let broker = TestBroker::start(Durability::Process).await;
    // Only for its connections: no stage of its own.
    let engine =
        TestEngine::at(broker.url()).with_roles([Role::Coordinator]).start(broker.folder()).await;
    let (seen, mut frames) = mpsc::unbounded_channel();
    let stage = FailsOnce { frames: AtomicU32::new(0), seen };
    let (stage, _) = Actor::spawn(None, stage, ()).await.expect("the stage starts");
    let listener =
        Listener::new(engine.ports().clone(), Hop::Memory(stage.clone()), Arc::default());
    let (listener, _) = Actor::spawn(None, listener, ()).await.expect("the listener starts");

    let sequence = events::publish(&engine.ports().publisher, "demo.start", 1).await;

    for number in 0..2 {
        let frame = tokio::time::timeout(LIMIT, frames.recv()).await;
        assert_eq!(frame.expect("within the limit"), Some((number, vec![sequence])));
    }
    listener.stop(None);
    stage.stop(None);
    engine.shut_down().await;
}
