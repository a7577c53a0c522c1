//! What one partition asks another to decide.
//!
//! An aggregate lives at the hash of its own key: a run where its event was
//! decided, what waits under a correlation key where that key hashes to. What
//! the one wants of the other is a command in the sender's outbox
//! ([`crate::partition::Outbox`]), taken by the receiver once and in order.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::EventReference;
use crate::identity::{PartitionId, RunId, Tenant};
use crate::json::Json;

/// Longest correlation key in bytes: that of any attribute of an event. A wait
/// whose key is longer, or empty, fails with the class `expression`.
pub const CORRELATION_KEY_BYTES_MAX: usize = crate::event::ATTRIBUTE_BYTES_MAX;

/// Largest data that a signal carries, bytes of JSON text. 16 KiB: a command
/// that resumes every wait of a key still fits one frame. The data of a larger
/// event is left out and its size told instead; whoever waits fetches it by id.
pub const SIGNAL_DATA_BYTES_MAX: usize = 16 * 1024;

/// A command with its place in the channel from one partition to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// Who sends it.
    pub source: PartitionId,
    /// Its index in the sender's outbox, from 1.
    pub index: u64,
    /// The index before it in this channel; 0 for the first.
    pub previous: u64,
    /// What it asks for; `None` when a newer program wrote it and this one
    /// cannot read it. Its place is known all the same.
    pub command: Option<RelayCommand>,
}

/// What one partition asks another to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RelayCommand {
    /// A node waits for an event: tell it when one comes.
    Subscribe(Subscribe),
    /// The node waits no longer.
    Unsubscribe(Unsubscribe),
    /// An event with a correlation key was decided.
    Signal(Signal),
    /// The event that a node waits for, or that it cannot be waited for.
    Resume(Resume),
}

impl RelayCommand {
    /// Roughly how many bytes it takes, for bounds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// Names of fields, ids and the like.
        const FIXED: usize = 160;
        FIXED
            + match self {
                Self::Subscribe(subscribe) => subscribe.key.len() + subscribe.event.len(),
                Self::Unsubscribe(unsubscribe) => unsubscribe.key.len(),
                Self::Signal(signal) => signal.key.len() + signal.event.bytes(),
                Self::Resume(Resume { answer: ResumeAnswer::Event(event), .. }) => event.bytes(),
                Self::Resume(Resume { answer: ResumeAnswer::Refused(detail), .. }) => detail.len(),
            }
    }
}

/// One activation of a node that waits: the key of its effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiter {
    /// The run.
    pub run: RunId,
    /// The node.
    pub node: Arc<str>,
    /// Activation of the node, from 1.
    pub activation: u32,
}

/// A node waits for an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// Whose run it is; only events of this tenant count.
    pub tenant: Tenant,
    /// The correlation key.
    pub key: Arc<str>,
    /// Pattern of the event's type.
    pub event: Arc<str>,
    /// Who waits.
    pub waiter: Waiter,
}

/// A node waits no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsubscribe {
    /// Whose run it is.
    pub tenant: Tenant,
    /// The correlation key.
    pub key: Arc<str>,
    /// Who waited.
    pub waiter: Waiter,
}

/// An event with a correlation key, as those who wait for it see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// The correlation key.
    pub key: Arc<str>,
    /// The event.
    pub event: SignalEvent,
    /// Whether a person is to look at the event if nobody takes it: no strategy
    /// applied to it.
    pub review: bool,
}

/// An event and as much of its data as travels with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalEvent {
    /// The event.
    pub reference: EventReference,
    /// Its data, `null` where it has none or too much.
    pub data: SignalData,
}

impl SignalEvent {
    /// Roughly how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.reference.bytes() + self.data.json.as_str().len()
    }

    /// What the node that waited for it has as its output.
    #[must_use]
    pub fn output(&self) -> Json {
        let mut output = serde_json::json!({
            "id": &*self.reference.id,
            "source": &*self.reference.source,
            "type": &*self.reference.kind,
            "data": self.data.json.parse(),
        });
        if let (Some(bytes), Some(output)) = (self.data.omitted_bytes, output.as_object_mut()) {
            output.insert("data_omitted_bytes".to_owned(), bytes.into());
        }
        Json::from_value(&output)
    }
}

/// The data of an event within [`SIGNAL_DATA_BYTES_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalData {
    /// JSON text; `null` where there is none, or where it was left out.
    pub json: Json,
    /// Its size where it was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted_bytes: Option<u64>,
}

impl SignalData {
    /// Takes an event's data over, unless it is too large.
    #[must_use]
    pub fn of(data: Option<&serde_json::value::RawValue>) -> Self {
        match data.map(serde_json::value::RawValue::get) {
            Some(text) if text.len() > SIGNAL_DATA_BYTES_MAX => {
                Self { json: Json::null(), omitted_bytes: Some(text.len() as u64) }
            }
            Some(text) => {
                Self { json: Json::from_text(text).unwrap_or_default(), omitted_bytes: None }
            }
            None => Self::default(),
        }
    }
}

/// The answer to a [`Subscribe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// Whose run it is.
    pub tenant: Tenant,
    /// Who waits.
    pub waiter: Waiter,
    /// What came of it.
    pub answer: ResumeAnswer,
}

/// What came of a wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ResumeAnswer {
    /// The event came.
    Event(SignalEvent),
    /// Too many wait already; for people.
    Refused(String),
}
