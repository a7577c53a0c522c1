//! Reading mappings: known keys, keys for later, misspelt keys.

use crate::problem::Problems;
use crate::spelling;
use crate::tree::{Entry, Located, Place, Tree};

/// What a reader carries along.
pub(crate) struct Reader {
    pub(crate) problems: Problems,
}

/// The keys of one kind of mapping.
pub(crate) struct Keys {
    /// The keys that have an effect.
    pub(crate) known: &'static [&'static str],
    /// Keys of the language that have none yet, with what to do instead.
    pub(crate) later: &'static [(&'static str, &'static str)],
}

/// A mapping whose keys have been checked.
pub(crate) struct Fields<'d> {
    entries: &'d [Entry],
    pub(crate) start: Place,
    pub(crate) path: String,
}

impl Reader {
    /// Expects a mapping and reports every key that has no effect.
    pub(crate) fn mapping<'d>(
        &mut self,
        path: &str,
        located: &'d Located,
        keys: &Keys,
    ) -> Option<Fields<'d>> {
        let Tree::Map(entries) = &located.value else {
            self.expected(path, located, "a mapping");
            return None;
        };
        for entry in entries {
            self.check_key(path, entry, keys);
        }
        Some(Fields { entries, start: located.start, path: path.to_owned() })
    }

    fn check_key(&mut self, path: &str, entry: &Entry, keys: &Keys) {
        let key = entry.key.as_str();
        if keys.known.contains(&key) {
            return;
        }
        let path = join(path, key);
        if let Some((_, instead)) = keys.later.iter().find(|(later, _)| *later == key) {
            let message = format!("`{key}` has no effect yet");
            self.problems.add_with_hint(entry.key_start, &path, message, *instead);
            return;
        }
        let shown: String = key.chars().take(80).collect();
        let message = format!("`{shown}` is not known here");
        if self.problems.is_full() {
            self.problems.add(entry.key_start, &path, message);
            return;
        }
        let hint = spelling::hint(key, keys.known.iter().copied())
            .unwrap_or_else(|| format!("known here: {}", keys.known.join(", ")));
        self.problems.add_with_hint(entry.key_start, &path, message, hint);
    }

    pub(crate) fn expected(&mut self, path: &str, located: &Located, what: &str) {
        let message = format!("expected {what}, found {}", located.kind());
        let truth = matches!(&located.value, Tree::Text(text)
            if matches!(text.to_lowercase().as_str(), "yes" | "no" | "on" | "off"));
        if truth && what == "true or false" {
            let hint = "write `true` or `false`";
            self.problems.add_with_hint(located.start, path, message, hint);
        } else if what == "a text" && matches!(located.value, Tree::Number(_) | Tree::Bool(_)) {
            self.problems.add_with_hint(located.start, path, message, "put it in quotes");
        } else {
            self.problems.add(located.start, path, message);
        }
    }

    pub(crate) fn text(&mut self, path: &str, located: &Located) -> Option<String> {
        if let Tree::Text(text) = &located.value {
            return Some(text.clone());
        }
        self.expected(path, located, "a text");
        None
    }

    pub(crate) fn truth(&mut self, path: &str, located: &Located) -> Option<bool> {
        if let Tree::Bool(value) = &located.value {
            return Some(*value);
        }
        self.expected(path, located, "true or false");
        None
    }

    pub(crate) fn whole<N: TryFrom<i64>>(&mut self, path: &str, located: &Located) -> Option<N> {
        if let Tree::Number(number) = &located.value
            && let Some(number) = number.as_i64().and_then(|number| N::try_from(number).ok())
        {
            return Some(number);
        }
        self.expected(path, located, "a whole number in range");
        None
    }

    pub(crate) fn list<'d>(&mut self, path: &str, located: &'d Located) -> Option<&'d [Located]> {
        if let Tree::List(items) = &located.value {
            return Some(items);
        }
        self.expected(path, located, "a list");
        None
    }

    /// Expects a CEL expression; a bare number or truth value is one too.
    pub(crate) fn expression(&mut self, path: &str, located: &Located) -> Option<String> {
        match &located.value {
            Tree::Bool(value) => Some(value.to_string()),
            Tree::Number(number) => Some(number.to_string()),
            Tree::Text(text) => Some(text.clone()),
            Tree::Null | Tree::List(_) | Tree::Map(_) => {
                self.problems.add_with_hint(
                    located.start,
                    path,
                    format!("expected a CEL expression, found {}", located.kind()),
                    "write the expression in quotes: \"{'job': input.job_id}\"",
                );
                None
            }
        }
    }
}

impl<'d> Fields<'d> {
    pub(crate) fn entry(&self, key: &str) -> Option<&'d Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'d Located> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(crate) fn path_to(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Reads the value under `key`, if there is one.
    pub(crate) fn read<T>(
        &self,
        reader: &mut Reader,
        key: &str,
        read: impl FnOnce(&mut Reader, &str, &'d Located) -> Option<T>,
    ) -> Option<T> {
        let located = self.get(key)?;
        read(reader, &self.path_to(key), located)
    }

    /// Reads the value under `key`; reports its absence.
    pub(crate) fn require<T>(
        &self,
        reader: &mut Reader,
        key: &str,
        read: impl FnOnce(&mut Reader, &str, &'d Located) -> Option<T>,
    ) -> Option<T> {
        if self.get(key).is_none() {
            reader.problems.add(self.start, &self.path, format!("`{key}` is missing"));
        }
        self.read(reader, key, read)
    }
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
