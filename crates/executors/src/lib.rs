//! Node kinds that touch the world: each attempt at an effect is carried out
//! here and always ends in an [`EffectOutcome`].
//!
//! This crate knows nothing of runs, journals or actors. It is handed one
//! [`EffectRequest`] at a time and answers what became of it; recording the
//! intent before and the outcome after is the caller's part, and so is the
//! decision to try again.
//!
//! **Architecture invariant:** an executor never retries by itself. One call of
//! [`Executors::execute`] is one attempt, so that the journal counts them all.

mod address;
mod callback;
mod command;
mod config;
mod effect;
mod executor;
mod fair_turns;
mod http;
mod nats;
mod resolver;
#[cfg(test)]
mod scripted_plugin;
mod signing;
mod target;
mod traceparent;
mod webhook;

pub use callback::{CallbackClaim, CallbackTokens, TOKEN_BYTES_MAX, unverified_claim};
pub use command::{CommandConfig, CommandOutput, Program};
pub use config::{ConfigError, ExecutorsConfig, HttpConfig, PluginTarget};
pub use effect::{CommandCall, EffectKind, EffectOutcome, EffectRequest, FailureClass, HttpCall};
pub use executor::Executors;
pub use fair_turns::{FairTurns, Turn};
pub use nats::{NatsAnswer, NatsConfig, NatsQuestion, NatsRules};
pub use signing::{SecretSource, SigningConfig};
pub use target::{PATH_BYTES_MAX, PathRefused};
pub use webhook::{WEBHOOKS_MAX, WebhookConfig};
