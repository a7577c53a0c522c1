//! How much larger the streams of an engine can become where they are, and the command that makes them so.
//!
//! No advice goes beyond what is there: the account and the servers are asked first how much streams may
//! reserve. A server's limit is told by its monitoring endpoint alone; where nobody names one, it is not known.

use fermata_jetstream::Topology;
use fermata_jetstream::monitoring::{Store, store};
use fermata_jetstream::store_room::{LimitedBy, StoreRoom, account_room};
use fermata_jetstream::topology::Shortage;
use fermata_jetstream::usage::{StreamUsage, stream_usages};

use crate::arguments::GlobalArguments;
use crate::broker_session::{BrokerSession, EngineConfig};
use crate::commands::doctor::MONITOR_FILE;
use crate::commands::up::bytes;
use crate::error::{CliError, in_one_line};
use crate::output::size_text;

const MIB: i64 = 1024 * 1024;
const GIB: i64 = 1024 * MIB;

/// A stream has to become larger by an eighth at least: less fills up as soon as it is there.
const GROWTH_DIVISOR_MAX: i64 = 8;

/// How the engine's streams stand, and the limit on them.
#[derive(Debug)]
pub struct StreamRoom {
    /// The engine's own streams.
    pub usages: Vec<StreamUsage>,
    topology: Topology,
    /// Nothing where nobody limits them who could be asked.
    store: Option<StoreRoom>,
}

/// What gives a stream more room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// So many gibibytes for all streams together.
    Together {
        /// How many.
        gib: i64,
        /// Whether that is all there is.
        is_most: bool,
    },
    /// So many bytes for one of them.
    Alone {
        /// Which.
        stream: String,
        /// How many it is to hold.
        bytes: i64,
        /// Whether that is all there is.
        is_most: bool,
    },
    /// There is no room that would be of use.
    Nothing,
}

/// What the servers say of their stores: those at `named`, else the one of the local engine where
/// `session` is with it.
///
/// # Errors
///
/// When one that is named does not answer.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn stores(
    session: &BrokerSession,
    global: &GlobalArguments,
    named: &[String],
) -> Result<Vec<Store>, CliError> {
    let mut stores = Vec::new();
    for url in named {
        stores.push(store(url.trim()).await.map_err(|error| {
            let why = in_one_line(&error);
            CliError::Usage(format!("{why}; check the address given by `--monitor-url`"))
        })?);
    }
    if named.is_empty() {
        let url = std::fs::read_to_string(global.data_dir().join(MONITOR_FILE)).unwrap_or_default();
        let own = store(url.trim()).await.ok();
        let server_id = session.broker().server_id();
        // The folder may be that of another engine than the one that is asked about.
        stores.extend(own.filter(|own| own.server_id == server_id));
    }
    Ok(stores)
}

impl StreamRoom {
    /// Asks how full the engine's streams are, and how much they may be given.
    ///
    /// # Errors
    ///
    /// When the broker does not tell how full they are.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn look(
        session: &BrokerSession,
        config: &EngineConfig,
        stores: &[Store],
    ) -> Result<Self, CliError> {
        let topology = Topology { partitions: config.partitions, ..Topology::default() };
        let usages = stream_usages(session.broker()).await.map_err(|error| CliError::Failed {
            action: "asking how full the streams are".to_owned(),
            source: Box::new(error),
        })?;
        let room = Self::of(topology, usages, None);
        let replicas = room.usages.iter().map(|usage| usage.replicas).max().unwrap_or(1);
        // Who may not ask does not know the limit.
        let account = account_room(session.broker(), replicas).await.ok().flatten();
        let rooms = [account, StoreRoom::of_servers(stores, replicas)];
        let store = StoreRoom::tightest(rooms.into_iter().flatten());
        Ok(Self { store, ..room })
    }

    /// What of `usages` is the engine's own.
    #[must_use]
    pub fn of(topology: Topology, mut usages: Vec<StreamUsage>, store: Option<StoreRoom>) -> Self {
        let names = topology.streams().into_iter().map(|spec| spec.name);
        let names = names.collect::<std::collections::HashSet<_>>();
        usages.retain(|usage| names.contains(&usage.name));
        Self { usages, topology, store }
    }

    /// The topology of the engine, without regard to sizes.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    fn free_bytes(&self) -> Option<i64> {
        self.store.map(|store| bytes(store.free_bytes()))
    }

    /// Whether streams may reserve so many bytes more, as far as anybody tells.
    #[must_use]
    pub fn fits(&self, added_bytes: i64) -> bool {
        self.free_bytes().is_none_or(|free| added_bytes <= free)
    }

    fn sizes(&self) -> Vec<(String, i64)> {
        let size = |usage: &StreamUsage| (usage.name.clone(), size_of(usage));
        self.usages.iter().map(size).collect()
    }

    /// What gives each of `full`, the fullest first, twice as much, or as much as there is.
    #[must_use]
    pub fn advice(&self, full: &[&StreamUsage]) -> Advice {
        let sizes = self.sizes();
        let reserved = sizes.iter().map(|(_, bytes)| bytes).sum();
        let pairs =
            full.iter().map(|usage| (usage.name.clone(), size_of(usage))).collect::<Vec<_>>();
        let fits = |room: &i64| {
            let fitted = self.topology.clone().fitted_to(*room);
            self.fits(fitted.added_bytes(&sizes))
        };
        let doubled = self.topology.room_for(reserved, &pairs);
        if let Some(room) = doubled.filter(fits) {
            return Advice::Together { gib: room / GIB, is_most: false };
        }
        let most = self.free_bytes().and_then(|free| self.topology.room_within(&sizes, free));
        match most.filter(|room| doubled.is_some() && self.enlarges(*room, &pairs)) {
            Some(room) => Advice::Together { gib: room / GIB, is_most: true },
            None => full.first().map_or(Advice::Nothing, |fullest| self.alone(fullest, 0)),
        }
    }

    /// Whether each of `full` becomes larger in such a room, by as much as is of use.
    fn enlarges(&self, room: i64, full: &[(String, i64)]) -> bool {
        let specs = self.topology.clone().fitted_to(room).streams();
        full.iter().all(|(stream, bytes)| {
            let spec = specs.iter().find(|spec| spec.name == *stream);
            spec.is_some_and(|spec| spec.max_bytes >= bytes + bytes / GROWTH_DIVISOR_MAX)
        })
    }

    /// What gives one stream alone twice as much, or as much as there is, and `needed` bytes at least.
    #[must_use]
    pub fn alone(&self, usage: &StreamUsage, needed: u64) -> Advice {
        let (now, needed) = (size_of(usage), bytes(needed));
        let wanted = now.saturating_mul(2).max(needed.saturating_add(MIB - 1)) / MIB * MIB;
        let bytes = self.most_alone(usage).map_or(wanted, |most| most.min(wanted));
        if bytes < now + now / GROWTH_DIVISOR_MAX || bytes < needed {
            return Advice::Nothing;
        }
        Advice::Alone { stream: usage.name.clone(), bytes, is_most: bytes < wanted }
    }

    /// The most that one stream can be given, in whole mebibytes; nothing where that is not known.
    fn most_alone(&self, usage: &StreamUsage) -> Option<i64> {
        self.free_bytes().map(|free| size_of(usage).saturating_add(free) / MIB * MIB)
    }

    /// What to do, for people.
    #[must_use]
    pub fn told(&self, advice: &Advice) -> String {
        let beside = |is_most: bool| {
            match (&self.store, is_most) {
            (None, _) => {
                ", if the server has so much room: name its monitoring address with `--monitor-url`, \
                 and the command looks first"
                    .to_owned()
            }
            (Some(store), true) => format!(", the most that fits: {}", told_store(store)),
            (Some(_), false) => String::new(),
        }
        };
        match advice {
            Advice::Together { gib, is_most } => format!(
                "enlarge the streams in place with `fermata doctor --repair room --stream-room {gib}GiB`{}",
                beside(*is_most)
            ),
            Advice::Alone { stream, bytes, is_most } => format!(
                "enlarge it in place with `fermata doctor --repair room --only {stream} --to {}`{}",
                size_argument(*bytes),
                beside(*is_most)
            ),
            Advice::Nothing => self.told_nothing(),
        }
    }

    fn told_nothing(&self) -> String {
        let Some(store) = &self.store else {
            return "raise `max_file_store` in the `jetstream` block of the server's configuration"
                .to_owned();
        };
        let more = told_more(store);
        format!("no more that would be of use fits: {}; {more}", told_store(store))
    }

    /// Whether streams may reserve so many bytes more. `asked` is what takes them, and `only` the stream
    /// that alone was to become larger.
    ///
    /// # Errors
    ///
    /// [`CliError::Refused`] with what there is, and the most that fits.
    pub fn judge(
        &self,
        added_bytes: i64,
        asked: &str,
        only: Option<&StreamUsage>,
    ) -> Result<(), CliError> {
        let (Some(store), Some(free)) = (&self.store, self.free_bytes()) else { return Ok(()) };
        if added_bytes <= free {
            return Ok(());
        }
        let most = match only {
            Some(usage) => self
                .most_alone(usage)
                .filter(|most| *most > size_of(usage))
                .map(|most| format!("`--to {}`", size_argument(most))),
            None => self
                .topology
                .room_within(&self.sizes(), free)
                .map(|room| format!("`--stream-room {}`", size_argument(room))),
        };
        let most = match most {
            Some(most) => format!("{}; the most that fits is {most}", told_store(store)),
            None => self.told_nothing(),
        };
        let added = size_text(u64::try_from(added_bytes).unwrap_or(0));
        let copies = told_copies(store);
        Err(CliError::Refused(format!(
            "{asked} needs {added} more{copies}, which is more than there is: {most}; nothing was changed"
        )))
    }
}

fn size_of(usage: &StreamUsage) -> i64 {
    bytes(usage.bytes_max.unwrap_or(0))
}

fn told_store(store: &StoreRoom) -> String {
    let (most, reserved) = (size_text(store.bytes_max), size_text(store.reserved_bytes));
    let who = match store.limited_by {
        LimitedBy::Account => "the account has".to_owned(),
        LimitedBy::Server => "the server has".to_owned(),
        LimitedBy::Servers(count) => format!("the {count} servers together have"),
    };
    format!("{who} {most} for streams, of which {reserved} are reserved")
}

fn told_copies(store: &StoreRoom) -> String {
    match store.copies {
        0 | 1 => String::new(),
        copies => format!(", {copies} times over"),
    }
}

/// How there comes to be more.
fn told_more(store: &StoreRoom) -> &'static str {
    match store.limited_by {
        LimitedBy::Account => {
            "raise `max_file` in the `jetstream` block of the account, in the servers' configuration"
        }
        LimitedBy::Server | LimitedBy::Servers(_) => {
            "raise `max_file_store` in the `jetstream` block of the server's configuration and start it anew \
             (that of `fermata up` takes three quarters of what its disk has free when it starts: free some)"
        }
    }
}

/// Why no stream of an engine was made, and what to do.
#[must_use]
pub fn told_shortage(Shortage { needed_bytes, room, most_bytes }: &Shortage) -> String {
    let needed = size_text(u64::try_from(*needed_bytes).unwrap_or(0));
    let (copies, store, more) = (told_copies(room), told_store(room), told_more(room));
    let most = match most_bytes {
        Some(most) => format!("the most that fits is `--stream-room {}`", size_argument(*most)),
        None => "not even the least, `--stream-room 2GiB`, fits".to_owned(),
    };
    format!(
        "the streams that are to be made need {needed}{copies}, which is more than there is: {store}; nothing was \
         made; {most}, or {more}"
    )
}

/// A size as it is typed: a whole number of the largest unit that has one.
fn size_argument(bytes: i64) -> String {
    match bytes {
        bytes if bytes % GIB == 0 => format!("{}GiB", bytes / GIB),
        bytes if bytes % MIB == 0 => format!("{}MiB", bytes / MIB),
        bytes => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests;
