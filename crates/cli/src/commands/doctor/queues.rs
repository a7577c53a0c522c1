//! Whether every named queue that has tasks has workers.

use fermata_jetstream::work_queue::{QueueStanding, queue_standings};

use super::Check;
use crate::broker_session::BrokerSession;
use crate::error::CliError;

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

fn judge(standings: &[QueueStanding]) -> Check {
    let unserved = standings.iter().filter(|queue| !queue.is_served).collect::<Vec<_>>();
    if unserved.is_empty() {
        let tasks: u64 = standings.iter().map(|queue| queue.waiting + queue.under_way).sum();
        let found = match standings.len() {
            0 => "no task is in a queue".to_owned(),
            queues => format!("{tasks} tasks in {queues} queues, all served"),
        };
        return Check::ok("queues", found);
    }
    let name = |queue: &&QueueStanding| {
        format!("queue {}: no worker serves it, {} tasks wait", queue.queue, queue.waiting)
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
