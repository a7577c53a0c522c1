//! Draws among strategies of equal precedence, as the log tells them.

use fermata_core::strategy::Decision;

use crate::log_pace::LogPace;

/// Draws that one matcher tells in the log per [`WINDOW`](crate::log_pace::WINDOW): a draw is what
/// weights are for, and may come with every event, but it may also be a priority that was
/// forgotten.
pub const TIES_TOLD_MAX: u32 = 5;

/// Tells of draws: who looks for the reason of a choice finds it.
#[derive(Debug)]
pub(crate) struct Draws(LogPace);

impl Default for Draws {
    fn default() -> Self {
        Self(LogPace::new(TIES_TOLD_MAX))
    }
}

impl Draws {
    pub(super) fn log(&mut self, decision: &Decision<'_>, event: &str) {
        let (winner, tied) = match decision {
            Decision::Start { chosen, tied, .. } => {
                (chosen.first().map(|chosen| chosen.strategy.name()), tied)
            }
            Decision::Ignored { strategy, tied, .. } => (Some(strategy.name()), tied),
            Decision::Unmatched { .. } | Decision::Failed { .. } => return,
        };
        if !tied.is_empty()
            && let Some(left_out) = self.0.line()
        {
            let tied = tied.iter().map(|strategy| strategy.name()).collect::<Vec<_>>();
            tracing::info!(
                event,
                winner,
                ?tied,
                left_out,
                "strategies of equal precedence; one was drawn"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};

    use fermata_core::event::{EventLimits, Subject, decode_message};
    use fermata_core::strategy::{Action, StrategyDefinition, StrategySet};
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use super::*;

    /// Lines as they are logged: `field=value`, in their order.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl Subscriber for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= Level::INFO
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut line = Line(String::new());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0 += &format!("{}={value:?} ", field.name());
        }
    }

    fn ignores(name: &str, on: &str) -> StrategyDefinition {
        StrategyDefinition {
            name: name.to_owned(),
            version: 1,
            tenant: "*".to_owned(),
            on: on.to_owned(),
            pattern: None,
            when: None,
            priority: 0,
            weight: 1,
            fan_out: false,
            action: Action::Ignore,
        }
    }

    /// What is logged of one event for each of these types.
    fn logged(kinds: &[&str]) -> Vec<String> {
        let strategies = [ignores("a", "two"), ignores("b", "two"), ignores("c", "one")];
        let set = StrategySet::compile(strategies.to_vec()).unwrap();
        let lines = Lines::default();
        let mut draws = Draws::default();
        tracing::subscriber::with_default(lines.clone(), || {
            for kind in kinds {
                let text =
                    format!(r#"{{"specversion":"1.0","id":"7","source":"/s","type":"{kind}"}}"#);
                let subject = Subject { tenant: "acme", kind };
                let decoded =
                    decode_message(None, text.as_bytes(), subject, &EventLimits::default());
                let event = decoded[0].as_ref().unwrap();
                draws.log(&set.decide(event), &event.id);
            }
        });
        let lines = lines.0.lock().unwrap();
        lines.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_draw_is_told_with_who_won_and_who_was_equal() {
        let lines = logged(&["two"]);

        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        let either = [r#"winner="a" tied=["b"]"#, r#"winner="b" tied=["a"]"#];
        assert!(either.iter().any(|told| line.contains(told)), "{line}");
        assert!(line.contains(r#"event="7""#) && line.contains("one was drawn"), "{line}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_wins_alone_is_not_told() {
        assert_eq!(logged(&["one", "none"]), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_draws_is_told_a_few_times() {
        assert_eq!(logged(&["two"; 100]).len(), TIES_TOLD_MAX as usize);
    }
}
