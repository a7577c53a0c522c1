//! Those parts of an event that somebody looks at, without building the rest.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Event;
use super::number::Number;

/// Most values of the lists at one path that are looked into, all lists at that
/// path together: bounds what one event can cost.
pub const LIST_VALUES_MAX: usize = 1_024;

/// One path of a [`PathTree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PathId(usize);

impl PathId {
    /// The event itself.
    pub const EVENT: Self = Self(0);

    pub fn place(self) -> usize {
        self.0
    }
}

/// Paths into an event: names of its attributes, and of fields within `data`.
/// Lists have no place in a path, what is said of one is said of its values.
#[derive(Debug)]
pub(crate) struct PathTree {
    children: Vec<BTreeMap<Box<str>, PathId>>,
}

impl Default for PathTree {
    fn default() -> Self {
        Self { children: vec![BTreeMap::new()] }
    }
}

impl PathTree {
    /// The path of `name` within `parent`, which is of this tree; a new one if
    /// need be.
    pub fn extend(&mut self, parent: PathId, name: &str) -> PathId {
        if let Some(known) = self.child(parent, name) {
            return known;
        }
        let new = PathId(self.children.len());
        self.children.push(BTreeMap::new());
        if let Some(children) = self.children.get_mut(parent.0) {
            children.insert(name.into(), new);
        }
        new
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    fn child(&self, parent: PathId, name: &str) -> Option<PathId> {
        self.children.get(parent.0)?.get(name).copied()
    }

    fn ends_at(&self, path: PathId) -> bool {
        self.children.get(path.0).is_none_or(BTreeMap::is_empty)
    }
}

/// What is at a path.
#[derive(Debug, Clone)]
pub(crate) enum Selected<'e> {
    Null,
    Truth(bool),
    Number(Number<'e>),
    Text(Cow<'e, str>),
    List(Vec<Selected<'e>>),
    /// The fields that somebody looks at, ascending.
    Fields(Vec<(PathId, Selected<'e>)>),
    /// Text with half of a surrogate pair, or a list beyond [`LIST_VALUES_MAX`]:
    /// it is there, and nothing else can be said about it.
    Unreadable,
}

impl<'e> Selected<'e> {
    /// The value of a field, when this has fields.
    pub fn field(&self, path: PathId) -> Option<&Self> {
        let Self::Fields(fields) = self else { return None };
        let place = fields.binary_search_by_key(&path, |(path, _)| *path).ok()?;
        fields.get(place).map(|(_, value)| value)
    }

    fn of_fields(mut fields: Vec<(PathId, Self)>) -> Self {
        fields.sort_by_key(|(path, _)| *path);
        // Of fields with one name the last counts, as for any JSON parser.
        fields.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        Self::Fields(fields)
    }
}

impl<'a> Event<'a> {
    /// What the event has at the paths of `tree`: the attributes under the names
    /// that [`Event::view`] gives them, and `data`, read as far as needed.
    pub(crate) fn select<'e>(&'e self, tree: &PathTree) -> Selected<'e>
    where
        'a: 'e,
    {
        let path = |name: &str| tree.child(PathId::EVENT, name);
        let text = |value: &'e str| Selected::Text(Cow::Borrowed(value));
        let mut fields = Vec::new();
        fields.extend(path("tenant").map(|path| (path, text(self.tenant))));
        for (name, value) in self.named_texts() {
            fields.extend(path(name).map(|path| (path, text(value))));
        }
        for (name, value) in &self.extensions {
            let read = |path| (path, Reader::new(tree, value.get()).value(path));
            fields.extend(path(name).map(read));
        }
        if let (Some(path), Some(data)) = (path("data"), self.data) {
            fields.push((path, Reader::new(tree, data.get()).value(path)));
        }
        Selected::of_fields(fields)
    }
}

/// Goes once through JSON text that a parser has found sound, and reads what is
/// at the paths. Text that is not sound gives some value, and ends.
struct Reader<'t, 'e> {
    tree: &'t PathTree,
    rest: &'e str,
    /// How many values lists had, by path, for the few paths that have lists.
    listed: Vec<(PathId, usize)>,
}

impl<'t, 'e> Reader<'t, 'e> {
    fn new(tree: &'t PathTree, text: &'e str) -> Self {
        Self { tree, rest: text, listed: Vec::new() }
    }

    fn value(&mut self, path: PathId) -> Selected<'e> {
        match self.next_byte() {
            Some(b'{') => self.object(path),
            Some(b'[') => self.list(path),
            Some(b'"') => self.string().into_text().map_or(Selected::Unreadable, Selected::Text),
            Some(_) => self.word(),
            None => Selected::Unreadable,
        }
    }

    fn object(&mut self, path: PathId) -> Selected<'e> {
        if self.tree.ends_at(path) {
            self.skip_nested();
            return Selected::Fields(Vec::new());
        }
        self.advance(1);
        let mut fields = Vec::new();
        loop {
            match self.next_byte() {
                Some(b',') => self.advance(1),
                Some(b'"') => {
                    let name = self.string().into_text();
                    if self.next_byte() == Some(b':') {
                        self.advance(1);
                    }
                    match name.and_then(|name| self.tree.child(path, &name)) {
                        Some(path) => fields.push((path, self.value(path))),
                        None => self.skip_value(),
                    }
                }
                Some(_) | None => {
                    self.advance(1);
                    return Selected::of_fields(fields);
                }
            }
        }
    }

    fn list(&mut self, path: PathId) -> Selected<'e> {
        self.advance(1);
        let mut values = Vec::new();
        let mut too_long = false;
        loop {
            match self.next_byte() {
                Some(b',') => self.advance(1),
                Some(b']') | None => {
                    self.advance(1);
                    return if too_long { Selected::Unreadable } else { Selected::List(values) };
                }
                Some(_) => {
                    too_long = too_long || self.count(path) > LIST_VALUES_MAX;
                    if too_long {
                        self.skip_value();
                    } else {
                        values.push(self.value(path));
                    }
                }
            }
        }
    }

    fn count(&mut self, path: PathId) -> usize {
        if let Some((_, count)) = self.listed.iter_mut().find(|(listed, _)| *listed == path) {
            *count += 1;
            return *count;
        }
        self.listed.push((path, 1));
        1
    }

    /// A number, a truth value or `null`.
    fn word(&mut self) -> Selected<'e> {
        let ends = |byte: u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let length = self.rest.bytes().position(ends).unwrap_or(self.rest.len());
        let word = self.rest.get(..length).unwrap_or_default();
        // A byte at least, so that text which is not sound comes to an end.
        self.advance(length.max(1));
        match word {
            "null" => Selected::Null,
            "true" => Selected::Truth(true),
            "false" => Selected::Truth(false),
            _ => Number::new(word).map_or(Selected::Unreadable, Selected::Number),
        }
    }

    fn string(&mut self) -> Quoted<'e> {
        let text = self.rest;
        let mut escaped = false;
        let mut length = 1;
        let ends = |byte: &u8| matches!(byte, b'"' | b'\\');
        while let Some(rest) = text.as_bytes().get(length..)
            && let Some(at) = rest.iter().position(ends)
        {
            if rest.get(at) == Some(&b'"') {
                length += at + 1;
                self.advance(length);
                return Quoted { text: text.get(..length).unwrap_or_default(), escaped };
            }
            escaped = true;
            length += at + 2;
        }
        self.rest = "";
        Quoted { text: "", escaped }
    }

    fn skip_value(&mut self) {
        match self.next_byte() {
            Some(b'{' | b'[') => self.skip_nested(),
            Some(b'"') => drop(self.string()),
            Some(_) | None => drop(self.word()),
        }
    }

    /// Skips the object or list that begins here.
    fn skip_nested(&mut self) {
        let mut depth = 0_usize;
        let matters = |byte: u8| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']');
        while let Some(at) = self.rest.bytes().position(matters) {
            self.advance(at);
            match self.rest.bytes().next() {
                Some(b'"') => {
                    self.string();
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(_) | None => depth = depth.saturating_sub(1),
            }
            self.advance(1);
            if depth == 0 {
                return;
            }
        }
        self.rest = "";
    }

    /// The next byte after white space.
    fn next_byte(&mut self) -> Option<u8> {
        let byte = self.rest.bytes().next()?;
        if byte > b' ' {
            return Some(byte);
        }
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.rest.bytes().next()
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }
}

/// A JSON string with its quotation marks.
struct Quoted<'e> {
    text: &'e str,
    escaped: bool,
}

impl<'e> Quoted<'e> {
    fn into_text(self) -> Option<Cow<'e, str>> {
        if self.escaped {
            return serde_json::from_str(self.text).ok().map(Cow::Owned);
        }
        let inner = self.text.strip_prefix('"')?.strip_suffix('"')?;
        Some(Cow::Borrowed(inner))
    }
}

#[cfg(test)]
mod tests;
