//! That the broker's data is another engine's by now.

use fermata_jetstream::connection::{Replaced, without_credentials};
use thiserror::Error;

use super::EngineAgreement;

/// Where this engine's broker was, another engine is, or none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the broker at {url} {}: its data was replaced, or the address is another broker's by now; this process does nothing \
     there",
    .found.as_ref().map_or_else(
        || format!("has no engine any more (it had `{engine}`)"),
        |found| format!("has another engine now (`{found}` instead of `{engine}`)")
    )
)]
pub struct EngineReplaced {
    /// The server that was asked, without credentials.
    pub url: String,
    /// The engine that this process belongs to.
    pub engine: String,
    /// The one that is there.
    pub found: Option<String>,
}

impl EngineReplaced {
    pub(super) fn of(engine: &str, replaced: Replaced) -> Self {
        let found = replaced.found.map(|agreed| {
            let agreed = serde_json::from_slice::<EngineAgreement>(&agreed);
            agreed.map_or_else(|_| "unreadable".to_owned(), |agreed| agreed.engine)
        });
        Self { url: without_credentials(&replaced.url), engine: engine.to_owned(), found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_with_what_was() {
        let told = |found: Option<&'static str>| {
            let url = "nats://ada:s3cret@127.0.0.1:4222".to_owned();
            let replaced = Replaced { url, found: found.map(|text| text.as_bytes().into()) };
            EngineReplaced::of("fermata-a", replaced).to_string()
        };
        let other = r#"{"version":1,"engine":"fermata-b","partitions":1,"audit_vkey":"k"}"#;

        assert!(told(Some(other)).contains("(`fermata-b` instead of `fermata-a`)"));
        assert!(told(Some("{}")).contains("(`unreadable` instead of"));
        let gone = told(None);
        assert!(gone.contains("nats://127.0.0.1:4222 has no engine any more"), "{gone}");
    }
}
