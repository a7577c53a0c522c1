//! Turns for a scarce thing, shared fairly between tenants.
//!
//! A plain semaphore serves whoever came first: one tenant with a thousand calls in front of
//! it makes every other wait for all of them. Here a turn that comes free goes to the tenant
//! that has the fewest, of those that wait; within a tenant the first comes first. And no
//! tenant takes all turns, so that one that comes later finds some (max-min fairness, as in
//! Demers, Keshav and Shenker, *Analysis and Simulation of a Fair Queueing Algorithm*, 1989).
//!
//! This is also the one place that every call passes before its effect begins, by tenant and
//! by plugin: a breaker that opens for a target would refuse here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Of all turns, the part that is left to others however many one tenant asks for: an eighth.
const SHARE_OF_OTHERS: usize = 8;

/// A bounded number of turns. Clones share it.
#[derive(Debug, Clone)]
pub struct FairTurns(Arc<Mutex<Turns>>);

#[derive(Debug)]
struct Turns {
    free: usize,
    of_one_tenant_max: usize,
    given: u64,
    shares: BTreeMap<Arc<str>, Share>,
    /// Tenants that wait and may have another turn, those with the fewest first, and of these the
    /// one that was given none for the longest time.
    next: BTreeSet<(usize, u64, Arc<str>)>,
}

/// What a tenant has and waits for; gone when it is nothing.
#[derive(Debug, Default)]
struct Share {
    taken: usize,
    /// The count of turns when it was given its last one.
    last: u64,
    /// Those who gave up waiting stay until it is their turn.
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A turn; it goes to the next one when it is dropped.
#[derive(Debug)]
#[must_use = "the turn goes to the next one when this is dropped"]
pub struct Turn {
    turns: FairTurns,
    tenant: Arc<str>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().change(&self.tenant, |share, free| {
            share.taken = share.taken.saturating_sub(1);
            *free += 1;
        });
        self.turns.give();
    }
}

impl Turns {
    /// Changes what a tenant has, and where that puts it among those that wait.
    fn change(&mut self, tenant: &Arc<str>, change: impl FnOnce(&mut Share, &mut usize)) {
        let share = self.shares.entry(tenant.clone()).or_default();
        self.next.remove(&(share.taken, share.last, tenant.clone()));
        change(share, &mut self.free);
        if !share.waiting.is_empty() && share.taken < self.of_one_tenant_max {
            self.next.insert((share.taken, share.last, tenant.clone()));
        }
        if share.waiting.is_empty() && share.taken == 0 {
            self.shares.remove(tenant);
        }
    }

    fn take(&mut self, tenant: &Arc<str>) {
        self.given += 1;
        let given = self.given;
        self.change(tenant, |share, free| {
            share.taken += 1;
            share.last = given;
            *free = free.saturating_sub(1);
        });
    }

    /// Takes a turn for a tenant before which nobody waits.
    fn take_at_once(&mut self, tenant: &Arc<str>) -> bool {
        let share = self.shares.get(tenant);
        let is_first = share
            .is_none_or(|share| share.waiting.is_empty() && share.taken < self.of_one_tenant_max);
        let may = self.free > 0 && is_first;
        if may {
            self.take(tenant);
        }
        may
    }

    /// Takes a turn for the one that is next; nothing when there is none, or no turn.
    fn take_for_next(&mut self) -> Option<(oneshot::Sender<Turn>, Arc<str>)> {
        while self.free > 0 {
            let (_, _, tenant) = self.next.first()?.clone();
            let mut first = None;
            self.change(&tenant, |share, _| first = share.waiting.pop_front());
            if let Some(waits) = first.filter(|waits| !waits.is_closed()) {
                self.take(&tenant);
                return Some((waits, tenant));
            }
        }
        None
    }
}

impl FairTurns {
    /// So many turns, at least one. Of more than seven, one tenant gets seven eighths at most.
    #[must_use]
    pub fn new(turns: usize) -> Self {
        let free = turns.max(1);
        let of_one_tenant_max = free - free / SHARE_OF_OTHERS;
        let (shares, next) = (BTreeMap::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(Turns { free, of_one_tenant_max, given: 0, shares, next })))
    }

    /// Waits for a turn of `tenant`.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped: the place among those that wait is lost, and no turn.
    pub async fn turn(&self, tenant: &Arc<str>) -> Turn {
        loop {
            let (sender, waits) = oneshot::channel();
            {
                let mut turns = self.lock();
                if turns.take_at_once(tenant) {
                    return Turn { turns: self.clone(), tenant: tenant.clone() };
                }
                turns.change(tenant, |share, _| share.waiting.push_back(sender));
            }
            // It is answered, or stays among those that wait.
            if let Ok(turn) = waits.await {
                return turn;
            }
        }
    }

    /// Gives free turns to those that wait, as long as there are both.
    fn give(&self) {
        loop {
            // Not held while a turn is handed over: one that nobody takes comes back at once.
            let next = self.lock().take_for_next();
            let Some((waits, tenant)) = next else { return };
            drop(waits.send(Turn { turns: self.clone(), tenant }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> Arc<str> {
        name.into()
    }

    #[tokio::test]
    async fn a_tenant_that_comes_late_is_next_however_many_of_another_wait() {
        let turns = FairTurns::new(8);
        let (noisy, quiet) = (tenant("noisy"), tenant("quiet"));
        let mut taken = Vec::new();
        for _ in 0..7 {
            taken.push(turns.turn(&noisy).await);
        }
        let mut waiting = (0..100).map(|_| Box::pin(turns.turn(&noisy))).collect::<Vec<_>>();
        assert!(
            waiting.iter_mut().all(|waits| waits.now_or_never().is_none()),
            "its share is taken"
        );

        let first = turns.turn(&quiet).now_or_never().expect("the eighth is left to others");
        let mut second = Box::pin(turns.turn(&quiet));
        assert!((&mut second).now_or_never().is_none(), "there are no more");
        drop(taken.pop());
        assert!((&mut second).now_or_never().is_some(), "it has fewer than the other");
        drop(first);
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_costs_no_turn() {
        let turns = FairTurns::new(1);
        let only = tenant("only");
        let taken = turns.turn(&only).await;
        let gives_up = Box::pin(turns.turn(&only));
        let mut stays = Box::pin(turns.turn(&only));
        let mut gives_up = Some(gives_up);
        assert!(gives_up.as_mut().and_then(|waits| waits.now_or_never()).is_none());
        assert!((&mut stays).now_or_never().is_none());

        gives_up = None;
        drop(taken);

        assert!(gives_up.is_none());
        drop((&mut stays).now_or_never().expect("the turn"));
        assert!(turns.lock().shares.is_empty(), "nothing is kept of who has nothing");
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Ask(u8),
        End(usize),
        GiveUp(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..4_u8).prop_map(Step::Ask),
            2 => (0..16_usize).prop_map(Step::End),
            1 => (0..16_usize).prop_map(Step::GiveUp),
        ]
    }

    proptest! {
        /// Whoever asks, ends and gives up in whatever order: never more turns than there are,
        /// never more than its share for one, and none left idle that somebody may have.
        #[test]
        fn turns_are_bounded_shared_and_never_lost(
            most in 1..20_usize,
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let turns = FairTurns::new(most);
            let share = most - most / SHARE_OF_OTHERS;
            let names = ["a", "b", "c", "d"].map(tenant);
            let mut taken: Vec<(usize, Turn)> = Vec::new();
            let mut waiting = Vec::new();
            for step in steps {
                match step {
                    Step::Ask(who) => {
                        let (turns, name) = (turns.clone(), names[usize::from(who)].clone());
                        let waits = Box::pin(async move { turns.turn(&name).await });
                        waiting.push((usize::from(who), waits));
                    }
                    Step::End(at) if at < taken.len() => drop(taken.swap_remove(at)),
                    Step::GiveUp(at) if at < waiting.len() => drop(waiting.swap_remove(at)),
                    Step::End(_) | Step::GiveUp(_) => {}
                }
                let mut still = Vec::new();
                for (who, mut waits) in std::mem::take(&mut waiting) {
                    match (&mut waits).now_or_never() {
                        Some(turn) => taken.push((who, turn)),
                        None => still.push((who, waits)),
                    }
                }
                waiting = still;
                let of = |who| taken.iter().filter(|(by, _)| *by == who).count();
                prop_assert!(taken.len() <= most && (0..4).all(|who| of(who) <= share));
                let could = |who| of(who) < share && taken.len() < most;
                prop_assert!(!waiting.iter().any(|(who, _)| could(*who)), "a turn is idle");
            }
        }
    }
}
