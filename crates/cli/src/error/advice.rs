//! What to do about what went wrong.

use std::io;

use fermata_jetstream::connection::ConnectError;

/// What to do about a stream that is gone.
pub(super) fn after_missing(stream: &str) -> &'static str {
    // What cannot be made again: beside an empty journal or log, what was signed would contradict.
    match ["JOURNAL_", "AUDIT_", "CHECKPOINTS"].iter().any(|kept| stream.starts_with(kept)) {
        true => "; restore it from a copy before the engine is started again",
        false => ", and the engine makes it anew when it is started again, without what it held",
    }
}

/// What to do about a file that cannot be used, by what is wrong with it.
const AFTER_IO: [(io::ErrorKind, &str); 5] = [
    (
        io::ErrorKind::NotFound,
        "; see whether the path is right: a relative one begins in the folder in which the command is typed",
    ),
    (io::ErrorKind::PermissionDenied, "; `ls -l` shows who may do that, and `chmod` changes it"),
    (io::ErrorKind::IsADirectory, "; it is a folder: name a file in it"),
    (io::ErrorKind::InvalidData, "; it holds no text in UTF-8"),
    (io::ErrorKind::StorageFull, "; free some room on its disk"),
];

pub(super) fn after_io(error: &io::Error) -> &'static str {
    let advice = AFTER_IO.into_iter().find(|(kind, _)| *kind == error.kind());
    advice.map_or("", |(_, advice)| advice)
}

/// What to do about a broker that cannot be reached.
#[must_use]
pub fn after_connect(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Unreachable { .. } | ConnectError::NobodyListens { .. } => {
            "start one with `fermata up`, or name one with `--nats-url`"
        }
        ConnectError::Silent { .. } => {
            "its process may be stopped, its machine overloaded or off, a firewall in between, or the address wrong: look at these and at its \
             log; to start another engine does not help"
        }
        ConnectError::Unresolved { .. } => {
            "correct the name in `--nats-url` (or `FERMATA_NATS_URL`), or see why the name service does not know it"
        }
        ConnectError::Refused { .. } => {
            "name a user and password that it knows, as in `--nats-url nats://user:password@host:4222`"
        }
        ConnectError::CredentialsFile { .. } => "see that the file is there and may be read",
    }
}

/// The reasons behind an error; what repeats the end of the one before is left out.
#[must_use]
pub fn reasons(error: &dyn std::error::Error) -> Vec<String> {
    let mut before = error.to_string();
    let mut reasons = Vec::new();
    let mut source = error.source();
    while let Some(reason) = source {
        let text = reason.to_string();
        if !before.ends_with(&text) {
            reasons.push(text.clone());
            before = text;
        }
        source = reason.source();
    }
    reasons
}

/// An error and the reasons behind it, in one line.
#[must_use]
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut told = vec![error.to_string()];
    told.extend(reasons(error));
    told.join(": ")
}
