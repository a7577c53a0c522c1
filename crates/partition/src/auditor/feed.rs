//! What subscribers are sent: the entries of one tenant that became stored
//! together, as they are encoded in the log.

use std::ops::Range;

use fermata_core::identity::Tenant;
use fermata_wire::audit::{AuditFrameBuilder, Entries};
use serde::Deserialize;

use super::Output;

/// Collects what was stored, by tenant.
#[derive(Debug, Default)]
pub(super) struct Feed {
    groups: Vec<(Option<Tenant>, AuditFrameBuilder)>,
    journal_sequence: u64,
}

/// The part of a header that says whose record it is.
#[derive(Deserialize)]
struct Owner<'a> {
    #[serde(default, borrow)]
    tenant: Option<&'a str>,
}

impl Feed {
    /// Adds the entries of `journal_sequence` at `places`.
    pub(super) fn add(&mut self, journal_sequence: u64, entries: &Entries, places: Range<usize>) {
        self.journal_sequence = journal_sequence;
        // Neighbours mostly are of one tenant: copied together.
        let mut run = places.start..places.start;
        let mut run_group = 0;
        for place in places {
            let group = self.group_of(tenant_of(entries, place));
            if group != run_group {
                self.copy(run_group, entries, run.clone());
                (run_group, run) = (group, place..place);
            }
            run.end = place + 1;
        }
        self.copy(run_group, entries, run);
    }

    fn group_of(&mut self, tenant: Option<&str>) -> usize {
        let is_it = |known: &Option<Tenant>| known.as_ref().map(Tenant::as_str) == tenant;
        if let Some(group) = self.groups.iter().position(|(known, _)| is_it(known)) {
            return group;
        }
        // What is no tenant's name never got into a header of ours.
        let tenant = tenant.and_then(|tenant| tenant.parse().ok());
        self.groups.push((tenant, AuditFrameBuilder::default()));
        self.groups.len() - 1
    }

    fn copy(&mut self, group: usize, entries: &Entries, places: Range<usize>) {
        if let Some((_, frame)) = self.groups.get_mut(group) {
            frame.push(entries, places);
        }
    }

    /// One frame for each tenant.
    pub(super) fn finish(self, outputs: &mut Vec<Output>) {
        for (tenant, frame) in self.groups {
            // What fitted a message of the log fits here too.
            if let Ok(frame) = frame.finish(self.journal_sequence) {
                outputs.push(Output::Feed { tenant, frame });
            }
        }
    }
}

fn tenant_of(entries: &Entries, place: usize) -> Option<&str> {
    let entry = entries.get(place)?;
    rmp_serde::from_slice::<Owner<'_>>(entry.header).ok()?.tenant
}
