//! What the bench process reaches the broker through.

use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_jetstream::{Broker, ConnectOptions, Publisher, PublisherOptions, StreamReader};
use miette::{IntoDiagnostic as _, WrapErr as _};

use crate::events::WINDOW;

/// Connections of their own to a broker.
#[derive(Debug, Clone)]
pub struct Client {
    /// The connections.
    pub broker: Broker,
    /// Publishes with [`WINDOW`] unanswered.
    pub publisher: Publisher,
    /// Reads streams.
    pub reader: StreamReader,
    /// Listens to feeds.
    pub core: CoreMessages,
}

impl Client {
    /// Connects.
    pub async fn connect(url: &str) -> miette::Result<Self> {
        let options =
            ConnectOptions { name: "fermata-bench".to_owned(), ..ConnectOptions::default() };
        let broker = Broker::connect(url, options).await.into_diagnostic()?;
        let options = PublisherOptions { window: WINDOW, ..PublisherOptions::default() };
        let publisher = Publisher::new(&broker, options).await.into_diagnostic()?;
        let (reader, core) = (StreamReader::new(&broker), CoreMessages::new(&broker));
        Ok(Self { broker, publisher, reader, core })
    }

    /// The store of definitions; the engine must have made it.
    pub async fn store(&self) -> miette::Result<DefinitionsStore> {
        DefinitionsStore::open(&self.broker)
            .await
            .into_diagnostic()
            .wrap_err("could not open the store of definitions")
    }
}
