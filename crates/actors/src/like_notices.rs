//! Which notices are like one that was sent over HTTP a moment ago.
//!
//! A plugin that is broken fails a run of every order, and each failed run is a case of its own.
//! Whoever is paged needs one page, not a thousand: of like notices within a minute the first is
//! sent, and of the others it is recorded with which one they were told, once it was delivered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fermata_core::effect::CaseNotice;
use fermata_core::identity::Tenant;
use serde_json::Value;
use uuid::Uuid;

/// How long what is like a notice is told with it. Default a minute, by which reviews are
/// aggregated.
pub const LIKE_FOR: Duration = Duration::from_secs(60);

/// Notices that wait for the end of one that is like them. Default 256, as many as may wait for a
/// webhook; beyond it each is sent by itself.
pub const LIKE_WAITING_MAX: usize = 256;

/// How often one that waits looks whether that has ended.
pub const LIKE_PAUSE: Duration = Duration::from_millis(200);

/// Kinds of notices that are remembered. Default 10,000, some two megabytes; beyond it a notice is
/// sent by itself.
pub const LIKE_MAX: usize = 10_000;

/// What is the same of like notices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    tenant: Tenant,
    tier: u8,
    reason: String,
    /// The type of an event that nobody took; node and class of a run that failed.
    of: [Option<String>; 3],
}

impl Kind {
    fn of(notice: &CaseNotice) -> Self {
        let detail = notice.detail.parse();
        let text = |name| detail.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            tenant: notice.tenant.clone(),
            tier: notice.tier,
            reason: notice.reason.to_string(),
            of: ["type", "node", "class"].map(text),
        }
    }
}

/// What is to be done with a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Like {
    /// It is sent.
    First,
    /// One that is like it is on its way, which may fail yet.
    Waits,
    /// It was told with this case.
    ToldWith(Uuid),
}

/// The first notice of each kind, for as long as others are told with it.
#[derive(Debug, Default)]
pub(crate) struct LikeNotices(Mutex<HashMap<Kind, First>>);

#[derive(Debug)]
struct First {
    case: Uuid,
    since: Instant,
    is_delivered: bool,
}

impl LikeNotices {
    /// What is to be done with this one; the first of its kind is remembered.
    pub(crate) fn look(&self, notice: &CaseNotice, now: Instant) -> Like {
        let mut firsts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |first: &First| now.saturating_duration_since(first.since) >= LIKE_FOR;
        let kind = Kind::of(notice);
        if let Some(first) = firsts.get(&kind).filter(|first| !is_over(first)) {
            return match first {
                First { case, .. } if *case == notice.case => Like::First,
                First { case, is_delivered: true, .. } => Like::ToldWith(*case),
                First { .. } => Like::Waits,
            };
        }
        if firsts.len() >= LIKE_MAX {
            firsts.retain(|_, first| !is_over(first));
        }
        if firsts.len() < LIKE_MAX {
            firsts.insert(kind, First { case: notice.case, since: now, is_delivered: false });
        }
        Like::First
    }

    /// It was sent: to every webhook, or not, and then the next one that is like it is sent
    /// itself.
    pub(crate) fn sent(&self, notice: &CaseNotice, is_delivered: bool) {
        let mut firsts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = Kind::of(notice);
        let Some(first) = firsts.get_mut(&kind).filter(|first| first.case == notice.case) else {
            return;
        };
        first.is_delivered = is_delivered;
        if !is_delivered {
            firsts.remove(&kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::json::Json;
    use serde_json::json;

    use super::*;

    fn notice(case: u128, detail: &Value) -> CaseNotice {
        CaseNotice {
            case: Uuid::from_u128(case),
            attempt: 1,
            tenant: "acme".parse().unwrap(),
            tier: 3,
            reason: "run_failed".into(),
            run: None,
            detail: Json::from_value(detail),
        }
    }

    fn told_with(case: u128) -> Like {
        Like::ToldWith(Uuid::from_u128(case))
    }

    #[test]
    fn of_like_notices_within_a_minute_the_first_is_sent() {
        let (likes, now) = (LikeNotices::default(), Instant::now());
        let failed = |case, detail| {
            let detail = json!({ "node": "fetch", "class": "http_5xx", "detail": detail });
            notice(case, &detail)
        };

        assert_eq!(likes.look(&failed(1, "a"), now), Like::First);
        assert_eq!(likes.look(&failed(2, "b"), now), Like::Waits, "the first may fail yet");
        assert_eq!(likes.look(&failed(1, "a"), now), Like::First, "the first itself, once more");
        likes.sent(&failed(1, "a"), true);
        assert_eq!(likes.look(&failed(2, "b"), now), told_with(1));
        let other = notice(3, &json!({ "node": "store", "class": "http_5xx" }));
        assert_eq!(likes.look(&other, now), Like::First, "it is not like them");
        assert_eq!(likes.look(&failed(4, "c"), now + LIKE_FOR), Like::First, "a minute is over");
    }

    #[test]
    fn one_that_was_not_delivered_takes_no_others_with_it() {
        let (likes, now) = (LikeNotices::default(), Instant::now());
        let unmatched = |case| notice(case, &json!({ "type": "a.b" }));
        assert_eq!(likes.look(&unmatched(1), now), Like::First);
        assert_eq!(likes.look(&unmatched(2), now), Like::Waits);

        likes.sent(&unmatched(2), false);
        assert_eq!(likes.look(&unmatched(3), now), Like::Waits, "that says nothing of the first");
        likes.sent(&unmatched(1), false);

        assert_eq!(likes.look(&unmatched(2), now), Like::First);
        assert_eq!(likes.look(&unmatched(3), now), Like::Waits);
    }

    #[test]
    fn too_many_kinds_are_each_sent_and_none_is_kept() {
        let (likes, now) = (LikeNotices::default(), Instant::now());
        for kind in 0..=LIKE_MAX {
            let one = notice(1, &json!({ "type": format!("a.{kind}") }));
            assert_eq!(likes.look(&one, now), Like::First);
        }

        let last = notice(2, &json!({ "type": format!("a.{LIKE_MAX}") }));
        assert_eq!(likes.look(&last, now), Like::First);
        assert!(likes.0.lock().unwrap().len() <= LIKE_MAX);
    }
}
