//! Whether the journal takes what is appended. A broker whose disk is full gives no answer, and says
//! so to nobody but its monitoring endpoint: who looks after the engine is told here.

/// From when on it is told, milliseconds: an election among replicas takes 4 to 9 s and is no reason.
const TOLD_AFTER_MS: u64 = 10_000;

/// Since when nothing could be appended.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    since_ms: Option<u64>,
    told: bool,
}

impl Standstill {
    /// An append is tried again; true when it is time to tell, which is once.
    pub(super) fn tried_again(&mut self, now_ms: u64) -> bool {
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        let tells = !self.told && now_ms.saturating_sub(since_ms) >= TOLD_AFTER_MS;
        self.told |= tells;
        tells
    }

    /// An append was stored, or it is given up; true when its trouble was told.
    pub(super) fn ended(&mut self) -> bool {
        std::mem::take(self).told
    }

    /// What there is to say about it.
    pub(super) fn reason(&self) -> Option<String> {
        self.told.then(|| "the journal takes nothing".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once_and_its_end_too() {
        let mut standstill = Standstill::default();

        let told = [0, 9_999, 10_000, 20_000].map(|now_ms| standstill.tried_again(now_ms));

        assert_eq!(told, [false, false, true, false]);
        assert!(standstill.reason().is_some());
        assert!(standstill.ended());
        assert!(!standstill.ended() && standstill.reason().is_none());
    }
}
