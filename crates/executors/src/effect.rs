//! One attempt at an effect: what is asked for, and what became of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

/// One attempt at one effect.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectRequest {
    /// The effect key, `run/node/activation[/item][/undo]`, shared by all
    /// attempts; visible ASCII. It is the idempotency key that a target sees.
    pub key: String,
    /// Number of this attempt, counted from 1.
    pub attempt: u32,
    /// Whose effect it is: what is scarce is shared fairly between tenants.
    pub tenant: Arc<str>,
    /// W3C `traceparent` of the attempt. One that is not well-formed is left
    /// out rather than failing the effect.
    pub traceparent: Option<String>,
    /// Time allowed for the whole attempt: waiting for a free connection,
    /// connecting, sending, and reading the response to its end.
    pub timeout: Duration,
    /// Token by which the effect is completed later; with it, an answer says only
    /// that the call was accepted, and its body is not read.
    pub callback: Option<String>,
    /// What to do.
    pub kind: EffectKind,
}

/// What an effect does.
#[derive(Debug, Clone, PartialEq)]
pub enum EffectKind {
    /// Nothing, successfully.
    Noop,
    /// Calls a plugin over HTTP.
    Http(HttpCall),
    /// Runs a program.
    Command(CommandCall),
}

/// A program on the allow-list.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandCall {
    /// Name of the program in [`CommandConfig::programs`](crate::CommandConfig::programs).
    pub name: String,
    /// Its arguments, as they are: there is no shell.
    pub args: Vec<String>,
    /// What it reads from its standard input, as JSON.
    pub stdin: Value,
}

/// A `POST` to a plugin on the allow-list.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCall {
    /// Name of the plugin in [`HttpConfig::plugins`](crate::HttpConfig::plugins).
    pub plugin: String,
    /// Absolute path below the plugin's address, without query or fragment; see
    /// [`PathRefused`](crate::PathRefused) for what is not taken.
    pub path: String,
    /// The request's body, sent as JSON.
    pub body: Value,
}

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum EffectOutcome {
    /// The target did what was asked.
    Succeeded {
        /// Its answer; `null` where it has none.
        output: Value,
    },
    /// The target did not, or nobody knows.
    Failed {
        /// Why, for rules.
        class: FailureClass,
        /// Why, for people: one line, at most 512 bytes. It never holds a body,
        /// which may carry data that does not belong in a journal.
        detail: String,
    },
}

/// Why an attempt failed, in terms that a retry rule can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureClass {
    /// The attempt was not over when its time was.
    Timeout,
    /// The connection could not be made, or broke before the response was
    /// complete. In the latter case the target may have acted.
    Connect,
    /// The target answered with a status from 400 to 499, 408 and 429 included.
    Http4xx,
    /// The target answered with a status from 500 to 599, or with one that means
    /// nothing to us, which RFC 9110 §15 says to treat alike.
    Http5xx,
    /// The target answered with a redirect, and none is followed.
    Http3xx,
    /// The response is longer than
    /// [`HttpConfig::response_bytes_max`](crate::HttpConfig::response_bytes_max).
    ResponseTooLarge,
    /// The target answered with success and a body that is not JSON.
    ResponseNotJson,
    /// Refused before anything was sent: unknown plugin, unusable path or key,
    /// or a request body that is too large.
    NotAllowed,
    /// Somebody stopped the attempt. Executors never answer this: it is the word
    /// for the caller that dropped the attempt.
    Cancelled,
    /// Nobody listens on the subject: nobody has acted.
    NoResponders,
    /// The service answered with an error of its own (NATS micro services).
    ServiceError,
    /// The program ended with a failure, or by a signal.
    ExitStatus,
    /// The program says that trying again may help (exit status 75, `EX_TEMPFAIL`
    /// of `sysexits.h`), or could not be started for want of room.
    ExitTemporary,
}

impl FailureClass {
    /// Every class, in the order of its declaration.
    pub const ALL: [FailureClass; 13] = [
        FailureClass::Timeout,
        FailureClass::Connect,
        FailureClass::Http4xx,
        FailureClass::Http5xx,
        FailureClass::Http3xx,
        FailureClass::ResponseTooLarge,
        FailureClass::ResponseNotJson,
        FailureClass::NotAllowed,
        FailureClass::Cancelled,
        FailureClass::NoResponders,
        FailureClass::ServiceError,
        FailureClass::ExitStatus,
        FailureClass::ExitTemporary,
    ];

    /// Returns the code that stands in journals and definitions; codes never change.
    pub const fn as_str(self) -> &'static str {
        match self {
            FailureClass::Timeout => "timeout",
            FailureClass::Connect => "connect",
            FailureClass::Http4xx => "http_4xx",
            FailureClass::Http5xx => "http_5xx",
            FailureClass::Http3xx => "http_3xx",
            FailureClass::ResponseTooLarge => "response_too_large",
            FailureClass::ResponseNotJson => "response_not_json",
            FailureClass::NotAllowed => "not_allowed",
            FailureClass::Cancelled => "cancelled",
            FailureClass::NoResponders => "no_responders",
            FailureClass::ServiceError => "service_error",
            FailureClass::ExitStatus => "exit_status",
            FailureClass::ExitTemporary => "exit_temporary",
        }
    }

    /// Says whether another attempt may help when the workflow names no classes.
    ///
    /// The rest fails the same way each time until somebody changes something.
    pub const fn retryable_by_default(self) -> bool {
        match self {
            FailureClass::Timeout
            | FailureClass::Connect
            | FailureClass::Http5xx
            | FailureClass::NoResponders
            | FailureClass::ExitTemporary => true,
            FailureClass::ServiceError
            | FailureClass::ExitStatus
            | FailureClass::Http4xx
            | FailureClass::Http3xx
            | FailureClass::ResponseTooLarge
            | FailureClass::ResponseNotJson
            | FailureClass::NotAllowed
            | FailureClass::Cancelled => false,
        }
    }

    /// Says whether the target may have acted although the attempt failed, which
    /// decides about a target that is not idempotent.
    ///
    /// In doubt it may: a refused connection and one that broke late are one class.
    pub const fn may_have_acted(self) -> bool {
        match self {
            FailureClass::Timeout
            | FailureClass::Connect
            | FailureClass::Http5xx
            | FailureClass::ResponseTooLarge
            | FailureClass::ResponseNotJson
            | FailureClass::Cancelled => true,
            FailureClass::Http4xx
            | FailureClass::Http3xx
            | FailureClass::NotAllowed
            | FailureClass::NoResponders
            | FailureClass::ServiceError
            | FailureClass::ExitStatus
            | FailureClass::ExitTemporary => false,
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::FailureClass;

    #[test]
    fn every_class_has_the_code_that_definitions_name() {
        let codes = FailureClass::ALL.map(FailureClass::as_str);

        assert_eq!(
            codes,
            [
                "timeout",
                "connect",
                "http_4xx",
                "http_5xx",
                "http_3xx",
                "response_too_large",
                "response_not_json",
                "not_allowed",
                "cancelled",
                "no_responders",
                "service_error",
                "exit_status",
                "exit_temporary"
            ]
        );
    }

    #[test]
    fn only_what_may_pass_by_itself_is_retried_by_default() {
        let retried: Vec<_> = FailureClass::ALL
            .into_iter()
            .filter(|class| class.retryable_by_default())
            .map(FailureClass::as_str)
            .collect();

        assert_eq!(retried, ["timeout", "connect", "http_5xx", "no_responders", "exit_temporary"]);
    }
}
