//! Sending an event to a strategy by name, whatever the strategy asks of events.

use thiserror::Error;

use super::compile::StrategySet;
use super::decide::{Chosen, Facts};
use super::definition::TENANT_ANY;
use crate::event::Event;

/// Why an event cannot be sent to a strategy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// No strategy of the name sees events of the tenant.
    #[error("there is no such strategy for the event's tenant")]
    Unknown,
    /// It ignores events.
    #[error("the strategy starts no workflow")]
    StartsNothing,
    /// Its variables could not be evaluated; for a person.
    #[error("{0}")]
    Failed(String),
}

impl StrategySet {
    /// What the strategy `name` starts for `event`: neither its type, nor its
    /// pattern, nor its condition is asked, and no other strategy. Its tenant is:
    /// who decides for one tenant starts nothing of another's.
    ///
    /// # Errors
    ///
    /// [`RouteError`].
    pub fn route(&self, name: &str, event: &Event<'_>) -> Result<Chosen<'_>, RouteError> {
        let strategy = self.strategies().iter().find(|strategy| {
            let tenant = strategy.definition().tenant.as_str();
            strategy.name() == name && (tenant == TENANT_ANY || tenant == event.tenant)
        });
        let strategy = strategy.ok_or(RouteError::Unknown)?;
        if strategy.workflow().is_none() {
            return Err(RouteError::StartsNothing);
        }
        let variables = Facts::new(event).variables(strategy).map_err(RouteError::Failed)?;
        Ok(Chosen { strategy, variables })
    }
}
