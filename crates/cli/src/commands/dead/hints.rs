//! What can be done about a dead letter.

use fermata_wire::dead::DeadLetter;

use super::replayed::original_of;

/// What can be done about what was filed.
pub(super) fn hint(letter: &DeadLetter) -> String {
    if letter.stage == "escalator" {
        let text = "see why the webhook did not take it; the case itself is open, `fermata review list` has it";
        return text.to_owned();
    }
    match hint_of_request(&letter.reason) {
        Some(hint) => format!("{hint}; {}", asked_again(letter)),
        None => hint_of_reason(&letter.reason).to_owned(),
    }
}

/// Whether a letter stands for a request to replay that was refused as such: it is no event of its own.
pub(super) fn is_refused_request(letter: &DeadLetter) -> bool {
    hint_of_request(&letter.reason).is_some()
}

/// What has to be set right before a request to replay is sent again.
fn hint_of_request(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "replay_not_configured" => {
            "the listener that took it knows no secret: give `--replay-secrets FILE` or FERMATA_REPLAY_SECRETS to \
             `fermata up`, or to every `fermata worker` that listens, and start it anew"
        }
        "replay_forged" => {
            "it was signed with a secret that the listener which took it does not know: `dead replay` signs with the \
             first one of its own `--replay-secrets FILE` or FERMATA_REPLAY_SECRETS, and listeners know those that \
             `fermata up` or `fermata worker` was started with; make them the same. Where listeners differ among \
             themselves, `fermata doctor` says so (`config_differs`)"
        }
        "replay_expired" => {
            "it was signed more than five minutes before or after the broker stored it: set the clock of who signs, \
             and send at once what is signed"
        }
        "replay_unsigned" => {
            "sign it: `fermata dead replay` does, `docs/events.md` says how other programs do"
        }
        "bad_replay" => "a request is one event as structured JSON that names its `tenant`",
        _ => return None,
    })
}

/// How to ask again for what a refused request asked for.
pub(super) fn asked_again(letter: &DeadLetter) -> String {
    match original_of(letter) {
        Some(original) => format!(
            "then ask again for what it was to replay, `fermata dead replay {original}`; if none of you asked for \
             that, look into who sent it"
        ),
        None => "then whoever sent it sends it again, signed anew (by HTTP under another `webhook-id`); if nobody \
                 of yours did, look into who it was"
            .to_owned(),
    }
}

fn hint_of_reason(reason: &str) -> &'static str {
    match reason {
        "not_json" | "not_utf8" | "not_an_object" | "bad_batch" | "not_msgpack" => {
            "write the event anew and send it with `fermata dead replay <ID> --data FILE`"
        }
        "missing_attribute"
        | "bad_attribute"
        | "tenant_mismatch"
        | "type_mismatch"
        | "unsupported_specversion" => {
            "set what is wrong with `fermata dead replay <ID> --edit '{\"attribute\": \"value\"}'`, or publish the corrected event under the same id"
        }
        "duplicate_attribute" | "duplicate_key" | "ambiguous_headers" | "bad_header" => {
            "one of two values has to go: decide which, and send the event with `fermata dead replay <ID> --data FILE`"
        }
        "too_large" | "too_deep" | "too_many_in_batch" => {
            "make it smaller: split the batch, or let `fermata publish` store the data and refer to it"
        }
        "contract_violation" => {
            "repair the data with `fermata dead replay <ID> --edit`, or apply a version of the contract that takes it"
        }
        "contract_too_costly" => {
            "send less data or each event by itself, or apply a simpler version of the contract"
        }
        "contract_unchecked" => {
            "put the data into the event with `fermata dead replay <ID> --edit`, or let `fermata publish` store it; or set the tenant's mode to `warn`"
        }
        "payload_missing" | "payload_changed" | "bad_payload_reference" => {
            "store the data again (`fermata publish --data-file`), which publishes the event anew, or correct `dataref` and `datadigest` with `--edit`"
        }
        "unsupported_content_type" | "bad_subject" => {
            "publish it again with another `Content-Type` or subject; `docs/events.md` lists the forms"
        }
        "variables_failed" | "input_invalid" | "too_many_runs" => {
            "apply a corrected strategy or workflow, then `fermata dead replay <ID>`; or repair the event with `--edit`"
        }
        "definition_missing" => {
            "apply the workflow that is missing, then `fermata dead replay <ID>`"
        }
        "window_full" => "wait until older keys are forgotten, then `fermata dead replay <ID>`",
        "task_poisoned" => {
            "look into why the workers of its queue died or could not read it; then replay the event that started its run"
        }
        "decision_panicked" | "decision_too_large" => {
            "report it with these bytes; a whole command is no event and cannot be replayed"
        }
        _ => "`docs/reason-codes.md` says what the reason means",
    }
}

#[cfg(test)]
mod tests {
    use super::super::letters::testing::letter;
    use super::*;

    #[test]
    fn of_a_refused_request_is_told_what_was_wrong_with_it_and_which_letter_to_replay() {
        let hint_of = |reason: &str, header: &str| {
            let headers = vec![("Fermata-Replay".to_owned(), header.to_owned())];
            hint(&DeadLetter { reason: reason.to_owned(), headers, ..letter("9.0", b"{}") })
        };

        for (reason, told) in [
            ("replay_forged", "a secret that the listener which took it does not know"),
            ("replay_not_configured", "knows no secret"),
            ("replay_expired", "five minutes"),
            ("replay_unsigned", "sign it"),
            ("bad_replay", "names its `tenant`"),
        ] {
            let hint = hint_of(reason, "7.0");
            assert!(hint.contains(told) && hint.contains("`fermata dead replay 7.0`"), "{hint}");
            assert!(!hint.contains("`fermata dead replay 9.0`"), "{hint}");
            let hint = hint_of(reason, "http");
            assert!(hint.contains("under another `webhook-id`"), "{hint}");
        }
        assert!(hint_of("not_json", "7.0").starts_with("write the event anew"));
    }
}
