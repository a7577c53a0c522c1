//! The configuration file of an engine, `--config`.

use std::path::Path;

use fermata_core::json::{check_unique_keys, told};
use fermata_executors::{
    CommandConfig, ExecutorsConfig, HttpConfig, NatsConfig, PluginTarget, WebhookConfig,
};
use serde::{Deserialize, Deserializer};

use crate::commands::up::{EngineArguments, stream_room};
use crate::error::CliError;

/// What the file may say.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EngineFile {
    /// As `--stream-room`, which goes before it: a text such as `40GiB`.
    #[serde(deserialize_with = "size")]
    pub(super) stream_room: Option<u64>,
    http: HttpConfig,
    nats: NatsConfig,
    commands: CommandConfig,
    webhooks: Vec<WebhookConfig>,
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    stream_room(&text)
        .map(Some)
        .map_err(|why| serde::de::Error::custom(format!("`stream_room` is `{text}`: {why}")))
}

impl EngineFile {
    /// Reads the file that is named; what it says by default where none is.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, CliError> {
        let Some(file) = file else { return Ok(Self::default()) };
        let what = format!("`{}`", file.display());
        let text = std::fs::read_to_string(file).map_err(CliError::io(format!("read {what}")))?;
        Self::parse(&text, &what)
    }

    fn parse(text: &str, what: &str) -> Result<Self, CliError> {
        let refused = |error| not_a_configuration(what, &error);
        let file = serde_json::from_str(text).map_err(refused)?;
        check_unique_keys(text).map_err(refused)?;
        Ok(file)
    }

    /// What executors may reach, with the plugins that the command line names.
    pub(super) fn executors(self, arguments: &EngineArguments) -> ExecutorsConfig {
        let Self { stream_room: _, http, nats, commands, webhooks } = self;
        let mut config = ExecutorsConfig { http, nats, commands, webhooks };
        for plugin in &arguments.plugins {
            let target = PluginTarget { url: plugin.url.clone(), ..PluginTarget::default() };
            config.http.plugins.insert(plugin.name.clone(), target);
        }
        config
    }
}

fn not_a_configuration(what: &str, error: &serde_json::Error) -> CliError {
    let hint = match error.classify() {
        serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
            "; a configuration is JSON (not YAML), such as `{\"http\": {\"plugins\": {\"job-store\": \
             {\"url\": \"http://127.0.0.1:9000\"}}}}`"
        }
        serde_json::error::Category::Data | serde_json::error::Category::Io => "",
    };
    // What stands there may be a secret.
    CliError::Usage(format!("{what} is no configuration: {}{hint}", told(error, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        EngineFile::parse(text, "`a.json`").unwrap_err().to_string()
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_with_its_place() {
        let twice = "{\"http\": {\"plugins\": {\n  \"a\": {\"url\": \"http://h\"},\n  \"a\": {\"url\": \"http://i\"}}}}";

        assert_eq!(
            refused(twice),
            "`a.json` is no configuration: `a` is there twice at line 3 column 5"
        );
        assert!(refused("{\"nats\": {}, \"nats\": {}}").contains("`nats` at line 1 column"));
    }

    #[test]
    fn the_room_of_the_streams_can_stand_in_the_file() {
        let file = EngineFile::parse(r#"{"stream_room": "40GiB", "webhooks": []}"#, "`a.json`");
        assert_eq!(file.unwrap().stream_room, Some(40 << 30));
        assert_eq!(EngineFile::parse("{}", "`a.json`").unwrap(), EngineFile::default());

        let small = refused(r#"{"stream_room": "1GiB"}"#);
        assert!(
            small.contains("`stream_room` is `1GiB`: the streams of an engine take"),
            "{small}"
        );
        assert!(refused(r#"{"stream_rom": "4GiB"}"#).contains("`stream_rom`"));
    }
}
