//! How full the streams are, asked of all of them together.

use serde::{Deserialize, Serialize};

use crate::{
    api::{ApiError, ask},
    connection::Broker,
    reader::StreamState,
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
    max_bytes: i64,
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
        let page: Streams = ask(broker.publishing(), "STREAM.LIST", &Page { offset }).await?;
        offset += page.streams.len();
        let is_last = page.streams.is_empty() || offset >= page.total;
        usages.extend(page.streams.into_iter().map(|Info { config, state }| StreamUsage {
            name: config.name,
            state,
            bytes_max: u64::try_from(config.max_bytes).ok().filter(|bytes| *bytes > 0),
        }));
        if is_last {
            break;
        }
    }
    Ok(usages)
}
