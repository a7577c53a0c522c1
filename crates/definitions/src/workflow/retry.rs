//! `retry` and its short form `retry_policy`.

use fermata_core::plan::{FailureClass, RetryPolicy, Work};

use crate::duration;
use crate::fields::{Fields, Keys, Reader};
use crate::spelling;
use crate::tree::{Located, Tree};

pub(crate) const RETRY: Keys =
    Keys { known: &["max_attempts", "initial", "factor", "max", "jitter", "on"], later: &[] };
/// The short forms.
const POLICIES: [&str; 2] = ["exponential_backoff", "none"];

pub(super) fn read(reader: &mut Reader, fields: &Fields<'_>, work: &Work) -> RetryPolicy {
    let usual =
        RetryPolicy { on: work.retryable_by_default(), ..RetryPolicy::exponential_backoff() };
    let short = fields.read(reader, "retry_policy", |reader, path, located| {
        policy(reader, path, located, &usual)
    });
    let long =
        fields.read(reader, "retry", |reader, path, located| retry(reader, path, located, &usual));
    if let (Some(entry), Some(_)) = (fields.entry("retry_policy"), fields.entry("retry")) {
        let message = "`retry` and `retry_policy` say the same thing";
        let path = fields.path_to("retry_policy");
        reader.problems.add_with_hint(entry.key_start, &path, message, "keep one of them");
    }
    long.or(short).unwrap_or_default()
}

fn policy(
    reader: &mut Reader,
    path: &str,
    located: &Located,
    usual: &RetryPolicy,
) -> Option<RetryPolicy> {
    let name = reader.text(path, located)?;
    match name.as_str() {
        "exponential_backoff" => Some(usual.clone()),
        "none" => Some(RetryPolicy::none()),
        _ => {
            let shown: String = name.chars().take(80).collect();
            let hint = spelling::hint(&name, POLICIES)
                .unwrap_or_else(|| format!("one of {}, or `retry: {{…}}`", POLICIES.join(", ")));
            let message = format!("`{shown}` is no retry policy");
            reader.problems.add_with_hint(located.start, path, message, hint);
            None
        }
    }
}

fn retry(
    reader: &mut Reader,
    path: &str,
    located: &Located,
    usual: &RetryPolicy,
) -> Option<RetryPolicy> {
    let fields = reader.mapping(path, located, &RETRY)?;
    let jitter = fields.read(reader, "jitter", Reader::text);
    if let (Some(jitter), Some(located)) = (jitter, fields.get("jitter"))
        && jitter != "full"
    {
        let message = "only `jitter: full` has an effect";
        reader.problems.add(located.start, &fields.path_to("jitter"), message);
    }
    let initial_ms = fields.read(reader, "initial", duration::milliseconds);
    let max_ms = fields.read(reader, "max", duration::milliseconds).unwrap_or(usual.max_ms);
    if let (Some(_), Some(located)) = (initial_ms.filter(|ms| *ms > max_ms), fields.get("initial"))
    {
        let hint = "make `max` at least as long; it is 30s when it is left out";
        let message = "`initial` is longer than `max`, which no pause exceeds";
        reader.problems.add_with_hint(located.start, &fields.path_to("initial"), message, hint);
    }
    Some(RetryPolicy {
        max_attempts: fields.require(reader, "max_attempts", Reader::whole).unwrap_or(1),
        initial_ms: initial_ms.unwrap_or(usual.initial_ms),
        factor_permille: fields.read(reader, "factor", factor).unwrap_or(usual.factor_permille),
        max_ms,
        on: fields.read(reader, "on", classes).unwrap_or_else(|| usual.on.clone()),
    })
}

fn factor(reader: &mut Reader, path: &str, located: &Located) -> Option<u32> {
    let number = if let Tree::Number(number) = &located.value { number.as_f64() } else { None };
    let Some(factor) = number.filter(|factor| (1.0..=100.0).contains(factor)) else {
        reader.expected(path, located, "a number from 1 to 100");
        return None;
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 100,000 and positive"
    )]
    Some((factor * 1_000.0).round() as u32)
}

fn classes(reader: &mut Reader, path: &str, located: &Located) -> Option<Vec<FailureClass>> {
    let names = FailureClass::ALL.map(FailureClass::as_str);
    let mut classes = Vec::new();
    let items = reader.list(path, located)?;
    if items.is_empty() {
        let message = "the list is empty, so that no failure is followed by another attempt";
        let hint = "name classes of failures, or leave `on` out for the usual ones";
        reader.problems.add_with_hint(located.start, path, message, hint);
    }
    for (at, item) in items.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let Some(name) = reader.text(&path, item) else { continue };
        match FailureClass::ALL.into_iter().find(|class| class.as_str() == name) {
            Some(class) if classes.contains(&class) => {}
            Some(class) => classes.push(class),
            None => {
                let shown: String = name.chars().take(80).collect();
                let hint = spelling::hint(&name, names)
                    .unwrap_or_else(|| format!("one of {}", names.join(", ")));
                let message = format!("`{shown}` is no class of failures");
                reader.problems.add_with_hint(item.start, &path, message, hint);
            }
        }
    }
    Some(classes)
}
