//! Checks that take longer than the threads of the runtime may be held.
//!
//! They take turns by tenant and a bounded time: what does not come to its turn is
//! held back and comes again, so that whoever sends much that is costly to check
//! waits for it, and others hardly do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::outcomes::Pending;
use crate::contracts::{Breach, Check};

/// How long the checks of a batch may take. Default 1 s, of which others wait no more.
/// One message is checked in any case.
const CHECKS_LIMIT: Duration = Duration::from_secs(1);

/// What came of checks.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) breaches: Vec<(Pending, Breach)>,
    /// Sequences of messages that were not checked.
    pub(super) held_back: Vec<u64>,
}

/// Does the checks of a batch.
pub(super) async fn checked(checking: Vec<(Pending, Check)>) -> Checked {
    if checking.is_empty() {
        return Checked::default();
    }
    let all: Vec<u64> = checking.iter().map(|(pending, _)| pending.sequence).collect();
    let checks = tokio::task::spawn_blocking(|| within(CHECKS_LIMIT, checking, Check::breach));
    checks.await.unwrap_or_else(|error| {
        tracing::error!(%error, "contracts were not checked; the events come again");
        Checked { held_back: all, ..Checked::default() }
    })
}

/// Checks message by message until the time is over.
fn within<C>(
    limit: Duration,
    checking: Vec<(Pending, C)>,
    check: impl Fn(&C) -> Option<Breach>,
) -> Checked {
    let begun = Instant::now();
    let mut checked = Checked::default();
    for (message, checks) in in_turns(checking).into_iter().enumerate() {
        if message > 0 && begun.elapsed() >= limit {
            checked.held_back.extend(checks.iter().map(|(pending, _)| pending.sequence));
            continue;
        }
        for (pending, one) in checks {
            checked.breaches.extend(check(&one).map(|breach| (pending, breach)));
        }
    }
    checked
}

/// The checks of each message together, those of tenants by turns.
pub(super) fn in_turns<C>(checking: Vec<(Pending, C)>) -> Vec<Vec<(Pending, C)>> {
    let mut messages: Vec<Vec<(Pending, C)>> = Vec::new();
    for (pending, check) in checking {
        match messages.last_mut() {
            // All of a message stand side by side.
            Some(last)
                if last.first().is_some_and(|(first, _)| first.sequence == pending.sequence) =>
            {
                last.push((pending, check));
            }
            Some(_) | None => messages.push(vec![(pending, check)]),
        }
    }
    let mut turns: HashMap<String, usize> = HashMap::new();
    let mut placed: Vec<_> = messages
        .into_iter()
        .map(|message| {
            let tenant = message.first().map(|(pending, _)| pending.tenant.to_string());
            let turn = turns.entry(tenant.unwrap_or_default()).or_default();
            *turn += 1;
            (*turn, message)
        })
        .collect();
    placed.sort_by_key(|(turn, _)| *turn);
    placed.into_iter().map(|(_, message)| message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(tenant: &str, sequence: u64) -> Pending {
        Pending::testing(tenant, sequence)
    }

    #[test]
    fn a_tenant_with_much_to_check_leaves_others_their_turn() {
        let mut checking: Vec<_> = (1..=5).map(|at| (pending("much", at), ())).collect();
        checking.extend([(pending("much", 5), ()), (pending("little", 6), ())]);

        let order: Vec<_> = in_turns(checking)
            .iter()
            .map(|message| (message[0].0.sequence, message.len()))
            .collect();
        assert_eq!(order, [(1, 1), (6, 1), (2, 1), (3, 1), (4, 1), (5, 2)]);
    }

    #[test]
    fn what_does_not_come_to_its_turn_is_held_back_and_one_always_comes_to_it() {
        let checking = vec![(pending("a", 1), "x"), (pending("a", 2), "y"), (pending("a", 2), "z")];
        let check = |text: &&str| Some(Breach::Warn((*text).to_owned()));

        let checked = within(Duration::ZERO, checking.clone(), check);
        assert_eq!((checked.breaches.len(), checked.held_back), (1, vec![2, 2]));
        let checked = within(Duration::MAX, checking, check);
        assert_eq!((checked.breaches.len(), checked.held_back), (3, vec![]));
    }

    #[tokio::test]
    async fn nothing_is_waited_for_where_nothing_is_checked() {
        use futures_util::FutureExt as _;
        assert!(checked(Vec::new()).now_or_never().is_some());
    }
}
