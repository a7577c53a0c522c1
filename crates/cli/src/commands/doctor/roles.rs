//! Whether each step on an event's way to a decision has a worker that takes it.

use super::Check;
use super::workers::WorkerStatus;

/// Roles without which an event that was acknowledged starts nothing. Lists of runs come from the projector
/// alone, which need not be there.
const NEEDED: [&str; 4] = ["listener", "matcher", "builder", "coordinator"];

/// Compares what the workers do with what has to be done; `is_complete` says whether all that live answered.
pub(super) fn judge(statuses: &[WorkerStatus], is_complete: bool) -> Check {
    let has = |role: &str| statuses.iter().any(|status| status.roles.iter().any(|own| own == role));
    let unserved = NEEDED.into_iter().filter(|role| !has(role)).collect::<Vec<_>>();
    if unserved.is_empty() {
        return Check::ok("roles", format!("{} are served", NEEDED.join(", ")));
    }
    let roles = unserved.join(", ");
    // Older workers do not tell what they do.
    if !is_complete || statuses.iter().any(|status| status.incarnation.is_none()) {
        let found = format!("not known of {roles}: not every worker told what it does");
        return Check::skipped("roles", found);
    }
    let found = format!("no worker has the role {roles}: events are stored, and wait");
    let hint = format!(
        "start one with `fermata worker --roles {}`; nothing is lost, what waits is done then",
        unserved.join(",")
    );
    Check::fail("roles", found, hint).code("role_unserved").details(unserved)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::commands::doctor::Health;

    fn worker(roles: &[&str]) -> WorkerStatus {
        let roles = roles.iter().map(ToString::to_string).collect();
        WorkerStatus { incarnation: Some(Uuid::nil()), roles, ..WorkerStatus::default() }
    }

    #[test]
    fn roles_that_nobody_has_are_named_with_what_to_start() {
        let check = judge(&[worker(&["coordinator", "projector"]), worker(&["builder"])], true);

        assert_eq!((check.health, check.code), (Health::Fail, Some("role_unserved")));
        assert_eq!(
            check.found,
            "no worker has the role listener, matcher: events are stored, and wait"
        );
        assert!(check.hint.expect("a hint").contains("--roles listener,matcher`"));
        assert_eq!(check.details, ["listener", "matcher"]);
        assert_eq!(judge(&[worker(&NEEDED)], true).health, Health::Ok);
    }

    #[test]
    fn a_worker_that_does_not_tell_may_have_any_role() {
        let health = |statuses: &[WorkerStatus], is_complete| judge(statuses, is_complete).health;

        let older = WorkerStatus::default();
        assert_eq!(health(&[worker(&["builder"]), older], true), Health::Skipped);
        assert_eq!(health(&[worker(&["builder"])], false), Health::Skipped);
        assert_eq!(health(&[worker(&NEEDED)], false), Health::Ok);
    }
}
