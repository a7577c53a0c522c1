//! The `traceparent` header (W3C Trace Context, Level 1 §3.2).

/// Bytes of a version 00 `traceparent`: 2 + 1 + 32 + 1 + 16 + 1 + 2.
const TRACEPARENT_BYTES: usize = 55;

/// Says whether `text` may be sent on as a `traceparent`.
///
/// Only version 00 is known, and ids of zeros are invalid by the specification.
pub(crate) fn is_well_formed(text: &str) -> bool {
    let mut fields = text.split('-');
    let (Some("00"), Some(trace), Some(parent), Some(flags), None) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    text.len() == TRACEPARENT_BYTES
        && is_id(trace, 32)
        && is_id(parent, 16)
        && flags.len() == 2
        && is_lower_hex(flags)
}

fn is_id(field: &str, length: usize) -> bool {
    field.len() == length && is_lower_hex(field) && field.bytes().any(|byte| byte != b'0')
}

fn is_lower_hex(field: &str) -> bool {
    field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::is_well_formed;

    #[test]
    fn only_a_complete_lower_case_traceparent_with_ids_is_well_formed() {
        let cases = [
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", true),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false),
            ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", false),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nx: y", false),
            ("", false),
        ];

        for (text, expected) in cases {
            assert_eq!(is_well_formed(text), expected, "`{text}`");
        }
    }
}
