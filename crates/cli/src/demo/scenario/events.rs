//! The events one by one, each noted in the figures when it is made up.

use fermata_core::event::SUBJECT_PREFIX;
use serde_json::{Value, json};

use super::{Expected, LARGE_AMOUNT, OTHER_TENANT, REPORT, REQUEST, ScenarioMessage, TENANT};
use crate::output::time_text;

const ONE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// When the first event says that it happened: a fixed time, so that the bytes are the same
/// every time.
const BEGIN_MS: u64 = 1_767_225_600_000;

/// A job that took longer than this is told to the people on duty.
const SLOW_MS: u32 = 60_000;

/// A message, and whether its event starts a run.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) message: ScenarioMessage,
    pub(super) starts_run: bool,
}

/// Makes events up.
#[derive(Debug)]
pub(super) struct Making {
    round: String,
    made: u32,
    expected: Expected,
}

impl Making {
    pub(super) fn new(round: &str) -> Self {
        Self { round: round.to_owned(), made: 0, expected: Expected::default() }
    }

    pub(super) fn into_expected(self) -> Expected {
        self.expected
    }

    /// A finished job; every third one was slow.
    pub(super) fn report(&mut self, number: u32) -> Step {
        let slow = number % 3 == 2;
        let duration_ms = if slow { SLOW_MS + 1_000 + number } else { 500 + 7 * (number % 1_000) };
        self.expect_run(REPORT);
        self.expect_commits(&["job-store", "notifier", "archive"]);
        if slow {
            self.expect_commits(&["pager"]);
        }
        let data = json!({
            "job_id": format!("job-{number}"), "status": "succeeded", "duration_ms": duration_ms,
        });
        self.starting(TENANT, "plugin.job.completed", data)
    }

    /// A request; every other one is large, and some are of another tenant.
    pub(super) fn request(&mut self, number: u32) -> Step {
        let large = number % 2 == 1;
        let amount = if large { LARGE_AMOUNT + 10 * number } else { 20 + number % 900 };
        self.expect_run(REQUEST);
        self.expect_commits(&["notifier"]);
        if large {
            self.expect_commits(&["assessor"]);
            // The plugin that assesses fails the first attempt of each request.
            self.expected.runs_with_retry += 1;
            self.expected.attempts_failed += 1;
        }
        let tenant = if number % 5 == 4 { OTHER_TENANT } else { TENANT };
        let data = json!({ "request_id": format!("request-{number}"), "amount": amount });
        self.starting(tenant, "request.created", data)
    }

    /// An event of a type that nobody waits for, or a job that no condition takes. Each of the former has a type
    /// of its own: events of one type share a case if they come in one minute, and how many cases there are
    /// would be a matter of the clock.
    pub(super) fn unmatched(&mut self, number: u32) -> Step {
        self.expected.unmatched += 1;
        let (kind, data) = if number % 4 == 3 {
            let data =
                json!({ "job_id": format!("lost-{number}"), "status": "failed", "duration_ms": 3 });
            ("plugin.job.completed".to_owned(), data)
        } else {
            (format!("invoice.{number}.paid"), json!({ "invoice": format!("invoice-{number}") }))
        };
        Step { starts_run: false, ..self.starting(TENANT, &kind, data) }
    }

    /// No JSON; an event without an id; an event that names another tenant than its subject.
    pub(super) fn malformed(&mut self) -> [Step; 3] {
        let mut without_id = self.event("request.created", json!({ "amount": 1 }));
        if let Value::Object(members) = &mut without_id {
            members.remove("id");
        }
        let mut of_another = self.event("request.created", json!({ "amount": 1 }));
        if let Value::Object(members) = &mut of_another {
            members.insert("tenant".to_owned(), json!(OTHER_TENANT));
        }
        for reason in ["not_json", "missing_attribute", "tenant_mismatch"] {
            *self.expected.dead_letters.entry(reason).or_default() += 1;
        }
        let no_json = b"{\"specversion\":\"1.0\",\"id\":\"half an ev".to_vec();
        [no_json, without_id.to_string().into_bytes(), of_another.to_string().into_bytes()]
            .map(|payload| step(TENANT, "request.created", payload, false))
    }

    /// Heartbeats, which a strategy ignores, in one batch.
    pub(super) fn ignored_batch(&mut self, events: u32) -> Step {
        self.expected.ignored += events;
        let batch: Vec<_> = (0..events)
            .map(|number| self.event("agent.heartbeat", json!({ "agent": number })))
            .collect();
        let message = ScenarioMessage {
            subject: format!("{SUBJECT_PREFIX}{TENANT}.batch"),
            content_type: BATCH,
            payload: Value::Array(batch).to_string().into_bytes().into(),
            events,
        };
        Step { message, starts_run: false }
    }

    pub(super) fn expect_repeats(&mut self, repeats: u32) {
        self.expected.repeats += repeats;
    }

    fn expect_run(&mut self, workflow: &'static str) {
        *self.expected.runs_succeeded.entry(workflow).or_default() += 1;
    }

    fn expect_commits(&mut self, plugins: &[&str]) {
        for plugin in plugins {
            let path = format!("/plugin/runtime/{plugin}/execute");
            *self.expected.commits.entry(path).or_default() += 1;
        }
    }

    fn starting(&mut self, tenant: &str, kind: &str, data: Value) -> Step {
        let event = self.event(kind, data);
        step(tenant, kind, event.to_string().into_bytes(), true)
    }

    fn event(&mut self, kind: &str, data: Value) -> Value {
        self.made += 1;
        let number = self.made;
        json!({
            "specversion": "1.0",
            "id": format!("event-{number}"),
            "source": format!("/demo/{}", self.round),
            "type": kind,
            "time": time_text(BEGIN_MS + u64::from(number) * 1_000),
            "datacontenttype": "application/json",
            "data": data,
        })
    }
}

fn step(tenant: &str, kind: &str, payload: Vec<u8>, starts_run: bool) -> Step {
    let message = ScenarioMessage {
        subject: format!("{SUBJECT_PREFIX}{tenant}.{kind}"),
        content_type: ONE,
        payload: payload.into(),
        events: 1,
    };
    Step { message, starts_run }
}
