//! One entrance to all node kinds that touch the world.

use serde_json::Value;
use tracing::Instrument as _;

use crate::command::CommandExecutor;
use crate::config::{ConfigError, ExecutorsConfig};
use crate::effect::{EffectKind, EffectOutcome, EffectRequest};
use crate::http::HttpExecutor;
use crate::nats::NatsRules;
use crate::resolver;
use crate::webhook;

/// Carries out effects, many at a time.
///
/// How many run at once is the caller's to bound; to one plugin never more than
/// [`HttpConfig::connections_per_plugin_max`](crate::HttpConfig::connections_per_plugin_max).
#[derive(Debug)]
pub struct Executors {
    http: HttpExecutor,
    nats: NatsRules,
    commands: CommandExecutor,
}

impl Executors {
    /// Checks the configuration and makes the executors. Nothing is connected to
    /// until the first effect.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] if a plugin's address can't be used, a limit is
    /// zero, or the HTTP client can't be set up: all that is wrong, at once.
    pub fn new(config: &ExecutorsConfig) -> Result<Self, ConfigError> {
        Self::beside(config, &[])
    }

    /// As [`Executors::new`], beside brokers of our own at these addresses, which no
    /// call may reach.
    ///
    /// # Errors
    /// As [`Executors::new`].
    pub fn beside(config: &ExecutorsConfig, brokers: &[String]) -> Result<Self, ConfigError> {
        let http = HttpExecutor::new(&config.http, brokers, &resolver::system());
        let commands = CommandExecutor::new(&config.commands);
        match (http, NatsRules::new(&config.nats), commands, webhook::check(config)) {
            (Ok(http), Ok(nats), Ok(commands), Ok(())) => Ok(Self { http, nats, commands }),
            (http, nats, commands, webhooks) => {
                let problems = [http.err(), nats.err(), commands.err(), webhooks.err()];
                Err(ConfigError::of(problems.into_iter().flatten()))
            }
        }
    }

    /// What may be asked over NATS, and how answers are read; the connection is
    /// the caller's.
    #[must_use]
    pub fn nats(&self) -> &NatsRules {
        &self.nats
    }

    /// Makes one attempt at an effect and tells what became of it.
    ///
    /// Every failure is an outcome; there is no error and no panic. The attempt is
    /// over after [`EffectRequest::timeout`] at the latest. It is never made twice.
    ///
    /// Must be called within a Tokio runtime that has its I/O and time drivers on.
    ///
    /// # Cancel safety
    /// Dropping the future ends the attempt and closes its connection. The target
    /// may have acted by then or may do so yet: the caller records
    /// [`FailureClass::Cancelled`](crate::FailureClass::Cancelled), which says so.
    pub async fn execute(&self, request: EffectRequest) -> EffectOutcome {
        match &request.kind {
            EffectKind::Noop => EffectOutcome::Succeeded { output: Value::Null },
            EffectKind::Command(call) => {
                let span = tracing::debug_span!(
                    "command_effect",
                    key = request.key,
                    attempt = request.attempt,
                    program = call.name,
                );
                Box::pin(self.commands.execute(&request, call)).instrument(span).await
            }
            EffectKind::Http(call) => {
                let span = tracing::debug_span!(
                    "http_effect",
                    key = request.key,
                    attempt = request.attempt,
                    plugin = call.plugin,
                );
                // Boxed, so that the far more frequent small effects stay small.
                Box::pin(self.http.execute(&request, call)).instrument(span).await
            }
        }
    }
}

#[cfg(test)]
mod hardening;
#[cfg(test)]
mod tests;
