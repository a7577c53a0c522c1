//! How full the streams are, asked of all of them together.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    api::{ApiError, ask_to_read},
    connection::Broker,
    reader::StreamState,
    size_limit::SizeLimit,
};

/// Pages that are asked for at most. The broker puts 256 streams on a page, so this is 65,536 streams;
/// an engine with the most partitions allowed has about 3,100.
const PAGES_MAX: usize = 256;

/// How full a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamUsage {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: StreamState,
    /// How many bytes it may hold; nothing when it has no limit of its own.
    pub bytes_max: Option<u64>,
    /// How many servers hold it.
    pub replicas: usize,
}

#[derive(Serialize)]
struct Page {
    offset: usize,
}

#[derive(Deserialize)]
struct Streams {
    #[serde(default)]
    total: usize,
    #[serde(default)]
    streams: Vec<Info>,
}

#[derive(Deserialize)]
struct Info {
    config: Config,
    state: StreamState,
}

#[derive(Deserialize)]
struct Config {
    name: String,
    #[serde(default)]
    max_bytes: SizeLimit,
    #[serde(default)]
    num_replicas: usize,
}

/// Asks how full every stream of the account is, those of other programs included.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn stream_usages(broker: &Broker) -> Result<Vec<StreamUsage>, ApiError> {
    let mut usages = Vec::new();
    let mut offset = 0;
    for _ in 0..PAGES_MAX {
        let page: Streams =
            ask_to_read(broker.publishing(), "STREAM.LIST", &Page { offset }).await?;
        offset += page.streams.len();
        let is_last = page.streams.is_empty() || offset >= page.total;
        usages.extend(page.streams.into_iter().map(|Info { config, state }| StreamUsage {
            name: config.name,
            state,
            bytes_max: config.max_bytes.bytes(),
            replicas: config.num_replicas,
        }));
        if is_last {
            break;
        }
    }
    Ok(usages)
}

/// What a stream holds on some of its subjects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubjectCount {
    /// Messages on all of them.
    pub messages: u64,
    /// Messages on that which has the most.
    pub most: u64,
    /// Bytes of the whole stream.
    pub bytes: u64,
    /// How many bytes the whole stream may hold; nothing when it has no limit of its own.
    pub bytes_max: Option<u64>,
}

#[derive(Serialize)]
struct OfSubjects<'a> {
    subjects_filter: &'a str,
    offset: usize,
}

#[derive(Deserialize)]
struct Counted {
    #[serde(default)]
    total: usize,
    config: Config,
    state: CountedState,
}

#[derive(Deserialize)]
struct CountedState {
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    subjects: Option<HashMap<String, u64>>,
}

/// Asks how many messages `stream` holds on the subjects that fit `filter`.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn subject_count(
    broker: &Broker,
    stream: &str,
    filter: &str,
) -> Result<SubjectCount, ApiError> {
    let mut count = SubjectCount::default();
    let mut offset = 0;
    for _ in 0..PAGES_MAX {
        let question = OfSubjects { subjects_filter: filter, offset };
        let request = format!("STREAM.INFO.{stream}");
        let info: Counted = ask_to_read(broker.publishing(), &request, &question).await?;
        count.bytes_max = info.config.max_bytes.bytes();
        count.bytes = info.state.bytes;
        let subjects = info.state.subjects.unwrap_or_default();
        count.messages += subjects.values().sum::<u64>();
        count.most = subjects.values().copied().fold(count.most, u64::max);
        offset += subjects.len();
        if subjects.is_empty() || offset >= info.total {
            break;
        }
    }
    Ok(count)
}
