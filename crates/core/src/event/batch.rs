//! Where values begin, end and how deep they nest, without parsing them.

/// Whether brackets nest deeper than `depth_max` in `text`, which is JSON.
///
/// Counting opening brackets costs a fraction of following strings, and
/// settles it for nearly every event.
pub(super) fn is_too_deep(text: &str, depth_max: usize) -> bool {
    count_opening(text.as_bytes()) > depth_max && depth_exceeds(text.as_bytes(), depth_max)
}

fn count_opening(text: &[u8]) -> usize {
    // Sums of one byte over blocks too short to overflow it are what a
    // compiler turns into vector instructions. Setting the bit of lower case
    // makes `[` a `{`, and nothing else but `{` itself.
    let count_block = |block: &[u8]| {
        block.iter().fold(0_u8, |count, byte| count.wrapping_add(u8::from(byte | 0x20 == b'{')))
    };
    text.chunks(255).map(|block| usize::from(count_block(block))).sum()
}

fn depth_exceeds(text: &[u8], depth_max: usize) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match (in_string, byte) {
            (true, b'\\') => {
                bytes.next();
            }
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > depth_max {
                    return true;
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (true | false, _) => {}
        }
    }
    false
}

/// How many bytes the element at the beginning of `text` has, up to the comma
/// or bracket that ends it: for elements that are no JSON in themselves, so
/// that those after them are still found. Absent when nothing ends it.
pub(super) fn element_bytes(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (in_string, byte) {
            (true, b'\\') => {
                bytes.next();
            }
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b',' | b']') if depth == 0 => return Some(at),
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (true | false, _) => {}
        }
    }
    None
}

/// Cuts JSON white space (RFC 8259, section 2) from the beginning.
pub(super) fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// Cuts JSON white space from both ends.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

const fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}
