//! The lease service: says who should own, and is sometimes wrong.

use crate::dice::Dice;
use crate::scenario::Faults;

/// How long a lease lasts, milliseconds.
pub(crate) const LEASE_MS: u64 = 15_000;

/// The partition's lease.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    holder: Option<usize>,
    until_ms: u64,
}

impl Lease {
    /// Whether `worker` has the lease after asking for it now.
    pub(crate) fn ask(
        &mut self,
        worker: usize,
        now_ms: u64,
        faults: &Faults,
        dice: &mut Dice,
    ) -> bool {
        if self.holder == Some(worker) || self.holder.is_none() || self.until_ms <= now_ms {
            self.holder = Some(worker);
            self.until_ms = now_ms + LEASE_MS;
            return true;
        }
        dice.chance(faults.lease_doubled)
    }
}
