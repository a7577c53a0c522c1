//! The streams as data: what there is, how it is limited, and whether the broker has it so.
//!
//! A [`StreamSpec`] has the field names and units of the broker's own API, so `nats/topology.json` can be
//! read by an operator and each of its entries be given to `nats stream add --config`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::{
    api::{ACCOUNT_EXCEEDED, ApiError, NO_SUITABLE_PEERS, STORAGE_EXCEEDED, STREAM_NOT_FOUND, ask},
    connection::Broker,
    size_limit::SizeLimit,
};

mod enlarging;
mod making;
mod names;
mod room;
mod spec;

pub use enlarging::{EnlargeError, Enlarged, Enlargement};
pub use making::Shortage;
pub use names::*;
pub use room::{STREAM_ROOM_BYTES_DEFAULT, STREAM_ROOM_BYTES_MAX, STREAM_ROOM_BYTES_MIN};
pub use spec::{LANE_FRAME_BYTES_TARGET, Limits, StreamSpec};

/// The partition that holds what is not of one run: definitions, their approvals, schedules.
pub const CONTROL_PARTITION: &str = "control";

/// Number of data partitions when nothing else is said: costs nothing over fewer, and leaves room to scale out.
pub const PARTITIONS_DEFAULT: u16 = 8;

/// How long a lease holds without being renewed.
pub const LEASE_TTL: Duration = Duration::from_secs(15);

/// The field of a stream that bounds the messages of one subject.
const PER_SUBJECT: &str = "max_msgs_per_subject";

/// From what the list of streams follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Number of data partitions; fixed when the engine is created.
    pub partitions: u16,
    /// Copies of each stream: 1 on a single server, 3 in a cluster. Those of CONFIG hold for the engine.
    pub replicas: usize,
    /// How large each stream may grow.
    pub limits: Limits,
}

impl Default for Topology {
    fn default() -> Self {
        Self { partitions: PARTITIONS_DEFAULT, replicas: 1, limits: Limits::default() }
    }
}

/// A stream that is not as the topology says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The stream.
    pub stream: String,
    /// The field of its configuration.
    pub field: String,
    /// What the topology says.
    pub expected: Value,
    /// What the broker has.
    pub found: Value,
}

impl Drift {
    /// Whether the broker changes the field of a stream that is there; else the stream has to be made anew.
    #[must_use]
    pub fn can_be_edited(&self) -> bool {
        match self.field.as_str() {
            "name" | "storage" | "retention" => false,
            // What is switched on stays so.
            "deny_delete" | "deny_purge" | "allow_msg_ttl" => self.found != Value::Bool(true),
            _ => true,
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, field, expected, found } = self;
        write!(formatter, "stream `{stream}` has `{field}` = {found}, expected {expected}")?;
        match self.can_be_edited() {
            true => Ok(()),
            false => formatter.write_str(
                ", which cannot be edited: if nothing in the stream is needed, delete it, and it is made anew",
            ),
        }
    }
}

/// What applying a topology did and found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Streams that were missing and are there now.
    pub created: Vec<String>,
    /// Streams that are there otherwise; they were left as they are.
    pub drift: Vec<Drift>,
}

/// Why a topology could not be applied.
#[derive(Debug, Error)]
pub enum TopologyError {
    /// What is to be made is more than there is; nothing was made.
    #[error(
        "the streams that are to be made reserve {} bytes, and {} are free; give them less room (`--stream-room`)",
        .0.needed_bytes,
        .0.room.free_bytes()
    )]
    NotAllFit(Shortage),
    /// The server has not the room that the stream reserves.
    #[error(
        "the server has no room for stream `{stream}`, which reserves {max_bytes} bytes{}; free some disk, raise \
         `max_file_store` or the account's `max_file`, or give the streams less room (`--stream-room`)",
        told_removed(*removed)
    )]
    NoRoom {
        /// The stream.
        stream: String,
        /// What it reserves.
        max_bytes: i64,
        /// How many streams were made before it, and are gone again.
        removed: usize,
    },
    /// The broker refused for another reason or did not answer.
    #[error("could not set up stream `{stream}`")]
    Api {
        /// The stream.
        stream: String,
        /// Why not.
        #[source]
        source: ApiError,
    },
}

fn told_removed(removed: usize) -> String {
    match removed {
        0 => String::new(),
        1 => " (one that was made before it is removed again)".to_owned(),
        more => format!(" ({more} that were made before it are removed again)"),
    }
}

fn failed(spec: &StreamSpec) -> impl Fn(ApiError) -> TopologyError + use<> {
    let (stream, max_bytes) = (spec.name.clone(), spec.max_bytes);
    move |source| failure(&stream, max_bytes, source)
}

fn failure(stream: &str, max_bytes: i64, source: ApiError) -> TopologyError {
    let stream = stream.to_owned();
    match has_no_room(&source) {
        true => TopologyError::NoRoom { stream, max_bytes, removed: 0 },
        false => TopologyError::Api { stream, source },
    }
}

/// A single server and an account name what is missing by a code; a cluster looks for servers to place the stream
/// on, and says in words what those lack that it did not take.
fn has_no_room(error: &ApiError) -> bool {
    match error {
        ApiError::Refused { code, description, .. } => {
            matches!(*code, STORAGE_EXCEEDED | ACCOUNT_EXCEEDED)
                || (*code == NO_SUITABLE_PEERS && description.contains("insufficient storage"))
        }
        ApiError::NoAnswer { .. }
        | ApiError::NoResponders { .. }
        | ApiError::NotSent { .. }
        | ApiError::CutOff { .. }
        | ApiError::Unreadable { .. } => false,
    }
}

#[derive(Deserialize)]
struct StreamInfo {
    config: Value,
}

impl Topology {
    /// All streams, those below key-value buckets and object stores included.
    pub fn streams(&self) -> Vec<StreamSpec> {
        spec::streams(self)
    }

    /// What all streams together reserve on a server, in bytes. A server that has less refuses some of them.
    pub fn reserved_bytes(&self) -> i64 {
        self.streams().iter().map(|spec| spec.max_bytes).sum()
    }

    /// Names of all partitions, the control partition first: it must be up before the others.
    pub fn partition_names(&self) -> Vec<String> {
        std::iter::once(CONTROL_PARTITION.to_owned())
            .chain((0..self.partitions).map(|partition| partition.to_string()))
            .collect()
    }

    /// Reports what is missing or differs, and changes nothing. A missing stream differs in its `name`.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn compare(&self, broker: &Broker) -> Result<Vec<Drift>, TopologyError> {
        let looked = self.look(broker, |_| true).await?;
        let drifts =
            looked.into_iter().flat_map(|(spec, config)| drift(&spec, &config.unwrap_or_default()));
        Ok(drifts.collect())
    }
}

async fn found_config(broker: &Broker, stream: &str) -> Result<Option<Value>, ApiError> {
    match ask::<StreamInfo>(broker.publishing(), &format!("STREAM.INFO.{stream}"), &()).await {
        Ok(info) => Ok(Some(info.config)),
        Err(error) if error.code() == Some(STREAM_NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Compares the fields that the topology sets. The broker leaves out what is false, zero or empty.
/// What follows from the size of a stream is compared with what follows from the size that it has.
fn drift(spec: &StreamSpec, config: &Value) -> Vec<Drift> {
    if config.is_null() {
        return vec![Drift {
            stream: spec.name.clone(),
            field: "name".to_owned(),
            expected: spec.name.clone().into(),
            found: Value::Null,
        }];
    }
    let found_bytes = SizeLimit::of(config).signed().unwrap_or(spec.max_bytes);
    let sized = spec.clone().sized_for(found_bytes);
    let Ok(Value::Object(expected)) = serde_json::to_value(sized) else { return Vec::new() };
    expected
        .into_iter()
        .filter_map(|(field, expected)| {
            let found = config.get(&field).cloned().unwrap_or(Value::Null);
            let same = found == expected || (found.is_null() && is_nothing(&expected));
            (!same).then(|| Drift { stream: spec.name.clone(), field, expected, found })
        })
        .collect()
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_room_is_told_from_one_with_too_few_servers() {
        let refused = |code, description: &str| {
            let (request, description) = ("$JS.API.STREAM.CREATE.EVENTS", description.to_owned());
            has_no_room(&ApiError::Refused { request: request.to_owned(), code, description })
        };

        assert!(refused(10047, "insufficient storage resources available"));
        assert!(refused(10002, "resource limits exceeded for account"));
        assert!(refused(10005, "no suitable peers for placement, insufficient storage"));
        assert!(!refused(10005, "no suitable peers for placement"));
    }

    #[test]
    fn a_changed_field_is_found_and_named() {
        let spec = Topology::default().streams().remove(0);
        let mut config = serde_json::to_value(&spec).expect("a specification is JSON");
        config["max_bytes"] = 17.into();

        let findings = drift(&spec, &config);

        assert_eq!(findings.len(), 1);
        assert_eq!(
            (findings[0].field.as_str(), &findings[0].found),
            ("max_bytes", &Value::from(17))
        );
    }

    #[test]
    fn the_bound_of_lanes_is_compared_with_that_of_the_size_that_the_stream_has() {
        let waiting = |topology: Topology| {
            let is_waiting = |spec: &StreamSpec| spec.name == WAITING_STREAM;
            topology.streams().into_iter().find(is_waiting).expect("WAITING is a stream")
        };
        let whole = waiting(Topology::default());
        let fitted = waiting(Topology::default().fitted_to(1 << 30));
        let mut config = serde_json::to_value(&fitted).expect("a specification is JSON");

        let fields = |config: &Value| {
            drift(&whole, config).into_iter().map(|drift| drift.field).collect::<Vec<_>>()
        };
        assert_eq!(fields(&config), ["max_bytes"]);
        config["max_msgs_per_subject"] = 10_000.into();
        assert_eq!(fields(&config), ["max_bytes", "max_msgs_per_subject"]);
    }

    #[test]
    fn what_cannot_be_edited_says_so() {
        let drift = |field: &str, found: bool| Drift {
            stream: "TASKS".to_owned(),
            field: field.to_owned(),
            expected: Value::Bool(!found),
            found: Value::Bool(found),
        };

        let denied = drift("deny_delete", true).to_string();
        assert!(denied.starts_with("stream `TASKS` has `deny_delete` = true"), "{denied}");
        assert!(denied.contains("delete it, and it is made anew"), "{denied}");
        assert!(drift("deny_delete", false).can_be_edited());
        assert!(drift("allow_rollup_hdrs", true).can_be_edited());
    }

    #[test]
    fn what_the_broker_leaves_out_because_it_is_false_is_no_drift() {
        let spec = Topology::default().streams().remove(0);
        let mut config = serde_json::to_value(&spec).expect("a specification is JSON");
        config.as_object_mut().expect("an object").retain(|_, value| !is_nothing(value));

        assert_eq!(drift(&spec, &config), []);
    }
}
