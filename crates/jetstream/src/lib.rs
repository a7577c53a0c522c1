//! The one door to the broker: everything that Fermata asks of NATS JetStream goes through here.
//!
//! This crate deals in bytes, sequences and headers and knows no records, so that the rules above it
//! can be read without the broker and the broker's quirks can be read in one place.
//!
//! - [`server`] finds, starts and stops a nats-server of our own.
//! - [`connection`] holds the two connections that a process has and says what happens to them.
//! - [`publisher`] and [`append`] write; their answer is always stored, refused or unknown.
//! - [`reader`] replays a stream by sequence; [`epoch_consumer`] follows the commands of a partition;
//!   [`shared_consumer`] shares a stream between workers and acknowledges one by one.
//! - [`topology`] is the list of streams as data; [`leases`] and [`definitions_store`] keep small things.
//! - [`object_folder`] holds snapshots and archived journals; [`purge`] removes what they stand for.
//! - [`progress`] tells how far a shared consumer has come.
//! - [`work_queue`] hands attempts to whoever serves a named queue.
//! - [`usage`] tells how full the streams are.
//! - [`core_messages`] are messages that nobody stores.

pub mod api;
pub mod append;
pub mod connection;
pub mod consumer_drift;
pub mod core_messages;
pub mod definitions_store;
mod delivery;
pub mod engine_config;
pub mod epoch_consumer;
mod follower;
mod held_message;
pub mod leases;
pub mod monitoring;
pub mod object_folder;
pub mod outcome;
pub mod payloads;
pub mod progress;
pub mod publisher;
mod pull;
pub mod purge;
pub mod reader;
mod reply_tokens;
pub mod server;
mod server_process;
pub mod shared_consumer;
mod size_limit;
pub mod store_room;
mod stored_object;
mod stream_info;
pub mod topology;
mod unreadable;
pub mod usage;
pub mod work_queue;

pub use async_nats::{HeaderMap as Headers, Subject};
pub use bytes::Bytes;
pub use connection::{Broker, ConnectOptions, ConnectionEvent, ConnectionNotice, ConnectionRole};
pub use delivery::StoredMessage;
pub use epoch_consumer::{EpochConsumer, EpochConsumerError, EpochConsumerOptions, PositionCheck};
pub use outcome::{PublishOutcome, Refusal};
pub use publisher::{PublishReceipt, Publisher, PublisherOptions};
pub use reader::{StreamReader, StreamState};
pub use server::{Durability, ManagedServer, ServerOptions};
pub use shared_consumer::{Acker, Delivery, SharedConsumer, SharedConsumerOptions};
pub use topology::{StreamSpec, Topology};

/// Header that names who wrote a message: the incarnation of the writer, as text.
///
/// A message of a fenced stream without it is foreign.
pub const WRITER_HEADER: &str = "Fermata-Writer";
