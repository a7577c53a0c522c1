//! The clocks of this process, read in one place.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fermata_partition::message::Now;

/// Reads both clocks; the monotonic one counts from when this was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock whose monotonic part starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { wall_ms: wall_ms(), monotonic_ms: milliseconds(self.started.elapsed()) }
    }
}

/// Milliseconds since 1970 by this machine's clock.
#[must_use]
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, milliseconds)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
