//! Codes that a list can be narrowed to, so that a slip is not answered with an empty list.

use fermata_definitions::{did_you_mean, nearest};

use crate::error::CliError;

pub(super) use fermata_core::partition::CASE_REASONS;

/// Who files dead letters.
pub(super) const DEAD_STAGES: &[&str] =
    &["listener", "matcher", "builder", "partition", "coordinator", "tasks", "escalator"];

/// Why a dead letter is filed, as `docs/reason-codes.md` has them.
pub(super) const DEAD_REASONS: &[&str] = &[
    "bad_subject",
    "unsupported_content_type",
    "too_large",
    "not_utf8",
    "not_json",
    "not_an_object",
    "bad_batch",
    "too_many_in_batch",
    "too_deep",
    "missing_attribute",
    "bad_attribute",
    "duplicate_attribute",
    "unsupported_specversion",
    "tenant_mismatch",
    "type_mismatch",
    "not_msgpack",
    "duplicate_key",
    "bad_header",
    "ambiguous_headers",
    "replay_not_configured",
    "replay_unsigned",
    "replay_forged",
    "replay_expired",
    "bad_replay",
    "contract_violation",
    "contract_too_costly",
    "contract_unchecked",
    "bad_payload_reference",
    "payload_missing",
    "payload_changed",
    "variables_failed",
    "definition_missing",
    "input_invalid",
    "too_many_runs",
    "window_full",
    "outbox_full",
    "malformed",
    "trailing_bytes",
    "wrong_kind",
    "newer_version",
    "encode",
    "decision_panicked",
    "decision_too_large",
    "task_poisoned",
    "relay_ahead",
    "webhook_given_up",
    "webhook_overflow",
    "route_unknown",
];

/// Longest list of codes that an error shows.
const SHOWN_MAX: usize = 8;

/// Most codes of a long list that an error names as near.
const NEAR_MAX: usize = 4;

/// Refuses a code that nothing has and that is not `known`. A code that something has is fine
/// whatever this version knows: a newer one may have filed it.
///
/// # Errors
///
/// What the code may have been meant to be.
pub(super) fn check(what: &str, code: Option<&String>, known: &[&str]) -> Result<(), CliError> {
    let Some(code) = code.filter(|code| !known.contains(&code.as_str())) else { return Ok(()) };
    let hint = match did_you_mean(code, known.iter().copied()) {
        Some(question) => question,
        None if known.len() <= SHOWN_MAX => format!("known are {}", known.join(", ")),
        None => match near(code, known).as_slice() {
            [] => "docs/reason-codes.md lists them".to_owned(),
            near => format!("near are {}; docs/reason-codes.md lists all", near.join(", ")),
        },
    };
    Err(CliError::Usage(format!("`{code}` is no {what}, and nothing has it; {hint}")))
}

/// Codes that share words with one that is none, slips aside; those that share most of them first.
fn near<'k>(code: &str, known: &[&'k str]) -> Vec<&'k str> {
    let shared = |known: &str| {
        let words = code.split('_').filter(|word| !word.is_empty());
        words.filter(|word| !nearest(word, known.split('_')).is_empty()).count()
    };
    let mut near = known.iter().map(|known| (shared(known), *known)).collect::<Vec<_>>();
    near.retain(|(shared, _)| *shared > 0);
    near.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
    near.into_iter().map(|(_, known)| known).take(NEAR_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The first column of the tables below the headings that `wanted` says yes to.
    fn codes(wanted: impl Fn(&str) -> bool) -> BTreeSet<&'static str> {
        let page = include_str!("../../../../docs/reason-codes.md");
        let sections = page.split("\n## ").filter(|section| wanted(section));
        let rows = sections.flat_map(str::lines).filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| row.split('`').next()).collect()
    }

    #[test]
    fn every_code_of_the_documentation_is_known_and_no_other() {
        let of_letters = ["Why an event is rejected", "Why bytes are no", "Webhooks"];
        let of_letters = codes(|title| of_letters.iter().any(|of| title.starts_with(of)));
        let of_cases = codes(|title| title.starts_with("Reasons of cases"));

        assert_eq!(of_letters, DEAD_REASONS.iter().copied().collect());
        assert_eq!(of_cases, CASE_REASONS.iter().copied().collect());
    }

    #[test]
    fn a_slip_is_told_with_what_may_be_meant() {
        let told = |code: &str, known| check("stage", Some(&code.to_owned()), known);

        assert!(told("listener", DEAD_STAGES).is_ok() && check("stage", None, &[]).is_ok());
        let slip = told("listner", DEAD_STAGES).unwrap_err().to_string();
        assert_eq!(slip, "`listner` is no stage, and nothing has it; did you mean `listener`?");
        let other = told("nobody", &CASE_REASONS).unwrap_err().to_string();
        assert!(other.ends_with("known are unmatched, run_failed, run_timed_out, run_quarantined"));
        let near = told("signature_forged", DEAD_REASONS).unwrap_err().to_string();
        assert!(
            near.ends_with("; near are replay_forged; docs/reason-codes.md lists all"),
            "{near}"
        );
        let near = told("mising", DEAD_REASONS).unwrap_err().to_string();
        let all = "missing_attribute, payload_missing, definition_missing;";
        assert!(near.contains(&format!("; near are {all}")), "{near}");
        let other = told("nobody", DEAD_REASONS).unwrap_err().to_string();
        assert!(other.ends_with("docs/reason-codes.md lists them"), "{other}");
    }
}
