//! Subjects on which events arrive.

use thiserror::Error;

use super::TYPE_BYTES_MAX;
use crate::identity::Tenant;

/// What every subject of an event begins with.
pub const SUBJECT_PREFIX: &str = "fermata.events.";

/// What a subject says about its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The tenant: one token.
    pub tenant: &'a str,
    /// The event's type: one or more tokens. A batch may be published under
    /// any type, for instance `batch`, as its events have their own.
    pub kind: &'a str,
}

/// A subject that names no tenant and type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a subject for events; publish to `fermata.events.<tenant>.<type>`, \
     the tenant being 1 to 64 ASCII letters, digits, `-` and `_`, the first a letter or digit"
)]
pub struct SubjectError(pub String);

/// Reads `fermata.events.<tenant>.<type…>`; the type may have several tokens.
///
/// # Errors
///
/// [`SubjectError`] when the prefix, the tenant or the type is missing, a
/// token is empty or holds a wildcard, or one is longer than its limit.
pub fn parse_subject(subject: &str) -> Result<Subject<'_>, SubjectError> {
    subject
        .strip_prefix(SUBJECT_PREFIX)
        .and_then(|rest| rest.split_once('.'))
        .map(|(tenant, kind)| Subject { tenant, kind })
        .filter(|subject| Tenant::is_name(subject.tenant) && is_concrete(subject.kind))
        .ok_or_else(|| SubjectError(super::rejection::excerpt(subject)))
}

fn is_concrete(kind: &str) -> bool {
    let concrete = |token: &str| !token.is_empty() && token != "*" && token != ">";
    kind.len() <= TYPE_BYTES_MAX
        && kind.split('.').all(concrete)
        && !kind.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
}

/// Whether `kind` is a type that runs may publish: tokens of ASCII letters,
/// digits, `-` and `_`, parted by dots, of [`TYPE_BYTES_MAX`] bytes at most.
pub(crate) fn is_plain_type(kind: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let plain = |token: &str| !token.is_empty() && token.bytes().all(allowed);
    kind.len() <= TYPE_BYTES_MAX && kind.split('.').all(plain)
}

/// Says what is wrong with a type that is not plain.
pub(crate) fn no_plain_type(kind: &str) -> String {
    format!(
        "`{}` is no type of an event; use tokens of ASCII letters, digits, `-` and `_` parted by \
         dots, at most {TYPE_BYTES_MAX} bytes",
        super::rejection::excerpt(kind)
    )
}
