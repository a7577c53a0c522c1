//! Correlation keys, so that a copy of all of them is a pointer per shard.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::Correlation;
use crate::identity::Tenant;

/// Shards of the keys. After a copy was taken the first change of a shard copies its pointers:
/// with a million keys a thousand of them, some ten microseconds.
const SHARDS: u64 = 1_024;

type OfTenant = BTreeMap<Arc<str>, Arc<Correlation>>;
type Shard = BTreeMap<Tenant, OfTenant>;

/// What stands under each key. Shards and what is in them are shared with the copies that were
/// taken, and copied when they are changed next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Keys {
    /// Those that hold any.
    shards: BTreeMap<u64, Arc<Shard>>,
}

fn shard_of(tenant: &Tenant, key: &str) -> u64 {
    // Without a secret: whoever chooses keys to meet in a shard makes its copies dearer, no more.
    let mut hasher = DefaultHasher::new();
    (tenant, key).hash(&mut hasher);
    hasher.finish() % SHARDS
}

impl Keys {
    pub(super) fn get(&self, tenant: &Tenant, key: &str) -> Option<&Correlation> {
        let known = self.shards.get(&shard_of(tenant, key))?.get(tenant)?.get(key)?;
        Some(known)
    }

    pub(super) fn get_or_insert(&mut self, tenant: &Tenant, key: &Arc<str>) -> &mut Correlation {
        let shard = Arc::make_mut(self.shards.entry(shard_of(tenant, key)).or_default());
        let known = shard.entry(tenant.clone()).or_default().entry(key.clone()).or_default();
        Arc::make_mut(known)
    }

    pub(super) fn remove(&mut self, tenant: &Tenant, key: &str) {
        let number = shard_of(tenant, key);
        let Some(shard) = self.shards.get_mut(&number).map(Arc::make_mut) else { return };
        let Some(keys) = shard.get_mut(tenant) else { return };
        keys.remove(key);
        if keys.is_empty() {
            shard.remove(tenant);
        }
        if shard.is_empty() {
            self.shards.remove(&number);
        }
    }

    /// Every key, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Tenant, &OfTenant)> {
        self.shards.values().flat_map(|shard| shard.iter())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> (Tenant, Arc<str>) {
        let tenant = format!("tenant-{}", number % 3).parse().unwrap();
        (tenant, format!("order-{}", number / 3).into())
    }

    proptest! {
        #[test]
        fn a_copy_stays_as_it_was_and_the_rest_behaves_like_a_map(
            acts in prop::collection::vec((0..24_u8, any::<u64>(), 0..3_u8), 1..60),
        ) {
            let (mut keys, mut model) = (Keys::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (number, value, act) in acts {
                let (tenant, key) = key(number);
                match act {
                    0 => {
                        keys.remove(&tenant, &key);
                        model.remove(&(tenant, key));
                    }
                    1 => copies.push((keys.clone(), model.clone())),
                    _ => {
                        keys.get_or_insert(&tenant, &key).kept.push(value);
                        model.entry((tenant, key)).or_insert_with(Vec::new).push(value);
                    }
                }
            }
            copies.push((keys, model));
            for (keys, model) in copies {
                let of = |(tenant, keys): (&Tenant, &OfTenant)| {
                    let pair = |(key, known): (&Arc<str>, &Arc<Correlation>)| {
                        ((tenant.clone(), key.clone()), known.kept.clone())
                    };
                    keys.iter().map(pair).collect::<Vec<_>>()
                };
                let found: BTreeMap<_, _> = keys.iter().flat_map(of).collect();
                prop_assert_eq!(&found, &model);
                prop_assert_eq!(keys.shards.is_empty(), model.is_empty());
            }
        }
    }
}
