//! What stands in a page: blocks, what is typed in them, and what is shown below it.

/// A fenced block with the comment before it.
#[derive(Debug)]
pub struct Block {
    pub mark: String,
    pub language: String,
    pub lines: Vec<String>,
    /// The last line of text before it.
    pub before: String,
}

/// A command, and the lines that are shown below it.
#[derive(Debug, PartialEq)]
pub struct Typed {
    pub command: String,
    pub shown: Vec<String>,
}

/// The fenced blocks of a page, those in lists too.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut mark, mut before) = (String::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(comment) = text.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"))
        {
            mark = comment.to_owned();
        } else if let Some(language) = text.strip_prefix("```") {
            let inside = lines.by_ref().take_while(|line| line.trim_start() != "```");
            let inside = inside.map(|line| line.get(indent..).unwrap_or_default().to_owned());
            let (mark, language) = (std::mem::take(&mut mark), language.to_owned());
            let (lines, before) = (inside.collect(), before.clone());
            blocks.push(Block { mark, language, lines, before });
        } else if !line.is_empty() {
            mark.clear();
            before = line.to_owned();
        }
    }
    blocks
}

/// Reads a console block: lines after `$ `, continued after `\`, are typed.
pub fn typed(lines: &[String]) -> Vec<Typed> {
    let mut all: Vec<Typed> = Vec::new();
    let mut goes_on = false;
    for line in lines {
        let last = all.last_mut();
        match (line.strip_prefix("$ "), last) {
            (None, Some(last)) if goes_on => last.command.push_str(&format!("\n{line}")),
            (None, Some(last)) => last.shown.push(line.clone()),
            (Some(command), _) => {
                all.push(Typed { command: command.to_owned(), shown: Vec::new() })
            }
            (None, None) => panic!("a block begins with `{line}`, not with a command"),
        }
        goes_on = line.ends_with('\\') && all.last().is_some_and(|last| last.shown.is_empty());
    }
    all
}

/// Ids on a page, and what was printed in their place.
pub type Ids = Vec<(String, String)>;

/// Whether `printed` shows the lines `shown`: in order, without others between them but where
/// `…` stands. If so, what was printed in the place of each id.
pub fn is_shown(shown: &[String], printed: &str) -> Option<Ids> {
    let printed = printed.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>();
    let mut at = 0;
    let mut may_skip = false;
    let mut ids = Ids::new();
    for line in shown.iter().filter(|line| !line.trim().is_empty()) {
        if line.trim() == "…" {
            may_skip = true;
            continue;
        }
        let found = printed[at..].iter().position(|printed| is_line(line, printed))?;
        if found > 0 && !may_skip {
            return None;
        }
        ids.extend(ids_of(line, printed[at + found]));
        (at, may_skip) = (at + found + 1, false);
    }
    (may_skip || at == printed.len()).then_some(ids)
}

/// The ids of a line as shown, with those of the line as printed.
fn ids_of<'l>(shown: &'l str, printed: &'l str) -> impl Iterator<Item = (String, String)> + 'l {
    const ID_BYTES_MIN: usize = 32;
    let inner = |word: &'l str| word.trim_matches(|end: char| !end.is_ascii_alphanumeric());
    let words = shown.split_whitespace().map(inner).zip(printed.split_whitespace().map(inner));
    let ids = words.filter(|(shown, printed)| shown.len() >= ID_BYTES_MIN && shown != printed);
    ids.map(|(shown, printed)| (shown.to_owned(), printed.to_owned()))
}

/// Whether two lines are the same but for what differs each time: ids, times, addresses.
/// Whole numbers must be the same.
fn is_line(shown: &str, printed: &str) -> bool {
    let (mut shown, mut printed) = (shown.split_whitespace(), printed.split_whitespace());
    loop {
        match (shown.next(), printed.next()) {
            (None, None) => return true,
            (Some("…"), _) => return true,
            (Some(shown), Some(printed)) if is_word(shown, printed) => {}
            _ => return false,
        }
    }
}

fn is_word(shown: &str, printed: &str) -> bool {
    let varies = |word: &str| {
        word.bytes().any(|byte| byte.is_ascii_digit())
            && !word.trim_end_matches([',', ':']).bytes().all(|byte| byte.is_ascii_digit())
    };
    shown == printed || (varies(shown) && varies(printed))
}

#[test]
fn a_block_within_a_list_is_a_block() {
    let found =
        blocks("1. Do it:\n\n   <!-- runs -->\n   ```sh\n   a \\\n     --b\n   ```\n\ntext\n");

    let [Block { mark, language, lines, .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&**mark, &**language), ("runs", "sh"));
    assert_eq!(*lines, ["a \\", "  --b"]);
}

#[test]
fn what_is_typed_is_told_from_what_is_shown() {
    let lines = ["$ a --b \\", "    --c", "one", "$ d"].map(str::to_owned);

    let expected = [
        Typed { command: "a --b \\\n    --c".to_owned(), shown: vec!["one".to_owned()] },
        Typed { command: "d".to_owned(), shown: Vec::new() },
    ];
    assert_eq!(typed(&lines), expected);
}

#[test]
fn a_shown_line_that_is_not_printed_is_noticed() {
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let printed = "a 1 took 3ms\nb of 7f-2\nc\n";

    for same in ["a 1 took 44ms\nb of 01-9\nc", "a 1 …\n…\nc", "…\nb of 7f-2\n…"] {
        assert!(is_shown(&shown(same), printed).is_some(), "{same}");
    }
    for other in [
        "a 2 took 3ms\nb of 7f-2\nc",
        "a 1 took 3ms\nc",
        "a 1 took 3ms\n…\nb of it\nc",
        "…\nb of 7f-2",
    ] {
        assert!(is_shown(&shown(other), printed).is_none(), "{other}");
    }
}

#[test]
fn an_id_on_a_page_stands_for_the_one_that_was_printed() {
    let shown = ["run `00009f08-9b66-8b0f-85b6-34fc53e460c1` took 3ms".to_owned()];
    let printed = "run `00062198-5a06-8faa-8245-3bfbaa4ac06f` took 44ms";

    let ids = is_shown(&shown, printed).unwrap();

    let expected = ["00009f08-9b66-8b0f-85b6-34fc53e460c1", "00062198-5a06-8faa-8245-3bfbaa4ac06f"];
    assert_eq!(ids, [expected.map(str::to_owned).into()]);
}
