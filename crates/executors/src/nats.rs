//! Questions over NATS: what may be asked, and how answers are read.
//!
//! The connection belongs to the caller. What is here decides, as everywhere in
//! this crate, that nothing goes where the configuration does not allow it and
//! that nothing comes back that is larger than it may be.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{BODY_BYTES_MAX, ConfigError, Problems, check_limits};
use crate::effect::{EffectOutcome, FailureClass};
use crate::traceparent;

/// Settings of questions over NATS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// The allow-list: subjects, or patterns with `*` for one token and `>` for
    /// the rest. Empty by default. The first token is never a pattern, and never
    /// one of the broker's (`$…`), of inboxes (`_…`) or the engine's (`fermata`).
    pub subjects: Vec<String>,
    /// Longest body in bytes; a longer one is not sent (`not_allowed`).
    pub request_bytes_max: usize,
    /// Longest answer in bytes; a longer one is dropped (`response_too_large`).
    /// The broker's own limit for a message bounds what has arrived by then.
    pub response_bytes_max: usize,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            subjects: Vec::new(),
            request_bytes_max: BODY_BYTES_MAX,
            response_bytes_max: BODY_BYTES_MAX,
        }
    }
}

/// What may be asked.
#[derive(Debug)]
pub struct NatsRules {
    subjects: Vec<String>,
    request_bytes_max: usize,
    response_bytes_max: usize,
}

/// A question, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsQuestion {
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub payload: Bytes,
}

/// An answer as it arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NatsAnswer {
    /// Its body.
    pub payload: Bytes,
    /// What the header `Nats-Service-Error-Code` or `Nats-Service-Error` says: a
    /// micro service answers its errors like this (NATS ADR-32).
    pub service_error: Option<String>,
}

impl NatsRules {
    /// Checks the configuration.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] with each pattern that would allow what is never allowed,
    /// and each limit that is zero.
    pub fn new(config: &NatsConfig) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        problems.take(check_limits([
            ("nats.request_bytes_max", config.request_bytes_max),
            ("nats.response_bytes_max", config.response_bytes_max),
        ]));
        for pattern in &config.subjects {
            if let Some(problem) = problem_of_pattern(pattern) {
                let pattern = pattern.clone();
                problems.add(ConfigError::Subject { pattern, problem });
            }
        }
        problems.refuse()?;
        Ok(Self {
            subjects: config.subjects.clone(),
            request_bytes_max: config.request_bytes_max,
            response_bytes_max: config.response_bytes_max,
        })
    }

    /// The question of one attempt.
    ///
    /// # Errors
    /// The outcome `not_allowed` if the subject is not on the allow-list or the
    /// body is too large; nothing may be sent then.
    pub fn question(
        &self,
        subject: &str,
        key: &str,
        attempt: u32,
        traceparent: Option<&str>,
        callback: Option<&str>,
        body: &Value,
    ) -> Result<NatsQuestion, EffectOutcome> {
        let allowed = is_sayable(subject) && self.subjects.iter().any(|to| matches(to, subject));
        if !allowed {
            let subject = subject.escape_default();
            return Err(failed(
                FailureClass::NotAllowed,
                format!("subject `{subject}` is not among `nats.subjects` of the configuration"),
            ));
        }
        let payload = body.to_string();
        if payload.len() > self.request_bytes_max {
            let (bytes, max) = (payload.len(), self.request_bytes_max);
            return Err(failed(
                FailureClass::NotAllowed,
                format!("body of {bytes} bytes is larger than `nats.request_bytes_max` ({max})"),
            ));
        }
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("idempotency-key", key.to_owned()),
            ("fermata-attempt", attempt.to_string()),
        ];
        let traceparent = traceparent.filter(|text| traceparent::is_well_formed(text));
        headers.extend(traceparent.map(|text| ("traceparent", text.to_owned())));
        headers.extend(callback.map(|token| ("fermata-callback-token", token.to_owned())));
        Ok(NatsQuestion { headers, payload: payload.into() })
    }

    /// What an answer means; one that only accepts a call is not read.
    #[must_use]
    pub fn outcome(&self, subject: &str, accepts: bool, answer: &NatsAnswer) -> EffectOutcome {
        let (bytes, max) = (answer.payload.len(), self.response_bytes_max);
        if let Some(error) = &answer.service_error {
            let error = error.escape_debug().to_string();
            return failed(
                FailureClass::ServiceError,
                format!("the service at `{subject}` answered with the error {error}"),
            );
        }
        if bytes > max {
            return failed(
                FailureClass::ResponseTooLarge,
                format!(
                    "the answer of {bytes} bytes is larger than `nats.response_bytes_max` ({max})"
                ),
            );
        }
        if accepts || answer.payload.is_empty() {
            return EffectOutcome::Succeeded { output: Value::Null };
        }
        match serde_json::from_slice(&answer.payload) {
            Ok(output) => EffectOutcome::Succeeded { output },
            Err(error) => failed(
                FailureClass::ResponseNotJson,
                format!(
                    "the answer from `{subject}` is not JSON, at line {}, column {}",
                    error.line(),
                    error.column()
                ),
            ),
        }
    }
}

fn failed(class: FailureClass, detail: String) -> EffectOutcome {
    EffectOutcome::Failed { class, detail }
}

fn problem_of_pattern(pattern: &str) -> Option<&'static str> {
    let mut tokens = pattern.split('.').peekable();
    let first = tokens.peek().copied().unwrap_or_default();
    if first.contains(['*', '>']) {
        return Some("begins with a wildcard, which would allow the broker's own subjects too");
    }
    if is_own(first) {
        return Some("is the broker's or the engine's own");
    }
    while let Some(token) = tokens.next() {
        let is_wildcard = token == "*" || (token == ">" && tokens.peek().is_none());
        if !is_wildcard && !is_plain(token) {
            return Some("is no pattern; use tokens of visible ASCII, `*` for one and a last `>`");
        }
    }
    None
}

/// Whether a question may ever be sent there.
fn is_sayable(subject: &str) -> bool {
    subject.split('.').all(is_plain) && !subject.split('.').next().is_some_and(is_own)
}

fn is_own(first: &str) -> bool {
    first.starts_with('$') || first.starts_with('_') || first.eq_ignore_ascii_case("fermata")
}

fn is_plain(token: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'>' | b'.');
    !token.is_empty() && token.bytes().all(allowed)
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (mut patterns, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some(pattern), Some(token)) if pattern == "*" || pattern == token => {}
            (Some(_) | None, Some(_)) | (Some(_), None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(subjects: &[&str]) -> Result<NatsRules, ConfigError> {
        let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        NatsRules::new(&NatsConfig { subjects, response_bytes_max: 16, ..NatsConfig::default() })
    }

    fn may_ask(rules: &NatsRules, subject: &str) -> bool {
        rules.question(subject, "run/node/1", 1, None, None, &json!({})).is_ok()
    }

    #[test]
    fn nothing_may_be_asked_that_is_not_allowed() {
        let rules = rules(&["billing.>", "users.*.lookup", "exact"]).unwrap();

        for allowed in ["billing.a", "billing.a.b", "users.7.lookup", "exact"] {
            assert!(may_ask(&rules, allowed), "{allowed}");
        }
        for refused in [
            "billing",
            "users.lookup",
            "users.7.lookup.more",
            "exact.more",
            "other",
            "",
            "billing.",
        ] {
            assert!(!may_ask(&rules, refused), "{refused}");
        }
        assert!(!may_ask(&NatsRules::new(&NatsConfig::default()).unwrap(), "billing.a"));
    }

    #[test]
    fn no_configuration_allows_a_wildcard_the_broker_or_the_engine() {
        for pattern in [
            "*",
            ">",
            "*.x",
            "$JS.>",
            "$SYS.>",
            "_INBOX.>",
            "fermata.>",
            "FERMATA.x",
            "",
            "a..b",
            "a.>.b",
            "a.b*",
        ] {
            assert!(rules(&[pattern]).is_err(), "{pattern}");
        }
        let rules = rules(&["a.>", "b"]).unwrap();
        for subject in ["a.*", "a.>", "$JS.API.INFO", "fermata.events.a.b", "a.b c", "a.b\r\n"] {
            assert!(!may_ask(&rules, subject), "{subject}");
        }
    }

    #[test]
    fn an_answer_is_json_within_its_limit_or_a_failure_of_its_class() {
        let rules = rules(&["a"]).unwrap();
        let answer = |payload: &'static str, service_error: Option<&str>| NatsAnswer {
            payload: payload.into(),
            service_error: service_error.map(str::to_owned),
        };
        let class = |answer| match rules.outcome("a", false, &answer) {
            EffectOutcome::Failed { class, .. } => Some(class),
            EffectOutcome::Succeeded { .. } => None,
        };

        let empty = rules.outcome("a", false, &answer("", None));
        assert_eq!(empty, EffectOutcome::Succeeded { output: Value::Null });
        assert_eq!(class(answer("[1,2]", None)), None);
        assert_eq!(class(answer("oops", None)), Some(FailureClass::ResponseNotJson));
        assert_eq!(
            class(answer("\"0123456789012345\"", None)),
            Some(FailureClass::ResponseTooLarge)
        );
        assert_eq!(class(answer("{}", Some("500 broken"))), Some(FailureClass::ServiceError));
    }

    #[test]
    fn a_question_carries_key_attempt_and_a_sound_trace() {
        let rules = rules(&["a"]).unwrap();
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

        let question =
            rules.question("a", "run/node/1", 3, Some(trace), None, &json!({"n": 1})).unwrap();

        assert_eq!(&question.payload[..], br#"{"n":1}"#);
        for header in
            [("idempotency-key", "run/node/1"), ("fermata-attempt", "3"), ("traceparent", trace)]
        {
            let found = question.headers.iter().any(|(name, value)| (*name, &**value) == header);
            assert!(found, "{header:?}");
        }
        let broken = rules.question("a", "k", 1, Some("00-\r\nx: y"), None, &json!({})).unwrap();
        assert!(broken.headers.iter().all(|(name, _)| *name != "traceparent"));
    }
}
