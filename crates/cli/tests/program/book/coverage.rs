//! Which commands of the program are run at all, by a page of the book or by a test beside it.
//!
//! Of a page that is what its blocks say. Of a test it is every list of arguments in its
//! source that begins with a command: a list that stands there and is never run would count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{CommandFactory as _, Parser as _};
use fermata_cli::arguments::Arguments;

use super::page::{Block, blocks, typed};
use super::{PAGES, ROOT, read};

/// Options on docs/cli.md that nothing runs, with the reason.
const OPTIONS_NOT_RUN: [(&str, &str); 0] = [];

/// What was run: commands, such as `runs list`, with the options that were ever typed.
type Runs = BTreeMap<String, BTreeSet<String>>;

/// The words of each `fermata …` in a line for a shell; what is in quotes is one word.
fn programs(line: &str) -> Vec<Vec<String>> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut before = ' ';
    for character in line.replace("\\\n", " ").chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None, '#') if before == ' ' => break,
            (None, '|' | '>' | '<' | '(' | ')' | ';' | '&') => {
                words.extend(["|".to_owned(), String::new()]);
            }
            (None, ' ' | '\n') => words.push(String::new()),
            (Some(_) | None, _) => words.last_mut().unwrap().push(character),
        }
        before = character;
    }
    words.retain(|word| !word.is_empty());
    let commands = words.split(|word| word == "|");
    let ours = commands.filter(|words| words.first().is_some_and(|word| word == "fermata"));
    ours.map(<[String]>::to_vec).collect()
}

/// The texts of each list in a source file, in their order. What stands behind a value, such
/// as `answer["code"]`, is no list.
fn lists(source: &str) -> Vec<Vec<String>> {
    let mut lists = Vec::new();
    for (start, _) in source.match_indices('[') {
        let before = source[..start].chars().next_back().unwrap_or(' ');
        if before.is_alphanumeric() || "_)]".contains(before) {
            continue;
        }
        let (mut texts, mut depth, mut text) = (Vec::new(), 0, None::<String>);
        let mut characters = source[start..].chars();
        while let Some(character) = characters.next() {
            match (&mut text, character) {
                (Some(inside), '\\') => inside.extend(characters.next()),
                (Some(_), '"') => texts.extend(text.take()),
                (Some(inside), _) => inside.push(character),
                (None, '"') => text = Some(String::new()),
                (None, '[') => depth += 1,
                (None, ']') if depth == 1 => break,
                (None, ']') => depth -= 1,
                (None, _) => {}
            }
        }
        lists.push(texts);
    }
    lists
}

/// The command that `words` begin with, and its options as typed.
fn command_of(words: &[String]) -> Option<(String, BTreeSet<String>)> {
    let (options, names): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with("--"));
    let mut command = &Arguments::command();
    let mut path = Vec::new();
    let mut names = names.into_iter();
    while command.has_subcommands() {
        command = command.find_subcommand(names.next()?)?;
        path.push(command.get_name().to_owned());
    }
    let name = |option: &String| option.split('=').next().unwrap_or_default().to_owned();
    Some((path.join(" "), options.into_iter().map(name).collect()))
}

/// What the pages that are followed type.
fn typed_by_pages() -> impl Iterator<Item = Vec<String>> {
    let commands = |block: Block| match block.mark.split_once(": ").unwrap_or((&block.mark, "")) {
        ("runs" | "looks" | "stays", _) => {
            typed(&block.lines).into_iter().map(|typed| typed.command).collect()
        }
        ("shown by", command) => vec![command.to_owned()],
        _ => Vec::new(),
    };
    let lines =
        PAGES.into_iter().flat_map(move |page| blocks(&read(page)).into_iter().flat_map(commands));
    lines.flat_map(|line| programs(&line)).map(|words| words[1..].to_vec())
}

/// What the program's tests give it as arguments.
fn typed_by_tests() -> impl Iterator<Item = Vec<String>> {
    let mut folders = vec![Path::new(ROOT).join("crates/cli/tests/program")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).expect("a folder") {
            let path = file.expect("a file").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(path);
            }
        }
    }
    let read = |path| lists(&std::fs::read_to_string(path).expect("a source"));
    sources.into_iter().flat_map(read)
}

fn all_runs() -> Runs {
    let mut runs = Runs::new();
    let all = typed_by_pages().chain(typed_by_tests());
    for (command, options) in all.filter_map(|words| command_of(&words)) {
        runs.entry(command).or_default().extend(options);
    }
    runs
}

#[test]
fn every_command_of_the_program_is_run_by_a_page_or_a_test() {
    fn leaves(command: &clap::Command, path: &str, all: &mut BTreeSet<String>) {
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            leaves(inner, format!("{path} {}", inner.get_name()).trim_start(), all);
        }
        if !command.has_subcommands() {
            all.insert(path.to_owned());
        }
    }
    let mut all = BTreeSet::new();
    leaves(&Arguments::command(), "", &mut all);

    let run = all_runs().into_keys().collect();
    let never = all.difference(&run).collect::<Vec<_>>();
    assert!(all.len() > 30, "{all:?}");
    assert!(never.is_empty(), "run by no page and by no test: {never:#?}");
}

#[test]
fn every_option_on_the_page_of_commands_is_run_by_a_page_or_a_test() {
    let runs = all_runs();
    let lines = blocks(&read("docs/cli.md")).into_iter().flat_map(|block| block.lines);
    let mut never = BTreeSet::new();
    let mut options = 0;
    for words in lines.flat_map(|line| programs(&line)) {
        let (command, typed) = command_of(&words[1..]).expect("a command");
        for option in typed {
            options += 1;
            let is_run = runs.get(&command).is_some_and(|run| run.contains(&option));
            let shown = format!("{command} {option}");
            if !is_run && !OPTIONS_NOT_RUN.iter().any(|(left_out, _)| *left_out == shown) {
                never.insert(shown);
            }
        }
    }
    assert!(options > 30, "only {options} options were found");
    assert!(never.is_empty(), "run by no page and by no test: {never:#?}");
}

/// What a test cannot run may still not say what the program does not understand.
#[test]
fn a_command_that_is_not_run_can_be_typed() {
    let docs = std::fs::read_dir(Path::new(ROOT).join("docs")).expect("a folder");
    let names = docs.map(|page| page.expect("a page").file_name().into_string().expect("UTF-8"));
    let pages = names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    let mut found = 0;
    for page in pages.chain(["README.md".to_owned()]) {
        let left_out = blocks(&read(&page)).into_iter();
        for block in left_out.filter(|block| block.mark.starts_with("not run: ")) {
            let text = block.lines.join("\n").replace("\\\n", " ");
            for words in text.lines().flat_map(|line| programs(line.trim_start_matches("$ "))) {
                let parsed = Arguments::try_parse_from(&words);
                assert!(parsed.is_ok(), "`{page}`: {}", parsed.unwrap_err());
                found += 1;
            }
        }
    }
    assert!(found > 0, "no such command was found");
}

#[test]
fn commands_are_found_in_lines_for_a_shell_and_in_sources() {
    let line = "echo '[1 | fermata up]' | fermata publish --type a - && fermata up # fermata demo";
    let expected = [&["fermata", "publish", "--type", "a", "-"][..], &["fermata", "up"]];
    assert_eq!(programs(line), expected);

    let source = r#"run(&["audit", "tail", "--by=a\"b", &id]).await; x["up"]; [[A, "worker"]]"#;
    let commands = lists(source).into_iter().filter_map(|words| command_of(&words));
    let commands = commands.map(|(command, _)| command).collect::<Vec<_>>();
    // The inner list is one as well as a part of the outer one.
    assert_eq!(commands, ["audit tail", "worker", "worker"]);
}
