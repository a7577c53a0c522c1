//! How streams come to be there: all that are missing, or none of them.
//!
//! What is missing is added up and compared with what streams may reserve before the first one is made. Where
//! nobody tells the limit, or another program takes the room meanwhile, the broker refuses one half-way: then
//! what was made and holds nothing is removed again. Else it would keep the room from a start that asks for less.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Applied, CONFIG_STREAM, DEAD_STREAM, DEAD_SUBJECTS, Limits, PER_SUBJECT, StreamSpec, Topology,
    TopologyError, drift, failed, failure, found_config,
};
use crate::{
    api::{ApiError, STREAM_NAME_IN_USE, ask},
    connection::Broker,
    monitoring::store,
    size_limit::SizeLimit,
    store_room::{StoreRoom, account_room},
    usage::subject_count,
};

/// How often is looked whether all is there: another start that was refused may remove what this one had found.
const LOOKS_MAX: usize = 4;

/// Streams that are to be made and would not all fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What they reserve together, in bytes; every server that holds them needs as much.
    pub needed_bytes: i64,
    /// What there is.
    pub room: StoreRoom,
    /// The most that all streams of the engine may be given, in bytes, so that these fit; nothing where no
    /// size does.
    pub most_bytes: Option<i64>,
}

/// A stream, and how it is configured if it is there.
type Looked = (StreamSpec, Option<Value>);

impl Topology {
    /// Creates what is missing and reports what differs. Several starters may do this at once. At `monitor_url`,
    /// as in `http://127.0.0.1:8222`, the server tells how much room it has; without, the account's limit is
    /// known alone.
    ///
    /// # Errors
    /// When not all fit, and the broker refuses a stream or does not answer. Of what was refused no stream is left
    /// that was made just now and holds nothing.
    ///
    /// # Cancel safety
    /// Some streams may have been created; apply again.
    pub async fn apply_within(
        &self,
        broker: &Broker,
        monitor_url: Option<&str>,
    ) -> Result<Applied, TopologyError> {
        self.apply_those(broker, monitor_url, |_| true).await
    }

    /// As [`Topology::apply_within`], where nobody tells how much room the server has.
    ///
    /// # Errors
    /// As [`Topology::apply_within`].
    ///
    /// # Cancel safety
    /// Some streams may have been created; apply again.
    pub async fn apply(&self, broker: &Broker) -> Result<Applied, TopologyError> {
        self.apply_within(broker, None).await
    }

    /// Creates the stream of the engine's configuration alone: what it says comes before all others. Of a new
    /// engine nothing is made unless all of it fits.
    /// Returns this topology with as many replicas as that stream has: whoever creates it decides for all.
    ///
    /// # Errors
    /// As [`Topology::apply_within`].
    ///
    /// # Cancel safety
    /// The stream may have been created; apply again.
    pub async fn apply_config(
        &self,
        broker: &Broker,
        monitor_url: Option<&str>,
    ) -> Result<Self, TopologyError> {
        let is_config = |stream: &str| stream == CONFIG_STREAM;
        if !missing(&self.look(broker, is_config).await?).is_empty() {
            let looked = self.look(broker, |_| true).await?;
            self.judge(broker, monitor_url, &missing(&looked)).await?;
        }
        let applied = self.apply_those(broker, monitor_url, is_config).await?;
        let other = applied.drift.iter().find(|drift| drift.field == "num_replicas");
        let replicas = other
            .and_then(|drift| usize::try_from(drift.found.as_u64()?).ok())
            .unwrap_or(self.replicas);
        Ok(Self { replicas, ..self.clone() })
    }

    async fn apply_those(
        &self,
        broker: &Broker,
        monitor_url: Option<&str>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Applied, TopologyError> {
        let mut applied = Applied::default();
        let mut looked = self.look(broker, &wanted).await?;
        for _ in 1..LOOKS_MAX {
            let missing = missing(&looked);
            if missing.is_empty() {
                break;
            }
            if let Err(error) = self.judge(broker, monitor_url, &missing).await {
                // Another starter may have made some of them since, and their room is taken for these.
                looked = self.look(broker, &wanted).await?;
                if matches!(error, TopologyError::NotAllFit(_))
                    && still_missing(&looked) < missing.len()
                {
                    continue;
                }
                return Err(error);
            }
            make(broker, &missing, &mut applied.created).await?;
            looked = self.look(broker, &wanted).await?;
        }
        for (spec, config) in looked {
            let failed = failed(&spec);
            let Some(config) = config else {
                let request = format!("$JS.API.STREAM.INFO.{}", spec.name);
                return Err(failed(ApiError::NoResponders { request }));
            };
            let mut found = drift(&spec, &config);
            if bound_letters(broker, &spec, config).await.map_err(&failed)? {
                found.retain(|drift| drift.field != PER_SUBJECT);
            }
            applied.drift.extend(found);
        }
        Ok(applied)
    }

    /// How each stream that is `wanted` stands.
    pub(super) async fn look(
        &self,
        broker: &Broker,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<Looked>, TopologyError> {
        let mut looked = Vec::new();
        for spec in self.streams().into_iter().filter(|spec| wanted(&spec.name)) {
            let config = found_config(broker, &spec.name).await.map_err(failed(&spec))?;
            looked.push((spec, config));
        }
        Ok(looked)
    }

    /// Whether all of `missing` fit, as far as anybody tells. The broker has the last word.
    async fn judge(
        &self,
        broker: &Broker,
        monitor_url: Option<&str>,
        missing: &[StreamSpec],
    ) -> Result<(), TopologyError> {
        // Who may not ask does not know the limit.
        let account = account_room(broker, self.replicas).await.ok().flatten();
        let store = match monitor_url {
            Some(url) => store(url).await.ok().filter(|store| store.bytes_max > 0),
            None => None,
        };
        let server = StoreRoom::of_servers(store.as_slice(), self.replicas);
        let Some(room) = StoreRoom::tightest([account, server].into_iter().flatten()) else {
            return Ok(());
        };
        match self.shortage(missing, room) {
            Some(shortage) => Err(TopologyError::NotAllFit(shortage)),
            None => Ok(()),
        }
    }

    /// What of `missing` lacks room, if they do not all fit.
    fn shortage(&self, missing: &[StreamSpec], room: StoreRoom) -> Option<Shortage> {
        let needed_bytes = missing.iter().map(|spec| spec.max_bytes).sum();
        let free_bytes = i64::try_from(room.free_bytes()).unwrap_or(i64::MAX);
        if needed_bytes <= free_bytes {
            return None;
        }
        let names = missing.iter().map(|spec| spec.name.as_str()).collect::<HashSet<_>>();
        let whole = Self { limits: Limits::default(), ..self.clone() };
        let needed = |bytes| {
            let specs = whole.clone().fitted_to(bytes).streams();
            let those = specs.iter().filter(|spec| names.contains(spec.name.as_str()));
            those.map(|spec| spec.max_bytes).sum::<i64>()
        };
        let most_bytes = super::room::largest_room(|bytes| needed(bytes) <= free_bytes);
        Some(Shortage { needed_bytes, room, most_bytes })
    }
}

fn missing(looked: &[Looked]) -> Vec<StreamSpec> {
    looked.iter().filter(|(_, config)| config.is_none()).map(|(spec, _)| spec.clone()).collect()
}

fn still_missing(looked: &[Looked]) -> usize {
    looked.iter().filter(|(_, config)| config.is_none()).count()
}

/// Makes all of `missing`, and names them in `created`. Another starter may be faster with another configuration.
async fn make(
    broker: &Broker,
    missing: &[StreamSpec],
    created: &mut Vec<String>,
) -> Result<(), TopologyError> {
    for spec in missing {
        let request = format!("STREAM.CREATE.{}", spec.name);
        match ask::<Value>(broker.publishing(), &request, spec).await {
            Ok(_) => created.push(spec.name.clone()),
            Err(error) if error.code() == Some(STREAM_NAME_IN_USE) => {}
            // It is tried again, and finds what is there.
            Err(error) if error.is_transient() => return Err(failed(spec)(error)),
            Err(error) => {
                let removed = unmake(broker, created).await;
                return Err(match failure(&spec.name, spec.max_bytes, error) {
                    TopologyError::NoRoom { stream, max_bytes, .. } => {
                        TopologyError::NoRoom { stream, max_bytes, removed }
                    }
                    other @ (TopologyError::NotAllFit(_) | TopologyError::Api { .. }) => other,
                });
            }
        }
    }
    Ok(())
}

/// Removes what of `created` holds nothing and nobody reads, and tells how many those were.
async fn unmake(broker: &Broker, created: &[String]) -> usize {
    let mut removed = 0;
    for stream in created.iter().rev() {
        match remove_unused(broker, stream).await {
            Ok(is_removed) => removed += usize::from(is_removed),
            // Who may not remove streams is not answered, and does not wait for each of them.
            Err(_) => break,
        }
    }
    removed
}

#[derive(Deserialize)]
struct Held {
    state: HeldState,
}

#[derive(Deserialize)]
struct HeldState {
    last_seq: u64,
    #[serde(default)]
    consumer_count: usize,
}

async fn remove_unused(broker: &Broker, stream: &str) -> Result<bool, ApiError> {
    let request = format!("STREAM.INFO.{stream}");
    let Held { state } = ask(broker.publishing(), &request, &()).await?;
    if state.last_seq > 0 || state.consumer_count > 0 {
        return Ok(false);
    }
    let request = format!("STREAM.DELETE.{stream}");
    ask::<Value>(broker.publishing(), &request, &()).await?;
    Ok(true)
}

/// Bounds how many letters a subject of DEAD may have, where an older program made it without: only while
/// no letter goes by it. Else it stays as it is, and is told as drift.
async fn bound_letters(
    broker: &Broker,
    spec: &StreamSpec,
    mut config: Value,
) -> Result<bool, ApiError> {
    let is_bounded = config.get(PER_SUBJECT).and_then(Value::as_i64).is_some_and(|found| found > 0);
    let max_bytes = SizeLimit::of(&config).signed().unwrap_or(spec.max_bytes);
    let bound = spec.clone().sized_for(max_bytes).max_msgs_per_subject;
    let Value::Object(fields) = &mut config else { return Ok(false) };
    if spec.name != DEAD_STREAM || is_bounded {
        return Ok(false);
    }
    let count = subject_count(broker, DEAD_STREAM, DEAD_SUBJECTS).await?;
    if i64::try_from(count.most).is_ok_and(|most| most > bound) {
        return Ok(false);
    }
    fields.insert(PER_SUBJECT.to_owned(), bound.into());
    let request = format!("STREAM.UPDATE.{DEAD_STREAM}");
    ask::<Value>(broker.publishing(), &request, fields).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_room::LimitedBy;

    const GIB: i64 = 1 << 30;

    fn short(of_gib: i64, free_gib: u64, copies: u64) -> Option<Shortage> {
        let topology = Topology::default().fitted_to(of_gib * GIB);
        let room = StoreRoom {
            limited_by: LimitedBy::Server,
            bytes_max: (free_gib + 5) << 30,
            reserved_bytes: 5 << 30,
            copies,
        };
        topology.shortage(&topology.streams(), room)
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_most_that_does() {
        assert_eq!(short(8, 9, 1), None);
        let shortage = short(900, 20, 1).expect("too much");
        assert!(shortage.needed_bytes > 890 * GIB, "{shortage:?}");
        assert_eq!(shortage.most_bytes, Some(19 * GIB), "what is not scaled comes on top");
        assert_eq!(short(8, 1, 1).expect("too much").most_bytes, None, "2 GiB is the least");
    }

    #[test]
    fn an_account_that_counts_every_copy_has_a_third_of_its_room() {
        assert_eq!(short(8, 30, 3), None);
        let shortage = short(12, 30, 3).expect("too much");
        assert_eq!(shortage.most_bytes, Some(9 * GIB));
    }
}
