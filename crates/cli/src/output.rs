//! What the program prints: tables and lines for people, JSON lines for programs.
//!
//! Colour and lines around tables only on a terminal, colour only without
//! `NO_COLOR` (no-color.org). Every print can fail, because the reader may have
//! gone; the failure ends the command.

use std::io::{self, IsTerminal as _, Write};
use std::num::NonZero;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};

use crate::error::{CliError, reasons};

/// What is counted where whole journals are read.
pub const RECORDS_READ: &str = "records read";

/// How often a count is drawn anew.
const TICK: Duration = Duration::from_millis(120);

/// How something is meant, which a terminal shows by colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// To be looked at.
    Warning,
    /// Wrong.
    Bad,
    /// Beside the point.
    Faint,
    /// What matters in the line.
    Strong,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
            Self::Faint => "2",
            Self::Strong => "1",
        }
    }
}

/// Where a command prints to, and how.
pub struct Output {
    writer: Box<dyn Write + Send>,
    json: bool,
    terminal: bool,
    colour: bool,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Output").field("json", &self.json).finish_non_exhaustive()
    }
}

impl Output {
    /// Prints to standard output.
    #[must_use]
    pub fn of_terminal(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { writer: Box::new(io::stdout()), json, terminal, colour: terminal && !no_colour }
    }

    /// Prints to `writer`, as to a file.
    #[must_use]
    pub fn to_writer(writer: impl Write + Send + 'static, json: bool) -> Self {
        Self { writer: Box::new(writer), json, terminal: false, colour: false }
    }

    /// Whether programs read this.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one value as a line of JSON, whatever the mode.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(value)
            .map_err(|source| CliError::Json { what: "the output".to_owned(), source })?;
        self.line(&text)
    }

    /// Prints a line.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn line(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.writer, "{text}")?;
        self.writer.flush()?;
        Ok(())
    }

    /// Prints a table; without rows only what `when_empty` says.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn table(
        &mut self,
        columns: &[&str],
        rows: Vec<Vec<String>>,
        when_empty: &str,
    ) -> Result<(), CliError> {
        if rows.is_empty() && !when_empty.is_empty() {
            return self.line(when_empty);
        }
        let mut table = Table::new();
        if self.terminal {
            table.load_style(presets::UTF8_HORIZONTAL_ONLY);
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.load_style(presets::NOTHING);
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        table.set_header(columns.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>());
        for row in rows {
            table.add_row(row);
        }
        for line in table.to_string().lines() {
            writeln!(self.writer, "{}", line.trim_end())?;
        }
        self.writer.flush()?;
        Ok(())
    }

    /// `text` in the colour of `tone`, where colours are shown.
    #[must_use]
    pub fn tone(&self, tone: Tone, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{}m{text}\u{1b}[0m", tone.code())
        } else {
            text.to_owned()
        }
    }

    /// A bar for work of `total` steps, drawn on standard error of a terminal only.
    #[must_use]
    pub fn progress(&self, total: u64, what: &'static str) -> ProgressBar {
        self.bar("{bar:32} {pos}/{len} {msg} {elapsed}", total, what)
    }

    /// As [`Self::progress`], where what is counted are bytes: in the units of [`size_text`].
    #[must_use]
    pub fn progress_of_bytes(&self, total: u64, what: &'static str) -> ProgressBar {
        self.bar("{bar:32} {binary_bytes}/{binary_total_bytes} {msg} {elapsed}", total, what)
    }

    fn bar(&self, template: &str, total: u64, what: &'static str) -> ProgressBar {
        if self.json || !self.terminal {
            return ProgressBar::hidden();
        }
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(total).with_style(style).with_message(what)
    }

    /// Tells on standard error what is worth knowing beside the answer.
    pub fn note(&mut self, text: &str) {
        let line = match self.json {
            true => serde_json::json!({ "note": text }).to_string(),
            false => format!("note: {text}"),
        };
        // With standard error gone there is nobody left to tell.
        let _ = writeln!(io::stderr(), "{line}");
    }

    /// A count of what is done where nobody knows how much there is, drawn as
    /// [`Self::progress`] is.
    #[must_use]
    pub fn counter(&self, what: &'static str) -> ProgressBar {
        if self.json || !self.terminal {
            return ProgressBar::hidden();
        }
        let style =
            ProgressStyle::with_template("{spinner} {human_pos} {msg}, {per_sec}, {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let counter = ProgressBar::no_length().with_style(style).with_message(what);
        // At once, for from here on a thread of its own draws it, which may come too late for short work: also
        // while nothing comes that could be counted.
        counter.tick();
        counter.enable_steady_tick(TICK);
        counter
    }

    /// Tells on standard error what went wrong, with all that lies behind it.
    pub fn error(&mut self, error: &CliError) {
        let reasons = reasons(error);
        let mut stderr = io::stderr();
        // With standard error gone there is nobody left to tell.
        if self.json {
            let code = error.exit_code().number();
            let mut line = serde_json::json!({ "error": error.to_string(), "reasons": reasons, "exit_code": code });
            if let (CliError::MaybePublished { id, .. }, Some(members)) =
                (error, line.as_object_mut())
            {
                members.insert("id".to_owned(), id.as_deref().into());
            }
            let _ = writeln!(stderr, "{line}");
            return;
        }
        let _ = writeln!(stderr, "error: {error}");
        for reason in reasons {
            let _ = writeln!(stderr, "  because: {reason}");
        }
    }
}

/// RFC 3339 with milliseconds, so that times stand in columns.
const TO_THE_MILLISECOND: EncodedConfig = Config::DEFAULT
    .set_time_precision(TimePrecision::Second { decimal_digits: NonZero::new(3) })
    .encode();

/// Milliseconds since 1970 as RFC 3339 in UTC; the number itself where no date fits.
#[must_use]
pub fn time_text(ms: u64) -> String {
    i128::from(ms)
        .checked_mul(1_000_000)
        .and_then(|ns| OffsetDateTime::from_unix_timestamp_nanos(ns).ok())
        .and_then(|time| time.format(&Iso8601::<TO_THE_MILLISECOND>).ok())
        .unwrap_or_else(|| ms.to_string())
}

/// A span of milliseconds for people: `3ms`, `1.250s`, `2m05s`, `3h04m`.
#[must_use]
pub fn span_text(ms: u64) -> String {
    let (seconds, minutes, hours) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{seconds}.{:03}s", ms % 1_000),
        60_000..3_600_000 => format!("{minutes}m{:02}s", seconds % 60),
        _ => format!("{hours}h{:02}m", minutes % 60),
    }
}

/// A number of bytes for people: `1023 bytes`, `1.5 KiB`, `31.7 GiB`.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    let mut unit_bytes = 1_u64 << 10;
    if bytes < unit_bytes {
        return counted(bytes, "byte", "bytes");
    }
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while bytes / unit_bytes >= 1 << 10 {
        let Some(next) = units.next() else { break };
        (unit, unit_bytes) = (next, unit_bytes << 10);
    }
    let tenths = u128::from(bytes) * 10 / u128::from(unit_bytes);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A count in words: `1 record`, `2 records`.
#[must_use]
pub fn counted<N>(count: N, one: &str, many: &str) -> String
where
    N: std::fmt::Display + PartialEq + From<u8>,
{
    let word = if count == N::from(1) { one } else { many };
    format!("{count} {word}")
}

/// At most `characters_max` characters of `text`, on one line.
#[must_use]
pub fn excerpt(text: &str, characters_max: usize) -> String {
    let mut short: String = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(characters_max)
        .collect();
    if text.chars().count() > characters_max {
        short.pop();
        short.push('…');
    }
    short
}

/// `bytes` in lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time_text(u64::MAX), u64::MAX.to_string());
    }

    #[test]
    fn spans_are_as_long_as_they_need_to_be() {
        let shown = [0, 999, 1_250, 125_000, 11_040_000].map(span_text);

        assert_eq!(shown, ["0ms", "999ms", "1.250s", "2m05s", "3h04m"]);
    }

    #[test]
    fn sizes_are_told_in_units_that_people_read() {
        let told = [1, 1_023, 1_536, 34_052_352_000, u64::MAX].map(size_text);

        assert_eq!(told, ["1 byte", "1023 bytes", "1.5 KiB", "31.7 GiB", "16383.9 PiB"]);
    }

    #[test]
    fn one_thing_is_not_told_as_several() {
        let told = [0_usize, 1, 2].map(|count| counted(count, "entry", "entries"));

        assert_eq!(told, ["0 entries", "1 entry", "2 entries"]);
    }

    #[test]
    fn an_excerpt_is_one_line_and_says_that_it_was_cut() {
        assert_eq!(excerpt("a\nb", 10), "a b");
        assert_eq!(excerpt("abcdef", 4), "abc…");
    }
}
