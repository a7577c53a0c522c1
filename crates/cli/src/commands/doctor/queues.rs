//! Whether every named queue that has tasks has workers, and can have them.

use fermata_jetstream::consumer_drift::ConsumerDrift;
use fermata_jetstream::work_queue::{QueueStanding, queue_drifts, queue_standings};

use super::Check;
use crate::broker_session::BrokerSession;
use crate::error::CliError;
use crate::output::counted;

pub(super) async fn served(session: &BrokerSession) -> Check {
    match queue_standings(session.broker()).await {
        Ok(standings) => judge(&standings),
        Err(error) => Check::failed(
            "queues",
            &CliError::Failed {
                action: "asking how the queues stand".to_owned(),
                source: Box::new(error),
            },
        ),
    }
}

/// Nothing to tell where all can be served.
pub(super) async fn servable(session: &BrokerSession) -> Option<Check> {
    match queue_drifts(session.broker()).await {
        Ok(drifts) => judge_drifts(&drifts),
        // That there is no such stream, or no answer, another check tells.
        Err(_) => None,
    }
}

fn judge_drifts(drifts: &[ConsumerDrift]) -> Option<Check> {
    let first = drifts.first()?;
    let name = |drift: &ConsumerDrift| format!("consumer {}: {drift}", drift.consumer);
    let found = drifts.iter().map(name).collect::<Vec<_>>().join("; ");
    let hint = format!(
        "another version made it, and no worker can serve the queue: delete the consumer (`nats consumer rm {} {}`), \
         and the workers make it again; no task is lost, those under way come again",
        first.stream, first.consumer
    );
    let details = drifts.iter().filter_map(|drift| serde_json::to_value(drift).ok());
    Some(Check::fail("consumers", found, hint).code("consumer_drift").details(details))
}

fn judge(standings: &[QueueStanding]) -> Check {
    let unserved = standings.iter().filter(|queue| !queue.is_served).collect::<Vec<_>>();
    if unserved.is_empty() {
        let tasks: u64 = standings.iter().map(|queue| queue.waiting + queue.under_way).sum();
        let found = match standings.len() {
            0 => "no task is in a queue".to_owned(),
            queues => {
                let (tasks, queues) =
                    (counted(tasks, "task", "tasks"), counted(queues, "queue", "queues"));
                format!("{tasks} in {queues}, all served")
            }
        };
        return Check::ok("queues", found);
    }
    let name = |queue: &&QueueStanding| {
        let waiting = counted(queue.waiting, "task waits", "tasks wait");
        format!("queue {}: no worker serves it, {waiting}", queue.queue)
    };
    let found = unserved.iter().map(name).collect::<Vec<_>>().join("; ");
    let hint =
        "start a worker with `fermata worker --queues`; the tasks fail when their time is over";
    let details = unserved.iter().filter_map(|queue| serde_json::to_value(queue).ok());
    Check::warn("queues", found, hint).code("queue_unserved").details(details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Health;

    #[test]
    fn a_consumer_that_another_version_made_is_to_be_deleted() {
        let drift = ConsumerDrift {
            stream: "TASKS".to_owned(),
            consumer: "tasks-gpu".to_owned(),
            setting: "max_waiting".to_owned(),
            expected: 4_096.into(),
            found: 512.into(),
        };

        let check = judge_drifts(&[drift]).expect("a check");

        assert_eq!((check.health, check.code), (Health::Fail, Some("consumer_drift")));
        assert_eq!(check.found, "consumer tasks-gpu: `max_waiting` is 512, not 4096");
        assert!(check.hint.expect("a hint").contains("`nats consumer rm TASKS tasks-gpu`"));
        assert_eq!(judge_drifts(&[]), None);
    }

    #[test]
    fn a_queue_that_nobody_serves_is_named() {
        let standing = |queue: &str, is_served| QueueStanding {
            queue: queue.to_owned(),
            waiting: 3,
            under_way: 0,
            is_served,
        };

        let check = judge(&[standing("gpu", false), standing("mail", true)]);

        assert_eq!((check.health, check.code), (Health::Warn, Some("queue_unserved")));
        assert_eq!(check.found, "queue gpu: no worker serves it, 3 tasks wait");
        assert_eq!(judge(&[standing("mail", true)]).health, Health::Ok);
        assert_eq!(judge(&[]).found, "no task is in a queue");
    }
}
