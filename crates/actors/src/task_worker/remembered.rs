//! Tasks that a worker must know again, a bounded number of them.

use std::collections::{HashSet, VecDeque};

use fermata_wire::tasks::TaskId;

/// The newest so many tasks that it was told of.
#[derive(Debug)]
pub(super) struct Remembered {
    tasks: HashSet<TaskId>,
    /// The same, the oldest first.
    order: VecDeque<TaskId>,
    most: usize,
}

impl Remembered {
    /// Nothing yet, and never more than `most`.
    pub(super) fn at_most(most: usize) -> Self {
        Self { tasks: HashSet::new(), order: VecDeque::new(), most }
    }

    /// Remembers `task`; forgets the oldest one where there is no room.
    pub(super) fn insert(&mut self, task: TaskId) {
        if !self.tasks.insert(task.clone()) {
            return;
        }
        self.order.push_back(task);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.tasks.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, task: &TaskId) -> bool {
        self.tasks.contains(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(attempt: u32) -> TaskId {
        let run = "0193f3a0-0000-8000-8000-000000000001".parse().unwrap();
        TaskId { run, node: "ask".into(), activation: 1, attempt }
    }

    #[test]
    fn the_newest_are_known_and_each_counts_once() {
        let mut remembered = Remembered::at_most(2);

        for attempt in [1, 2, 2, 2, 3] {
            remembered.insert(task(attempt));
        }

        let known = [1, 2, 3].map(|attempt| remembered.contains(&task(attempt)));
        assert_eq!(known, [false, true, true]);
    }
}
