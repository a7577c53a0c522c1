//! The active definitions as they are projected: in one message while they fit into it, else in
//! an object that the message names.

use fermata_core::digest::Digest;
use fermata_core::partition::{DEFINITIONS_BYTES_MAX, Definitions};
use serde::{Deserialize, Serialize};

use crate::envelope::{ENVELOPE_BYTES_MAX, Envelope, MessageKind, WireError, read, write_named};

/// Bytes of definitions that are projected in the message itself, 1,020 KiB: what fits beside an
/// envelope and the broker's headers, so that workers which know no other form see whatever they
/// could see before.
pub const PROJECTED_BYTES_MAX: usize = ENVELOPE_BYTES_MAX - 4 * 1024;

/// Bytes of an object of definitions that is read: twice what may be active, for names and
/// lengths that are not counted there.
pub const DEFINITIONS_OBJECT_BYTES_MAX: usize = 2 * DEFINITIONS_BYTES_MAX;

/// Version of a message that has the definitions.
const WHOLE_VERSION: u16 = 1;

/// Version of a message that names an object. Older programs say that they must be upgraded.
const STORED_VERSION: u16 = 2;

/// Which object has the definitions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredDefinitions {
    /// Their revision.
    pub revision: u64,
    /// Of the object's bytes.
    pub digest: Digest,
    /// How many those are.
    pub bytes: u64,
}

impl StoredDefinitions {
    /// Name of the object: in order of revisions, and by what is in it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{:020}.{}", self.revision, self.digest)
    }

    /// The definitions in the object's bytes.
    ///
    /// # Errors
    ///
    /// [`WireError::Changed`] if these are others; else what is wrong with them.
    pub fn open(&self, bytes: &[u8]) -> Result<Definitions, WireError> {
        let found = Digest::of(bytes);
        if found != self.digest {
            return Err(WireError::Changed { expected: self.digest, found });
        }
        read("definitions", bytes)
    }
}

/// A projection, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projection {
    /// Revision of the definitions.
    pub revision: u64,
    /// What is stored first, where the message names it.
    pub object: Option<(StoredDefinitions, Vec<u8>)>,
    /// The message.
    pub message: Vec<u8>,
}

impl Projection {
    /// Encodes definitions.
    ///
    /// # Errors
    ///
    /// The encoder's; no definitions meet one.
    pub fn of(definitions: &Definitions) -> Result<Self, WireError> {
        let revision = definitions.revision;
        let mut body = Vec::new();
        write_named(&mut body, definitions)?;
        if body.len() <= PROJECTED_BYTES_MAX {
            let message = enveloped(WHOLE_VERSION, &body)?;
            return Ok(Self { revision, object: None, message });
        }
        let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        let stored = StoredDefinitions { revision, digest: Digest::of(&body), bytes };
        let mut pointer = Vec::new();
        write_named(&mut pointer, &stored)?;
        let message = enveloped(STORED_VERSION, &pointer)?;
        Ok(Self { revision, object: Some((stored, body)), message })
    }
}

fn enveloped(version: u16, body: &[u8]) -> Result<Vec<u8>, WireError> {
    Envelope { version, ..Envelope::new(MessageKind::Definitions, None, body) }.encode()
}

/// What a projected message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Projected {
    /// The definitions.
    Whole(Definitions),
    /// Where they are.
    Stored(StoredDefinitions),
}

impl Projected {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// [`WireError`], naming what is wrong.
    pub fn decode(message: &[u8]) -> Result<Self, WireError> {
        let envelope = Envelope::decode_to(MessageKind::Definitions, STORED_VERSION, message)?;
        match envelope.version {
            WHOLE_VERSION => read("definitions", envelope.body).map(Self::Whole),
            _ => read("stored definitions", envelope.body).map(Self::Stored),
        }
    }

    /// Revision of the definitions.
    #[must_use]
    pub fn revision(&self) -> u64 {
        match self {
            Self::Whole(definitions) => definitions.revision,
            Self::Stored(stored) => stored.revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::command::StrategyEntry;
    use fermata_core::json::Json;

    use super::*;
    use crate::envelope::decode_message;

    fn definitions(count: usize) -> Definitions {
        let entry = |at: usize| {
            let definition = Json::from_text(&format!("\"{}\"", "x".repeat(200))).unwrap();
            StrategyEntry { name: format!("s{at}").into(), version: 1, definition }
        };
        let strategies = (0..count).map(entry).map(|new| (new.name.clone(), new)).collect();
        Definitions { revision: 7, strategies, ..Definitions::default() }
    }

    #[test]
    fn few_definitions_are_one_message_of_the_first_version() {
        let few = definitions(3_000);

        let projection = Projection::of(&few).unwrap();

        assert_eq!((projection.revision, &projection.object), (7, &None));
        // As workers read it that know no other.
        let read: Definitions =
            decode_message(MessageKind::Definitions, &projection.message).unwrap();
        assert_eq!(read, few);
        assert_eq!(Projected::decode(&projection.message).unwrap(), Projected::Whole(few));
    }

    #[test]
    fn as_much_as_fits_is_one_message_and_more_is_an_object() {
        let of = |length: usize| {
            let definition = Json::from_text(&format!("\"{}\"", "x".repeat(length))).unwrap();
            let entry = StrategyEntry { name: "s".into(), version: 1, definition };
            let strategies = [(entry.name.clone(), entry)].into();
            Definitions { revision: 7, strategies, ..Definitions::default() }
        };
        let mut body = Vec::new();
        write_named(&mut body, &of(1_000_000)).unwrap();
        let most = 1_000_000 + PROJECTED_BYTES_MAX - body.len();

        let (whole, stored) = (Projection::of(&of(most)), Projection::of(&of(most + 1)));

        let whole = whole.unwrap();
        assert_eq!(whole.object, None);
        // The broker counts headers, too.
        let room = ENVELOPE_BYTES_MAX - whole.message.len();
        assert!((3 * 1024..4 * 1024).contains(&room), "{room} bytes are left");
        assert!(stored.unwrap().object.is_some());
    }

    #[test]
    fn many_are_an_object_that_the_message_names() {
        let many = definitions(10_000);

        let projection = Projection::of(&many).unwrap();

        let (stored, bytes) = projection.object.unwrap();
        assert!(projection.message.len() < 300, "{} bytes", projection.message.len());
        let projected = Projected::decode(&projection.message).unwrap();
        assert_eq!((projected.revision(), &projected), (7, &Projected::Stored(stored.clone())));
        assert_eq!(stored.open(&bytes).unwrap(), many);
        let cut = stored.open(bytes.get(1..).unwrap());
        assert!(matches!(cut, Err(WireError::Changed { .. })), "{cut:?}");
        let old = decode_message::<Definitions>(MessageKind::Definitions, &projection.message);
        let told = old.unwrap_err().to_string();
        assert!(told.contains("version 2") && told.contains("upgrade it"), "{told}");
    }

    #[test]
    fn names_of_objects_stand_in_the_order_of_their_revisions() {
        let name =
            |revision| StoredDefinitions { revision, digest: Digest::of(&[]), bytes: 0 }.name();

        assert!(name(9) < name(10) && name(10) < name(u64::MAX));
    }
}
