//! Names with a star, which `fermata strategy retire` does not take: what is retired is written down by name.

use fermata_core::partition::Definitions;

use crate::error::CliError;

/// Most names that are written out for the command line.
const WRITTEN_MAX: usize = 20;

/// Whether a name is none but a pattern of names: no name has a star.
pub(super) fn is_pattern(name: &str) -> bool {
    name.contains('*')
}

/// That names are wanted, and the command with those that fit.
pub(super) fn refused(pattern: &str, active: &Definitions) -> CliError {
    let names = active.strategies.keys().map(|name| &**name);
    let fitting: Vec<_> = names.filter(|name| fits(pattern, name)).collect();
    let way = match fitting.len() {
        0 => "no active strategy fits it; `fermata strategy list` lists them".to_owned(),
        1..=WRITTEN_MAX => format!("write `fermata strategy retire {}`", fitting.join(" ")),
        fit => format!(
            "{fit} active strategies fit it, which `fermata strategy list --json | jq -r '.strategy.name | \
             select(test(\"^{}$\"))'` writes down: look at them, then add `| xargs fermata strategy retire`",
            pattern.replace('.', "[.]").replace('*', ".*")
        ),
    };
    CliError::Usage(format!(
        "`{pattern}` is a pattern, and strategies are retired by name, so that nobody retires more than was meant; \
         {way}"
    ))
}

/// Whether a name is as a pattern in which a star stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').collect::<Vec<_>>();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, behind)) = name.split_once(part) else { return false };
        name = behind;
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use fermata_core::command::StrategyEntry;
    use fermata_core::json::Json;

    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [
            ("*", "a"),
            ("a*", "a"),
            ("*b", "ab"),
            ("a*c*e", "abcde"),
            ("a*b", "abab"),
            ("a**b", "ab"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("a*", "b"), ("*b", "ba"), ("a*a", "a"), ("a*c*e", "ace-"), ("a*b*c", "acb")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_is_refused_with_the_names_that_fit_or_the_way_to_them() {
        let entry = |name: String| {
            let definition = Json::default();
            (name.as_str().into(), StrategyEntry { name: name.into(), version: 1, definition })
        };
        let names = ["bills", "orders-eu", "orders-us"].map(str::to_owned);
        let few = Definitions { strategies: names.map(entry).into(), ..Definitions::default() };
        let shops = (0..30).map(|at| entry(format!("shop-{at}"))).collect();
        let many = Definitions { strategies: shops, ..Definitions::default() };

        let told = refused("orders-*", &few).to_string();
        assert!(told.ends_with("write `fermata strategy retire orders-eu orders-us`"), "{told}");
        let told = refused("x*", &few).to_string();
        assert!(told.contains("no active strategy fits it"), "{told}");
        let told = refused("shop-*", &many).to_string();
        assert!(
            told.contains("30 active strategies fit it") && told.contains("^shop-.*$"),
            "{told}"
        );
    }
}
