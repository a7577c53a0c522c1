//! How much the streams may reserve in all, and how much of that is taken.
//!
//! Two limits hold at once, and a stream that would go beyond one is refused without a figure: that of the
//! account, which the client protocol tells, and that of each server (`max_file_store`), which only its
//! monitoring endpoint tells. What a stream reserves is its `max_bytes`, empty or not.

use std::collections::HashMap;

use serde::Deserialize;

use crate::{
    api::{ApiError, ask},
    connection::Broker,
    monitoring::Store,
};

/// Who sets a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedBy {
    /// The account, on all servers together.
    Account,
    /// The server, or each of several that hold every stream.
    Server,
    /// So many servers, on which the streams are spread.
    Servers(usize),
}

/// What streams may reserve, and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreRoom {
    /// Who says so.
    pub limited_by: LimitedBy,
    /// How many bytes they may reserve.
    pub bytes_max: u64,
    /// How many they have reserved, those of other programs included.
    pub reserved_bytes: u64,
    /// How often each byte of a stream counts: once, or once for each of its copies.
    pub copies: u64,
}

impl StoreRoom {
    /// How many bytes all streams together may grow by.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.bytes_max.saturating_sub(self.reserved_bytes) / self.copies.max(1)
    }

    /// The limit that is reached first.
    #[must_use]
    pub fn tightest(rooms: impl IntoIterator<Item = Self>) -> Option<Self> {
        rooms.into_iter().min_by_key(Self::free_bytes)
    }

    /// What servers say of their stores, where a stream has so many copies. More servers than copies share
    /// the streams among them: how even, nobody tells, so they count together.
    #[must_use]
    pub fn of_servers(stores: &[Store], replicas: usize) -> Option<Self> {
        let of_one = |store: &Store| Self {
            limited_by: LimitedBy::Server,
            bytes_max: store.bytes_max,
            reserved_bytes: store.reserved_bytes,
            copies: 1,
        };
        if stores.len() <= replicas.max(1) {
            return Self::tightest(stores.iter().map(of_one));
        }
        Some(Self {
            limited_by: LimitedBy::Servers(stores.len()),
            bytes_max: stores.iter().map(|store| store.bytes_max).sum(),
            reserved_bytes: stores.iter().map(|store| store.reserved_bytes).sum(),
            copies: replicas as u64,
        })
    }

    fn of_account(info: &AccountInfo, replicas: usize) -> Option<Self> {
        // A tier counts a stream once, however many copies it has.
        let (tier, copies) = match info.tiers.get(&format!("R{replicas}")) {
            Some(tier) => (tier, 1),
            None => (&info.whole, replicas as u64),
        };
        let bytes_max = u64::try_from(tier.limits.max_storage).ok()?;
        let reserved_bytes = tier.reserved_storage;
        Some(Self { limited_by: LimitedBy::Account, bytes_max, reserved_bytes, copies })
    }
}

#[derive(Deserialize)]
struct AccountInfo {
    #[serde(flatten)]
    whole: Tier,
    #[serde(default)]
    tiers: HashMap<String, Tier>,
}

#[derive(Deserialize)]
struct Tier {
    #[serde(default)]
    reserved_storage: u64,
    #[serde(default)]
    limits: Limits,
}

#[derive(Deserialize)]
#[serde(default)]
struct Limits {
    /// Bytes; below 0 is any number.
    max_storage: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_storage: -1 }
    }
}

/// Asks what the account may reserve for streams with so many copies; nothing where only its servers limit it.
///
/// # Errors
/// When the broker refuses or does not answer.
///
/// # Cancel safety
/// Can be dropped.
pub async fn account_room(broker: &Broker, replicas: usize) -> Result<Option<StoreRoom>, ApiError> {
    let info: AccountInfo = ask(broker.publishing(), "INFO", &()).await?;
    Ok(StoreRoom::of_account(&info, replicas))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn store(bytes_max: u64, reserved_bytes: u64) -> Store {
        let server_id = String::new();
        Store { server_id, is_sync_always: true, bytes: 0, bytes_max, reserved_bytes }
    }

    #[test]
    fn of_servers_that_hold_every_stream_the_one_with_the_least_room_counts() {
        let stores = [store(100, 20), store(90, 60), store(100, 0)];

        let free = |stores, replicas| {
            StoreRoom::of_servers(stores, replicas).map(|room| (room.limited_by, room.free_bytes()))
        };

        assert_eq!(free(&stores, 3), Some((LimitedBy::Server, 30)));
        assert_eq!(free(&stores[..1], 1), Some((LimitedBy::Server, 80)));
        assert_eq!(free(&stores, 2), Some((LimitedBy::Servers(3), 105)));
        assert_eq!(free(&[], 1), None);
        assert_eq!(free(&[store(10, 20)], 1), Some((LimitedBy::Server, 0)));
    }

    #[test]
    fn an_account_counts_every_copy_but_by_tiers() {
        let told = |account: serde_json::Value, replicas| {
            let info = serde_json::from_value(account).expect("an answer of the broker");
            StoreRoom::of_account(&info, replicas).map(|room| room.free_bytes())
        };
        let whole = json!({ "reserved_storage": 40, "limits": { "max_storage": 100 } });
        let tiers = json!({
            "limits": { "max_storage": 0 },
            "tiers": { "R3": { "reserved_storage": 10, "limits": { "max_storage": 70 } } },
        });

        assert_eq!(told(whole.clone(), 1), Some(60));
        assert_eq!(told(whole, 3), Some(20));
        assert_eq!(told(tiers, 3), Some(60));
        assert_eq!(told(json!({ "limits": { "max_storage": -1 } }), 1), None);
    }
}
