//! Durations as the authors of workflows write them.

/// A duration as a workflow is written with it: in the largest unit in which it is a whole number.
/// A day is told as `24h`, as people write it.
#[must_use]
pub fn as_written(milliseconds: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let fits = |(unit, name): &&(u64, &str)| {
        let fewest = if *name == "d" { 2 } else { 1 };
        milliseconds.is_multiple_of(*unit) && milliseconds / unit >= fewest
    };
    match UNITS.iter().find(fits) {
        Some((unit, name)) => format!("{}{name}", milliseconds / unit),
        None => format!("{milliseconds}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_as_its_author_would_write_it() {
        for (milliseconds, written) in [
            (0, "0ms"),
            (250, "250ms"),
            (90_000, "90s"),
            (5_400_000, "90m"),
            (3_600_000, "1h"),
            (86_400_000, "24h"),
            (604_800_000, "7d"),
            (86_400_001, "86400001ms"),
        ] {
            assert_eq!(as_written(milliseconds), written);
        }
    }
}
