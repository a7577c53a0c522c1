//! How streams that are there get more room: all of them that were asked for, or none.

use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use super::{PER_SUBJECT, StreamSpec, TopologyError, failure, found_config};
use crate::{
    api::{ApiError, ask},
    connection::Broker,
    reader::StreamState,
    size_limit::{MAX_BYTES, SizeLimit},
};

/// A stream that is given more room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enlarged {
    /// Its name.
    pub stream: String,
    /// How many bytes it holds when it is full.
    pub from_bytes: i64,
    /// How many it is to hold.
    pub to_bytes: i64,
}

/// A stream could not be enlarged, so none stays so that may become smaller again.
#[derive(Debug, Error)]
#[error("the streams were not enlarged{}", left(*set_back, still_larger))]
pub struct EnlargeError {
    /// How many streams were enlarged before, and are as they were.
    pub set_back: usize,
    /// Streams that were enlarged and stay so: they could not be set back, or would have lost what they hold.
    pub still_larger: Vec<String>,
    /// What happened to the one that could not be enlarged.
    #[source]
    pub source: TopologyError,
}

fn left(set_back: usize, still_larger: &[String]) -> String {
    let set_back = match set_back {
        0 if still_larger.is_empty() => "; nothing was changed".to_owned(),
        0 => String::new(),
        1 => "; 1 that was has the room again that it had".to_owned(),
        more => format!("; {more} that were have the room again that they had"),
    };
    match still_larger {
        [] => set_back,
        names => format!(
            "{set_back}; these are larger still, as the broker did not answer, or they would have lost what they \
             hold: {}",
            names.join(", ")
        ),
    }
}

/// Streams that are to be enlarged, and as yet are not.
#[derive(Debug)]
pub struct Enlargement {
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    enlarged: Enlarged,
    /// How many messages a subject might have, where it may have more now: what follows from the size grows with it.
    per_subject_before: Option<i64>,
    config: Map<String, Value>,
}

impl Step {
    /// Nothing where the stream has as much, or no limit of its own.
    fn of(spec: &StreamSpec, found: Value) -> Option<Self> {
        let from_bytes = SizeLimit::of(&found).signed()?;
        let Value::Object(mut config) = found else { return None };
        if from_bytes >= spec.max_bytes {
            return None;
        }
        config.insert(MAX_BYTES.to_owned(), spec.max_bytes.into());
        let bound = spec.clone().sized_for(spec.max_bytes).max_msgs_per_subject;
        let per_subject = config.get(PER_SUBJECT).and_then(Value::as_i64);
        let per_subject_before = per_subject.filter(|found| *found > 0 && *found < bound);
        if per_subject_before.is_some() {
            config.insert(PER_SUBJECT.to_owned(), bound.into());
        }
        let (stream, to_bytes) = (spec.name.clone(), spec.max_bytes);
        let enlarged = Enlarged { stream, from_bytes, to_bytes };
        Some(Self { enlarged, per_subject_before, config })
    }

    async fn enlarge(&self, broker: &Broker) -> Result<(), ApiError> {
        let request = format!("STREAM.UPDATE.{}", self.enlarged.stream);
        ask::<Value>(broker.publishing(), &request, &self.config).await.map(|_| ())
    }

    /// Whether nothing is lost where it becomes as small as it was: a bound on the messages of a subject
    /// takes those beyond it away at once.
    fn may_shrink(&self, held: StreamState) -> bool {
        let fits = i64::try_from(held.bytes).is_ok_and(|bytes| bytes <= self.enlarged.from_bytes);
        fits && (self.per_subject_before.is_none() || held.messages == 0)
    }

    /// Gives it the room that it had, if it has more.
    async fn set_back(&self, broker: &Broker) -> Result<SetBack, ApiError> {
        let Enlarged { stream, from_bytes, to_bytes } = &self.enlarged;
        let request = format!("STREAM.INFO.{stream}");
        let Found { config, state } = ask(broker.publishing(), &request, &()).await?;
        let limit = SizeLimit::of(&config).signed();
        let Value::Object(mut config) = config else { return Ok(SetBack::Refused) };
        match limit {
            Some(found) if found == *from_bytes => return Ok(SetBack::NeverGrew),
            Some(found) if found == *to_bytes && self.may_shrink(state) => {}
            Some(_) | None => return Ok(SetBack::Refused),
        }
        config.insert(MAX_BYTES.to_owned(), (*from_bytes).into());
        if let Some(bound) = self.per_subject_before {
            config.insert(PER_SUBJECT.to_owned(), bound.into());
        }
        let request = format!("STREAM.UPDATE.{stream}");
        ask::<Value>(broker.publishing(), &request, &config).await?;
        Ok(SetBack::Done)
    }
}

/// What came of setting a stream back.
enum SetBack {
    Done,
    NeverGrew,
    /// Somebody changed it meanwhile, or it would lose what it holds.
    Refused,
}

#[derive(Deserialize)]
struct Found {
    config: Value,
    state: StreamState,
}

impl Enlargement {
    /// What has to be done for each stream of `specs` that is there to hold as much as is said there. Nothing
    /// shrinks, and nothing else is changed.
    ///
    /// # Errors
    /// When the broker refuses or does not answer.
    ///
    /// # Cancel safety
    /// Can be dropped.
    pub async fn plan(broker: &Broker, specs: &[StreamSpec]) -> Result<Self, TopologyError> {
        let mut steps = Vec::new();
        for spec in specs {
            let found = found_config(broker, &spec.name).await;
            let found = found.map_err(|error| failure(&spec.name, spec.max_bytes, error))?;
            steps.extend(found.and_then(|config| Step::of(spec, config)));
        }
        Ok(Self { steps })
    }

    /// How many bytes more all of them reserve then.
    #[must_use]
    pub fn added_bytes(&self) -> i64 {
        self.steps.iter().map(|step| step.enlarged.to_bytes - step.enlarged.from_bytes).sum()
    }

    /// The streams, in the order in which they are enlarged.
    #[must_use]
    pub fn into_streams(self) -> Vec<Enlarged> {
        self.steps.into_iter().map(|step| step.enlarged).collect()
    }

    /// Enlarges them. Where one is refused, those before it are set back to what they were.
    ///
    /// # Errors
    /// When the broker has not the room, refuses or does not answer; the error says what is larger all the same.
    ///
    /// # Cancel safety
    /// Some streams may have been enlarged; plan and make it again.
    pub async fn make(self, broker: &Broker) -> Result<Vec<Enlarged>, EnlargeError> {
        for (before, step) in self.steps.iter().enumerate() {
            let Err(error) = step.enlarge(broker).await else { continue };
            // One that nobody answered for may be larger all the same.
            let touched = before + usize::from(error.code().is_none());
            let Enlarged { stream, to_bytes, .. } = &step.enlarged;
            let source = failure(stream, *to_bytes, error);
            return Err(set_back(broker, self.steps.iter().take(touched), source).await);
        }
        Ok(self.into_streams())
    }
}

async fn set_back(
    broker: &Broker,
    touched: impl Iterator<Item = &Step>,
    source: TopologyError,
) -> EnlargeError {
    let mut error = EnlargeError { set_back: 0, still_larger: Vec::new(), source };
    for step in touched {
        match step.set_back(broker).await {
            Ok(SetBack::Done) => error.set_back += 1,
            Ok(SetBack::NeverGrew) => {}
            Ok(SetBack::Refused) | Err(_) => error.still_larger.push(step.enlarged.stream.clone()),
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Topology, topology::DEAD_STREAM};

    fn step(stream: &str) -> Step {
        let of = |topology: Topology| {
            let is_it = |spec: &StreamSpec| spec.name == stream;
            topology.streams().into_iter().find(is_it).expect("a stream of ours")
        };
        let found = of(Topology::default().fitted_to(8 << 30));
        let found = serde_json::to_value(found).expect("a specification is JSON");
        let enlarged = of(Topology::default().fitted_to(40 << 30));
        Step::of(&enlarged, found).expect("it has less")
    }

    #[test]
    fn a_stream_that_has_as_much_or_no_limit_stays_as_it_is() {
        let spec = Topology::default().streams().remove(1);
        let of = |max_bytes: i64| {
            let found = StreamSpec { max_bytes, ..spec.clone() };
            Step::of(&spec, serde_json::to_value(found).expect("a specification is JSON"))
        };

        assert!(of(spec.max_bytes).is_none() && of(spec.max_bytes + 1).is_none());
        assert!(of(-1).is_none() && of(0).is_none());
        assert_eq!(of(1).expect("it has less").enlarged.from_bytes, 1);
    }

    #[test]
    fn a_stream_that_would_lose_what_it_holds_is_not_set_back() {
        let held = |bytes: i64, messages| {
            let bytes = u64::try_from(bytes).expect("a number of bytes");
            StreamState { bytes, messages, ..StreamState::default() }
        };

        let events = step("EVENTS");
        let before = events.enlarged.from_bytes;
        assert!(events.may_shrink(held(before, 9)) && !events.may_shrink(held(before + 1, 9)));
        // Fewer messages of a subject may be in it then.
        let letters = step(DEAD_STREAM);
        assert!(letters.may_shrink(held(0, 0)) && !letters.may_shrink(held(100, 1)));
    }

    #[test]
    fn what_is_left_larger_is_named() {
        let error = |set_back, still_larger: &[&str]| {
            left(set_back, &still_larger.iter().map(ToString::to_string).collect::<Vec<_>>())
        };

        assert_eq!(error(2, &[]), "; 2 that were have the room again that they had");
        assert!(error(1, &["DEAD", "EVENTS"]).ends_with("hold: DEAD, EVENTS"));
    }
}
