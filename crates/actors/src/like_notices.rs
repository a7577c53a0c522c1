//! Which notices are like one that was sent over HTTP a moment ago.
//!
//! A plugin that is broken fails a run of every order, and each failed run is a case of its own.
//! Whoever is paged needs one page, not a thousand: of like notices within a minute the first is
//! sent, and of the others it is recorded with which one they were told.

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

/// Kinds of notices that are remembered. Default 10,000, some two megabytes; beyond it a notice is
/// sent by itself.
pub const LIKE_MAX: usize = 10_000;

/// What is the same of like notices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Like {
    tenant: Tenant,
    tier: u8,
    reason: String,
    /// The type of an event that nobody took; node and class of a run that failed.
    of: [Option<String>; 3],
}

impl Like {
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

/// The first notice of each kind, for as long as others are told with it.
#[derive(Debug, Default)]
pub(crate) struct LikeNotices(Mutex<HashMap<Like, (Uuid, Instant)>>);

impl LikeNotices {
    /// The case with which this one is told; nothing when it has to be sent itself.
    pub(crate) fn told_with(&self, notice: &CaseNotice, now: Instant) -> Option<Uuid> {
        let mut firsts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since: Instant| now.saturating_duration_since(since) >= LIKE_FOR;
        let like = Like::of(notice);
        if let Some((first, since)) = firsts.get(&like)
            && !is_over(*since)
        {
            return (*first != notice.case).then_some(*first);
        }
        if firsts.len() >= LIKE_MAX {
            firsts.retain(|_, (_, since)| !is_over(*since));
        }
        if firsts.len() < LIKE_MAX {
            firsts.insert(like, (notice.case, now));
        }
        None
    }

    /// It was not delivered: the next one that is like it is sent itself.
    pub(crate) fn forget(&self, notice: &CaseNotice) {
        let mut firsts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let like = Like::of(notice);
        if firsts.get(&like).is_some_and(|(first, _)| *first == notice.case) {
            firsts.remove(&like);
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

    #[test]
    fn of_like_notices_within_a_minute_the_first_is_sent() {
        let (likes, now) = (LikeNotices::default(), Instant::now());
        let failed = |case, detail| {
            let detail = json!({ "node": "fetch", "class": "http_5xx", "detail": detail });
            notice(case, &detail)
        };

        assert_eq!(likes.told_with(&failed(1, "a"), now), None);
        assert_eq!(likes.told_with(&failed(2, "b"), now), Some(Uuid::from_u128(1)));
        assert_eq!(likes.told_with(&failed(1, "a"), now), None, "the first itself, once more");
        let other = notice(3, &json!({ "node": "store", "class": "http_5xx" }));
        assert_eq!(likes.told_with(&other, now), None, "it is not like them");
        assert_eq!(likes.told_with(&failed(4, "c"), now + LIKE_FOR), None, "a minute is over");
    }

    #[test]
    fn one_that_was_not_delivered_takes_no_others_with_it() {
        let (likes, now) = (LikeNotices::default(), Instant::now());
        let unmatched = |case| notice(case, &json!({ "type": "a.b" }));
        assert_eq!(likes.told_with(&unmatched(1), now), None);
        assert_eq!(likes.told_with(&unmatched(2), now), Some(Uuid::from_u128(1)));

        likes.forget(&unmatched(2));
        assert_eq!(likes.told_with(&unmatched(3), now), Some(Uuid::from_u128(1)));
        likes.forget(&unmatched(1));

        assert_eq!(likes.told_with(&unmatched(4), now), None);
    }

    #[test]
    fn too_many_kinds_are_each_sent_and_none_is_kept() {
        let (likes, now) = (LikeNotices::default(), Instant::now());
        for kind in 0..=LIKE_MAX {
            let one = notice(1, &json!({ "type": format!("a.{kind}") }));
            assert_eq!(likes.told_with(&one, now), None);
        }

        let last = notice(2, &json!({ "type": format!("a.{LIKE_MAX}") }));
        assert_eq!(likes.told_with(&last, now), None);
        assert!(likes.0.lock().unwrap().len() <= LIKE_MAX);
    }
}
