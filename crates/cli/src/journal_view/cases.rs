//! Review cases as the journals tell them: what a person has to look at, like
//! ones together.
//!
//! A partition opens one case per tenant, type and minute for events that
//! nothing matches, and one per run that ended badly. People look at all of a
//! kind at once: one line per tenant, type, reason and minute, over all
//! partitions, with a count and some samples.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fermata_core::command::EventReference;
use fermata_core::identity::{PartitionId, RunId, Tenant};
use fermata_core::record::{Body, CaseResolved, Header, Record};
use fermata_core::review::Resolution;
use fermata_jetstream::StreamReader;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::JournalReader;
use crate::error::CliError;

/// Samples that are kept of what is aggregated; the rest is counted.
pub const SAMPLES_MAX: usize = 10;

/// Cases that are named of what is aggregated; the rest is counted.
const CASES_MAX: usize = 64;

/// Open cases of the one review that is looked for. Default 100,000, some ten
/// megabytes; those beyond it are only counted.
const MEMBERS_MAX: usize = 100_000;

/// Reviews that are kept while journals are read: the newest. Default 10,000,
/// some ten megabytes; older ones are left out, and that is said.
const REVIEWS_MAX: usize = 10_000;

/// Cases of all reviews whose review is known. Default 1,000,000, some hundred megabytes;
/// beyond them the oldest reviews are left out, and that is said.
const CASES_KEPT_MAX: usize = 1_000_000;

const MINUTE_MS: u64 = 60_000;

/// What is looked at together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Like {
    minute: u64,
    tenant: Tenant,
    kind: Arc<str>,
    reason: Arc<str>,
}

/// Like cases of one minute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Review {
    /// The first of the cases; names the review.
    pub case: Uuid,
    /// Whose cases they are.
    pub tenant: Tenant,
    /// Type of the events concerned.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// Stable reason code.
    pub reason: Arc<str>,
    /// Rung of the escalation ladder.
    pub tier: u8,
    /// When the first was opened, journal time, milliseconds.
    pub opened_ms: u64,
    /// Events that nothing matched, or runs that ended badly.
    pub count: u64,
    /// Cases that were opened for them.
    pub case_count: u64,
    /// The first cases by id.
    pub cases: Vec<Uuid>,
    /// Whether somebody was told of every one of them.
    pub told: bool,
    /// Cases that were resolved.
    pub resolved_count: u64,
    /// How the newest of those was resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// The first events or runs.
    pub samples: Vec<Sample>,
    #[serde(skip)]
    untold: u64,
    /// The open cases with their runs; only of the one review that is looked for.
    #[serde(skip)]
    pub members: BTreeMap<Uuid, Option<RunId>>,
    /// How those of runs were resolved that are not open; only of the one review that is looked for.
    #[serde(skip)]
    pub resolved_runs: BTreeMap<RunId, (Uuid, Resolved)>,
    /// All of its cases.
    #[serde(skip)]
    all_cases: Vec<Uuid>,
}

/// What somebody decided about a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// What is done.
    pub resolution: Resolution,
    /// Who decided.
    pub by: Arc<str>,
    /// Why, for people.
    pub reason: String,
    /// When, journal time, milliseconds.
    pub time_ms: u64,
}

/// One event or run of a review.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Id of the event, as its publisher gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Arc<str>>,
    /// Strategies that came near; for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<String>,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// What the case says.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// The newest reviews of one or more journals, or one of them: at most `REVIEWS_MAX`,
/// with the ids of their cases, and the types of runs that are open.
#[derive(Debug, Clone, Default)]
pub struct ReviewList {
    reviews: BTreeMap<Like, Review>,
    /// Which review a case belongs to.
    cases: HashMap<Uuid, Like>,
    /// Type of the event that started each open run.
    types: HashMap<RunId, Arc<str>>,
    /// An event that is recorded right before the case which it opens.
    ahead: Option<(Uuid, Sample)>,
    /// The case that is looked for: nothing else is kept once its review is known.
    wanted: Option<Uuid>,
    only: Option<Like>,
    left_out: bool,
    begins_late: bool,
}

impl ReviewList {
    /// Folds a record; those of no case change nothing.
    pub fn fold(&mut self, header: &Header, record: &Record) {
        if let Body::EventStarted(started) = &record.body {
            for run in &started.runs {
                self.types.insert(*run, started.event.kind.clone());
            }
        } else if let Body::EventUnmatched(unmatched) = &record.body {
            self.add_event(unmatched.case, &unmatched.event, unmatched.near.clone());
        } else if let Body::SignalExpired(expired) = &record.body
            && let Some(case) = expired.case
        {
            self.add_event(case, &expired.event, Vec::new());
        } else if let Body::CaseOpened(opened) = &record.body {
            self.open(header, opened.case, opened.tier, &opened.reason, opened.detail.parse());
        } else if let Body::CaseNotified(notified) = &record.body
            && let Some(review) = self.of_case(notified.case)
        {
            review.untold = review.untold.saturating_sub(1);
            review.told = review.untold == 0;
        } else if let Body::CaseResolved(resolved) = &record.body {
            self.resolve(header, resolved);
        } else if let Some(run) = header.run.filter(|_| header.kind.ends_run())
            && !opens_case(&record.body)
        {
            self.types.remove(&run);
        }
    }

    fn of_case(&mut self, case: Uuid) -> Option<&mut Review> {
        self.cases.get(&case).and_then(|like| self.reviews.get_mut(like))
    }

    /// Adds an event that nobody took to its case, which may come behind it.
    fn add_event(&mut self, case: Uuid, event: &EventReference, near: Vec<String>) {
        let sample = Sample { event: Some(event.id.clone()), near, run: None, detail: Value::Null };
        match self.of_case(case) {
            Some(review) => review.add(sample),
            None => self.ahead = Some((case, sample)),
        }
    }

    fn open(&mut self, header: &Header, case: Uuid, tier: u8, reason: &Arc<str>, detail: Value) {
        let Some(tenant) = header.tenant.clone() else { return };
        let of_run = header.run.and_then(|run| self.types.remove(&run));
        let of_detail = || detail.get("type").and_then(Value::as_str).map(Arc::from);
        let kind = of_run.or_else(of_detail).unwrap_or_else(|| Arc::from("-"));
        let (minute, opened_ms) = (header.time.0 / MINUTE_MS, header.time.0);
        let reason = reason.clone();
        let like = Like { minute, tenant: tenant.clone(), kind: kind.clone(), reason };
        let ahead = self.ahead.take_if(|(of, _)| *of == case).map(|(_, sample)| sample);
        if self.wanted == Some(case) && self.only.is_none() {
            self.only = Some(like.clone());
        }
        if !self.keeps(&like) {
            return;
        }
        let review = self.reviews.entry(like.clone()).or_insert_with(|| Review {
            case,
            tenant,
            kind,
            reason: like.reason.clone(),
            tier,
            opened_ms,
            count: 0,
            case_count: 0,
            cases: Vec::new(),
            told: false,
            resolved_count: 0,
            resolved: None,
            samples: Vec::new(),
            untold: 0,
            members: BTreeMap::new(),
            resolved_runs: BTreeMap::new(),
            all_cases: Vec::new(),
        });
        if (opened_ms, case) < (review.opened_ms, review.case) {
            (review.opened_ms, review.case) = (opened_ms, case);
        }
        review.case_count += 1;
        review.untold += 1;
        review.told = false;
        if review.cases.len() < CASES_MAX {
            review.cases.push(case);
        }
        if self.only.is_some() && review.members.len() < MEMBERS_MAX {
            review.members.insert(case, header.run);
        }
        match header.run {
            Some(run) => {
                review.add(Sample { event: None, near: Vec::new(), run: Some(run), detail });
            }
            None => ahead.into_iter().for_each(|sample| review.add(sample)),
        }
        review.all_cases.push(case);
        self.cases.insert(case, like);
        self.leave_out_oldest();
    }

    fn resolve(&mut self, header: &Header, resolved: &CaseResolved) {
        let Some(review) = self.of_case(resolved.case) else { return };
        review.resolved_count += 1;
        let how = Resolved {
            resolution: resolved.resolution.clone(),
            by: resolved.by.clone(),
            reason: resolved.reason.clone(),
            time_ms: header.time.0,
        };
        // As many as there are members at most.
        if let Some(Some(run)) = review.members.remove(&resolved.case) {
            review.resolved_runs.insert(run, (resolved.case, how.clone()));
        }
        review.resolved = Some(how);
    }

    fn keeps(&mut self, like: &Like) -> bool {
        if let Some(only) = &self.only {
            return only == like;
        }
        let is_full = self.reviews.len() >= REVIEWS_MAX && !self.reviews.contains_key(like);
        let too_old = is_full && self.reviews.keys().next().is_some_and(|oldest| like < oldest);
        self.left_out |= too_old;
        !too_old
    }

    fn leave_out_oldest(&mut self) {
        let bounded = self.only.is_none();
        while self.reviews.len() > REVIEWS_MAX
            || (bounded && self.cases.len() > CASES_KEPT_MAX && self.reviews.len() > 1)
        {
            let Some((_, oldest)) = self.reviews.pop_first() else { return };
            for case in oldest.all_cases {
                self.cases.remove(&case);
            }
            self.left_out = true;
        }
    }

    /// The review that holds `case`.
    #[must_use]
    pub fn find(&self, case: Uuid) -> Option<&Review> {
        self.cases.get(&case).and_then(|like| self.reviews.get(like))
    }

    /// Every review that is kept, the newest first.
    #[must_use]
    pub fn into_newest_first(self) -> Vec<Review> {
        let mut reviews = self.reviews.into_values().collect::<Vec<_>>();
        reviews.sort_by_key(|review| (std::cmp::Reverse(review.opened_ms), review.case));
        reviews
    }

    /// What of the journals these reviews do not tell, for people.
    #[must_use]
    pub fn caveats(&self) -> Vec<String> {
        let mut caveats = Vec::new();
        if self.left_out {
            caveats.push(format!("older reviews than the newest {REVIEWS_MAX} are left out"));
        }
        if self.begins_late {
            let text =
                "a journal begins late, its older records are not kept: counts run since then";
            caveats.push(text.to_owned());
        }
        caveats
    }

    /// Reads the journals of `partitions`.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn read(
        reader: &StreamReader,
        partitions: impl IntoIterator<Item = PartitionId>,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        Self::default().read_all(reader, partitions, progress).await
    }

    /// Reads the journals of `partitions` for the review that holds `case`, however
    /// old it is; nothing when there is none.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped.
    pub async fn read_one(
        reader: &StreamReader,
        partitions: impl IntoIterator<Item = PartitionId>,
        case: Uuid,
        progress: &ProgressBar,
    ) -> Result<Option<Review>, CliError> {
        let home = partition_of(case);
        let partitions = partitions.into_iter().collect::<Vec<_>>();
        if !partitions.contains(&home) {
            return Ok(None);
        }
        let looking = Self { wanted: Some(case), ..Self::default() };
        let Some(only) = looking.read_all(reader, [home], progress).await?.only else {
            return Ok(None);
        };
        let list = Self { only: Some(only), ..Self::default() };
        Ok(list.read_all(reader, partitions, progress).await?.find(case).cloned())
    }

    async fn read_all(
        mut self,
        reader: &StreamReader,
        partitions: impl IntoIterator<Item = PartitionId>,
        progress: &ProgressBar,
    ) -> Result<Self, CliError> {
        for partition in partitions {
            let mut journal = JournalReader::counting(reader, partition, progress).await?;
            let mut is_first = true;
            while let Some(records) = journal.next().await? {
                if let Some((header, _)) = records.first() {
                    self.begins_late |= is_first && header.index > 0;
                    is_first = false;
                }
                records.iter().for_each(|(header, record)| self.fold(header, record));
            }
            // What is open in one journal is nothing to another.
            self.types.clear();
        }
        Ok(self)
    }
}

/// The partition whose case it is.
pub fn partition_of(case: Uuid) -> PartitionId {
    let [first, second, ..] = *case.as_bytes();
    PartitionId(u16::from_be_bytes([first, second]))
}

/// Whether the end of a run is followed by its case, which asks for its type.
fn opens_case(body: &Body) -> bool {
    matches!(body, Body::RunFailed(_) | Body::RunTimedOut(_) | Body::RunQuarantined(_))
}

impl Review {
    fn add(&mut self, sample: Sample) {
        self.count += 1;
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample);
        }
    }

    /// Whether a case of it waits for somebody.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.resolved_count < self.case_count
    }
}

#[cfg(test)]
mod tests;
