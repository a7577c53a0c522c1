//! What a projector is asked over the broker, and what it answers: JSON on
//! [`RUNS_SUBJECT`] and [`RUN_SUBJECT`], described in `docs/read-model.md`.

use fermata_core::identity::{PartitionId, RunId};
use serde::{Deserialize, Serialize};

use crate::query::{Cursor, RunPage, RunQuery};
use crate::run::RunSummary;

/// Where lists of runs are asked for: [`RunsQuestion`], answered by [`Answer<RunsAnswer>`].
pub const RUNS_SUBJECT: &str = "fermata.query.runs";

/// Where one run is asked for: [`RunQuestion`], answered by [`Answer<RunAnswer>`].
pub const RUN_SUBJECT: &str = "fermata.query.run";

/// Bytes of a question at most: its names are bounded, so more is no question.
pub const QUESTION_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the runs in one answer: what a message may have (1 MiB) less room for the rest.
/// A page that would be larger ends early, with its cursor.
pub const ANSWER_BYTES_MAX: usize = 768 * 1024;

/// A place in a journal that the answer must know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtLeast {
    /// Whose journal.
    pub partition: PartitionId,
    /// Sequence of the message.
    pub sequence: u64,
}

/// Asks for a list of runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunsQuestion {
    /// Which ones.
    pub query: RunQuery,
    /// What the answer must know of, so that nobody misses what he has just done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_least: Vec<AtLeast>,
}

/// Asks for one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunQuestion {
    /// Its id.
    pub run: RunId,
    /// What the answer must know of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_least: Vec<AtLeast>,
}

/// An answer, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// What was asked for.
    Ok(T),
    /// Nothing.
    Error(NoAnswer),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoAnswer {
    /// For programs.
    pub code: NoAnswerCode,
    /// For people.
    pub detail: String,
}

/// Why there is no answer, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoAnswerCode {
    /// The question cannot be read.
    Malformed,
    /// The read model has not come as far as the question asks for.
    Behind,
    /// Too many are asking.
    Busy,
    /// The read model is being made anew.
    Unavailable,
}

/// A list of runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsAnswer {
    /// The runs.
    #[serde(flatten)]
    pub page: RunPage,
    /// How complete it is.
    #[serde(flatten)]
    pub state: ModelState,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAnswer {
    /// It; nothing when there is none of this id.
    pub run: Option<RunSummary>,
    /// How complete the read model is.
    #[serde(flatten)]
    pub state: ModelState,
}

/// How complete a read model is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelState {
    /// Journal messages that are known of and were not applied yet.
    pub behind: u64,
    /// Up to when all of them were applied, milliseconds since 1970 as the broker counts;
    /// absent while none is known that was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of_ms: Option<u64>,
    /// Runs that it holds.
    pub runs_held: u64,
    /// Runs that started at this journal time or before may be left out, because there were
    /// too many or because their journal had been purged before it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out_until_ms: Option<u64>,
}

impl RunPage {
    /// The page cut so that its runs take at most `bytes_max`, as `size` counts them; never
    /// to nothing.
    #[must_use]
    pub fn cut_to(mut self, bytes_max: usize, size: impl Fn(&RunSummary) -> usize) -> Self {
        let mut bytes = 0_usize;
        let fits = |run: &&RunSummary| {
            bytes = bytes.saturating_add(size(run));
            bytes <= bytes_max
        };
        let count = self.runs.iter().take_while(fits).count().max(1);
        if count < self.runs.len() {
            self.runs.truncate(count);
            self.next = self.runs.last().map(Cursor::of);
        }
        self
    }
}
