//! How often one kind of trouble is told in the log: what happens by the
//! thousand is told a few times, and then counted.

use std::time::Duration;

use tokio::time::Instant;

/// How long a window is. Default 10 s: who looks at the log sees that it lasts,
/// and nothing else is pushed out of it.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Lets so many lines through in each window.
#[derive(Debug, Clone)]
pub struct LogPace {
    lines_max: u32,
    began: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl LogPace {
    /// At most `lines_max` lines in [`WINDOW`].
    #[must_use]
    pub fn new(lines_max: u32) -> Self {
        Self { lines_max, began: None, told: 0, left_out: 0 }
    }

    /// Whether a line may be told now; then with how many were left out before it.
    pub fn line(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            self.began = Some(now);
            self.told = 0;
        }
        if self.told >= self.lines_max {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_told_a_few_times_in_each_window_and_the_rest_counted() {
        let mut pace = LogPace::new(2);

        let first = (0..5).map(|_| pace.line()).collect::<Vec<_>>();
        tokio::time::advance(WINDOW).await;
        let second = (0..3).map(|_| pace.line()).collect::<Vec<_>>();

        assert_eq!(first, [Some(0), Some(0), None, None, None]);
        assert_eq!(second, [Some(3), Some(0), None]);
    }
}
