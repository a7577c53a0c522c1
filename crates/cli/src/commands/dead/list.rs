//! `fermata dead list`.

use std::cell::{Cell, RefCell};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use fermata_jetstream::topology::DEAD_STREAM;
use fermata_wire::dead::DeadLetter;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{DeadLetters, FiledLetter, Replayed, to_json};
use crate::arguments::at_least_one;
use crate::commands::known_codes::{DEAD_REASONS, DEAD_STAGES, check};
use crate::commands::known_tenants::KnownTenants;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, counted, excerpt, time_text};

/// How many dead letters are listed when nothing else is said: a screenful.
const LIMIT_DEFAULT: usize = 50;

/// Widest detail in the table, in characters; `show` shows all of it.
const DETAIL_CHARACTERS_MAX: usize = 70;

/// Arguments of `fermata dead list`.
#[derive(Debug, Clone, Args)]
pub struct ListArguments {
    /// Only what is of this tenant
    #[arg(long)]
    pub tenant: Option<String>,
    /// Only those that this stage filed: listener, matcher, builder, partition, coordinator, tasks, escalator
    #[arg(long)]
    pub stage: Option<String>,
    /// Only those with this reason code, as in docs/reason-codes.md
    #[arg(long, value_name = "CODE")]
    pub reason: Option<String>,
    /// Only letters filed then or later: a date as in RFC 3339, or how long ago (`30m`, `2h`, `7d`)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<u64>,
    /// Only letters filed before then, likewise
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = LIMIT_DEFAULT, value_name = "N", value_parser = at_least_one)]
    pub limit: usize,
}

/// Milliseconds since 1970.
fn moment(text: &str) -> Result<u64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    moment_before(text, u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

fn moment_before(text: &str, now_ms: u64) -> Result<u64, String> {
    let units = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let ago = units.into_iter().find_map(|(unit, unit_ms)| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(unit_ms)
    });
    if let Some(ago) = ago {
        return Ok(now_ms.saturating_sub(ago));
    }
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok())
        .ok_or_else(|| "write a time as in `2026-11-21T02:00:00Z`, or `30m`, `2h`, `7d`".to_owned())
}

impl ListArguments {
    pub(super) fn takes(&self, letter: &DeadLetter) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        is(&self.tenant, &letter.tenant)
            && is(&self.stage, &letter.stage)
            && is(&self.reason, &letter.reason)
            && self.since.is_none_or(|since| letter.time_ms >= since)
            && self.until.is_none_or(|until| letter.time_ms < until)
    }
}

impl ListArguments {
    /// Whether there is such a stage and such a reason: one that is known, or that a letter has.
    pub(super) fn check_codes(&self, seen: &SeenCodes) -> Result<(), CliError> {
        let stage = self.stage.as_ref().filter(|_| !seen.stage.get());
        check("stage of dead letters", stage, DEAD_STAGES)?;
        let reason = self.reason.as_ref().filter(|_| !seen.reason.get());
        check("reason of dead letters", reason, DEAD_REASONS)
    }
}

/// Whether some letter has the stage and the reason that are asked for, and which tenants have some, whatever
/// else the list is narrowed to.
#[derive(Debug, Default)]
pub(super) struct SeenCodes {
    stage: Cell<bool>,
    reason: Cell<bool>,
    tenants: RefCell<KnownTenants>,
}

impl SeenCodes {
    /// That there is no letter of the tenant that is asked for, where that is so.
    pub(super) fn nothing_of(&self, asked: &ListArguments) -> Option<String> {
        self.tenants.borrow().nothing_of(asked.tenant.as_deref(), "dead letters")
    }

    pub(super) fn see(&self, asked: &ListArguments, letter: &DeadLetter) {
        let has = |asked: &Option<String>, code: &String| asked.as_ref() == Some(code);
        self.tenants.borrow_mut().see(&letter.tenant);
        self.stage.set(self.stage.get() || has(&asked.stage, &letter.stage));
        self.reason.set(self.reason.get() || has(&asked.reason, &letter.reason));
    }
}

/// Lists what fits, the newest first; where that is nothing, with what there is to say of the tenant.
pub(super) fn list(
    dead: &DeadLetters,
    nothing: Option<&str>,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    if let Some(text) = nothing.filter(|_| output.is_json()) {
        output.note(text);
    }
    let shown = dead.letters.iter().rev();
    if output.is_json() {
        for filed in shown {
            output.json_line(&to_json(filed, &dead.replays_of(&filed.letter.id)))?;
        }
    } else {
        let row = |filed: &FiledLetter| {
            let letter = &filed.letter;
            let replayed = replayed_cell(&dead.replays_of(&letter.id));
            vec![
                letter.id.clone(),
                time_text(letter.time_ms),
                letter.tenant.clone(),
                letter.stage.clone(),
                letter.reason.clone(),
                letter.original.len().to_string(),
                replayed,
                excerpt(&letter.detail, DETAIL_CHARACTERS_MAX),
            ]
        };
        let columns = ["ID", "TIME", "TENANT", "STAGE", "REASON", "BYTES", "REPLAYED", "DETAIL"];
        output.table(&columns, shown.map(row).collect(), nothing.unwrap_or("no dead letters"))?;
        let (shown, all) = (dead.letters.len() as u64, dead.found);
        if all > shown {
            output.line(&format!("{shown} of {all} dead letters; `--limit` shows more"))?;
        }
    }
    if !dead.unreadable.is_empty() && !output.is_json() {
        let (count, first) = (dead.unreadable_count, &dead.unreadable);
        let messages = counted(count, "message is no dead letter", "messages are no dead letters");
        output.line(&format!("in stream {DEAD_STREAM} {messages}, the first at: {first:?}"))?;
    }
    Ok(ExitCode::Success)
}

/// When the newest replay was asked for that was not refused; where all were, which letter says why.
fn replayed_cell(replays: &[&Replayed]) -> String {
    let taken = replays.iter().rev().find(|replayed| replayed.refused.is_none());
    let refused = replays.iter().rev().find_map(|replayed| replayed.refused.as_ref());
    match (taken, refused) {
        (Some(replayed), _) => time_text(replayed.time_ms),
        (None, Some(refused)) => format!("refused: {}", refused.letter),
        (None, None) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        assert_eq!(moment_before("2h", 10_000_000), Ok(2_800_000));
        assert_eq!(moment_before("7d", 1), Ok(0));
        assert_eq!(moment_before("1970-01-01T00:00:01.5Z", 0), Ok(1_500));
        for text in ["", "2", "h", "yesterday", "-1h", "1969-12-31T23:59:59Z"] {
            assert!(moment_before(text, 0).is_err(), "{text}");
        }
    }
}
