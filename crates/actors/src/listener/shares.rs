//! Who is above their share of the way in, while there is too little of it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use fermata_core::identity::Tenant;
use tokio::time::Instant;

/// How long events are counted together: a share is of what came in the last one to two of these.
pub const SHARE_WINDOW: Duration = Duration::from_secs(1);

/// How long after its last event a tenant counts as there: where only one is, nobody is above.
/// Whoever was there within the hour may come again any moment, behind what another one left.
pub const TENANT_SEEN_FOR: Duration = Duration::from_secs(60 * 60);

/// Of all events that are counted, one part in so many is shared out among tenants that go on
/// directly. Small: a part that goes directly and is more than the engine gets done keeps the
/// listener waiting, while one that is spilled costs being stored once more.
pub const SHARED_OUT: u64 = 4;

/// So many counted events are never above: small numbers say nothing about who floods.
pub const SHARE_EVENTS_MIN: u64 = 64;

/// Tenants that are counted at most; others are never above.
pub const TENANTS_COUNTED_MAX: usize = 10_000;

/// Events of a tenant in the last window and in this one.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    before: u64,
    now: u64,
}

impl Counted {
    fn sum(self) -> u64 {
        self.before.saturating_add(self.now)
    }
}

/// Events by tenant, of the last one to two windows.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    counted: HashMap<Tenant, Counted>,
    window_began: Option<Instant>,
}

impl Counts {
    pub(crate) fn count<'a>(&mut self, tenants: impl Iterator<Item = &'a Tenant>, now: Instant) {
        self.roll(now);
        for tenant in tenants {
            self.add(tenant, 1);
        }
    }

    /// How many of each are counted; none are afterwards.
    pub(crate) fn take(&mut self, now: Instant) -> HashMap<Tenant, u64> {
        self.roll(now);
        let Self { counted, .. } = std::mem::take(self);
        counted.into_iter().map(|(tenant, counted)| (tenant, counted.sum())).collect()
    }

    /// What is older than two windows is not counted any more.
    fn roll(&mut self, now: Instant) {
        let began = *self.window_began.get_or_insert(now);
        let windows = now.duration_since(began).as_secs_f64() / SHARE_WINDOW.as_secs_f64();
        if windows >= 1.0 {
            self.window_began = Some(now);
            self.counted.retain(|_, counted| {
                *counted = Counted { before: if windows < 2.0 { counted.now } else { 0 }, now: 0 };
                counted.before > 0
            });
        }
    }

    fn add(&mut self, tenant: &Tenant, events: u64) {
        if let Some(counted) = self.counted.get_mut(tenant) {
            counted.now = counted.now.saturating_add(events);
        } else if self.counted.len() < TENANTS_COUNTED_MAX {
            self.counted.insert(tenant.clone(), Counted { before: 0, now: events });
        }
    }

    fn sum_of(&self, tenant: &Tenant) -> u64 {
        self.counted.get(tenant).map_or(0, |counted| counted.sum())
    }

    /// The share of each.
    fn share(&self) -> u64 {
        share(self.counted.values().map(|counted| counted.sum()).collect())
    }
}

/// Which tenants were seen, and while room is short how many events of each.
#[derive(Debug, Default)]
pub(super) struct Shares {
    newest: Option<Tenant>,
    /// When one was last seen that is not the newest.
    other_seen: Option<Instant>,
    counts: Counts,
}

impl Shares {
    /// Takes note of the tenants of events; tells whether there is more than one lately.
    pub(super) fn see<'a>(
        &mut self,
        tenants: impl Iterator<Item = &'a Tenant>,
        now: Instant,
    ) -> bool {
        for tenant in tenants {
            if self.newest.as_ref() != Some(tenant) {
                let before = self.newest.replace(tenant.clone());
                self.other_seen = before.map(|_| now).or(self.other_seen);
            }
        }
        self.other_seen.is_some_and(|seen| now.duration_since(seen) < TENANT_SEEN_FOR)
    }

    /// Counts events by tenant, while room is short; tells which of the tenants are above their
    /// share now.
    pub(super) fn above<'a>(
        &mut self,
        tenants: impl Iterator<Item = &'a Tenant> + Clone,
        now: Instant,
    ) -> BTreeSet<Tenant> {
        self.counts.count(tenants.clone(), now);
        let share = self.counts.share();
        tenants.filter(|tenant| self.counts.sum_of(tenant) > share).cloned().collect()
    }

    /// There is room: what was counted is of no use any more.
    pub(super) fn forget(&mut self) {
        self.counts = Counts::default();
    }

    /// Counts what came out of lanes, too: who publishes little is not above its share because
    /// nobody else publishes while a flood drains.
    pub(super) fn drained(&mut self, events: HashMap<Tenant, u64>, now: Instant) {
        self.counts.roll(now);
        for (tenant, events) in events {
            self.counts.add(&tenant, events);
        }
    }
}

/// The share of each where so many events are counted of each: max-min fair, so who has less
/// leaves the rest to the others.
fn share(mut counts: Vec<u64>) -> u64 {
    counts.sort_unstable();
    let mut left = counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count)) / SHARED_OUT;
    let mut sharing = counts.len() as u64;
    for count in counts {
        if count.saturating_mul(sharing) > left {
            break;
        }
        left -= count;
        sharing -= 1;
    }
    left.checked_div(sharing).unwrap_or(u64::MAX).max(SHARE_EVENTS_MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(number: u8) -> Tenant {
        format!("t{number}").parse().expect("a tenant")
    }

    fn batch(numbers: &[u8]) -> Vec<Tenant> {
        numbers.iter().map(|number| tenant(*number)).collect()
    }

    /// As a listener asks.
    fn above(shares: &mut Shares, batch: &[Tenant], is_short: bool, at: Instant) -> Vec<Tenant> {
        if !shares.see(batch.iter(), at) {
            return Vec::new();
        }
        if !is_short {
            shares.forget();
            return Vec::new();
        }
        shares.above(batch.iter(), at).into_iter().collect()
    }

    /// A flood of tenant 0 with one event of tenant 1 in it.
    fn flood() -> Vec<Tenant> {
        let mut flood = vec![0; 999];
        flood.push(1);
        batch(&flood)
    }

    #[test]
    fn who_floods_is_above_and_who_is_beside_it_is_not() {
        let mut shares = Shares::default();

        assert_eq!(above(&mut shares, &flood(), true, Instant::now()), [tenant(0)]);
    }

    #[test]
    fn nobody_is_above_where_there_is_room() {
        let (mut shares, now) = (Shares::default(), Instant::now());

        assert_eq!(above(&mut shares, &flood(), false, now), []);
        assert_eq!(above(&mut shares, &flood(), true, now), [tenant(0)]);
        assert_eq!(above(&mut shares, &flood(), false, now), []);
    }

    #[test]
    fn a_tenant_that_was_alone_for_long_is_alone() {
        let (mut shares, now) = (Shares::default(), Instant::now());
        let alone = batch(&[0; 1_000]);

        above(&mut shares, &flood(), true, now);
        let soon = now + TENANT_SEEN_FOR / 2;
        assert_eq!(above(&mut shares, &alone, true, soon), [tenant(0)]);
        let late = soon + TENANT_SEEN_FOR;

        assert_eq!(above(&mut shares, &alone, true, late), []);
    }

    #[test]
    fn who_publishes_alone_while_a_flood_of_another_one_drains_is_not_above() {
        let (mut shares, now) = (Shares::default(), Instant::now());
        above(&mut shares, &flood(), true, now);
        let few = batch(&[1; 200]);
        assert_eq!(above(&mut shares, &few, true, now + SHARE_WINDOW * 4), [tenant(1)]);

        let later = now + SHARE_WINDOW * 8;
        shares.drained(HashMap::from([(tenant(0), 10_000)]), later);

        assert_eq!(above(&mut shares, &few, true, later), []);
    }

    #[test]
    fn what_came_long_ago_does_not_count() {
        let (mut shares, now) = (Shares::default(), Instant::now());
        above(&mut shares, &flood(), true, now);
        let few = batch(&[0, 1]);

        assert_eq!(above(&mut shares, &few, true, now + SHARE_WINDOW), [tenant(0)]);
        assert_eq!(above(&mut shares, &few, true, now + SHARE_WINDOW * 4), []);
    }

    proptest! {
        #[test]
        fn an_engine_with_one_tenant_never_spills(
            batches in prop::collection::vec((0..2_000_usize, any::<bool>(), 0..5_000_u64), 1..20),
        ) {
            let (mut shares, mut now) = (Shares::default(), Instant::now());
            for (events, is_short, after) in batches {
                now += Duration::from_millis(after);
                let batch = vec![tenant(0); events];
                prop_assert_eq!(above(&mut shares, &batch, is_short, now), []);
            }
        }

        /// Whoever has no more than another is not above when that one is not, few are never
        /// above, and what goes on directly is bounded.
        #[test]
        fn shares_are_max_min_fair(counts in prop::collection::vec(0..5_000_u64, 1..50)) {
            let share = share(counts.clone());
            let direct = |count: &u64| if *count > share { 0 } else { *count };
            let all = counts.iter().sum::<u64>();
            let bound = (all / SHARED_OUT).max(SHARE_EVENTS_MIN * counts.len() as u64);
            prop_assert!(share >= SHARE_EVENTS_MIN);
            prop_assert!(counts.iter().map(direct).sum::<u64>() <= bound);
            // Nothing of the part that is shared out is left over while somebody is above.
            if counts.iter().any(|count| *count > share) {
                let taken = counts.iter().map(|count| (*count).min(share)).sum::<u64>();
                prop_assert!(taken + counts.len() as u64 > all / SHARED_OUT);
            }
        }
    }
}
