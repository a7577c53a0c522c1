//! Which requests are under way here, by the id that their sender gave them.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Ids of requests that have begun and not ended; as many as are under way at once.
#[derive(Debug, Default)]
pub(crate) struct InFlight(Mutex<HashSet<String>>);

/// A request that has begun; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Begun<'a> {
    in_flight: &'a InFlight,
    id: String,
}

impl InFlight {
    /// Begins a request, unless one with its id is under way.
    pub(crate) fn begin(&self, id: String) -> Option<Begun<'_>> {
        let is_new = self.ids(|ids| ids.insert(id.clone()));
        // One that is not new must not be made: dropping it would end the other.
        is_new.then(|| Begun { in_flight: self, id })
    }

    fn ids<T>(&self, look: impl FnOnce(&mut HashSet<String>) -> T) -> T {
        // Nobody panics while holding it.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.in_flight.ids(|ids| ids.remove(&self.id));
    }
}
