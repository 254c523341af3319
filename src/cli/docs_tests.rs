//! docs/cli.md and the help texts against the tables.
//! Owns: the comparison.
//! Never: lets a command, an option, a variable or an exit code go without its line.

use super::argv::Topic;
use super::exit::Exit;
use super::globals;
use super::help::render;
use super::options::{Default, ROWS, VARIABLES, row_of};
use super::verbs::{GROUPS, VERBS};

fn docs() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
    std::fs::read_to_string(path).expect("docs/cli.md is part of the repository")
}

/// The rows of all tables whose first cell is code, as (code, rest).
fn rows(docs: &str) -> Vec<(&str, &str)> {
    let row = |line| {
        let line: &str = line;
        let (code, rest) = line.strip_prefix("| `")?.split_once('`')?;
        Some((code, rest))
    };
    docs.lines().filter_map(row).collect()
}

#[test]
fn the_document_lists_exactly_the_verbs_with_exactly_their_options() {
    let docs = docs();
    let section = docs.split("## Commands").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let documented: Vec<(&str, &str)> = rows(section);
    let names: Vec<&str> = documented.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, VERBS.iter().map(|verb| verb.path).collect::<Vec<_>>());
    for (verb, (_, rest)) in VERBS.iter().zip(&documented) {
        let info = (verb.info)();
        let mut mentioned: Vec<&str> = rest
            .split('`')
            .filter_map(|code| code.split([' ', '=']).next())
            .filter(|code| code.starts_with("--"))
            .collect();
        mentioned.sort_unstable();
        mentioned.dedup();
        let mut options: Vec<&str> = info.flags.iter().map(|flag| flag.long).filter(|name| *name != "--help").collect();
        options.sort_unstable();
        assert_eq!(mentioned, options, "options of `{}`", verb.path);
        for alias in verb.aliases {
            assert!(rest.contains(&format!("`{alias}`")), "alias {alias} of `{}`", verb.path);
        }
    }
}

#[test]
fn the_document_lists_every_variable_with_its_option_and_default() {
    let docs = docs();
    let section = docs.split("## Environment").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let documented = rows(section);
    let mut expected: Vec<&str> = ROWS.iter().filter_map(|row| row.env).collect();
    expected.extend(VARIABLES.iter().map(|(_, name, _)| *name));
    expected.sort_unstable();
    expected.dedup();
    let mut names: Vec<&str> = documented.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(names, expected);
    for row in ROWS {
        let Some((_, rest)) = documented.iter().find(|(name, _)| Some(*name) == row.env) else { continue };
        assert!(rest.contains(&format!("`{}`", row.option)), "{:?} does not name {}", row.env, row.option);
        if let Default::Value(value) = row.default {
            assert!(rest.contains(&format!("`{value}`")), "{:?} does not name its default {value}", row.env);
        }
    }
}

#[test]
fn the_document_lists_exactly_the_exit_codes() {
    let docs = docs();
    let section = docs.split("## Exit codes").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let documented: Vec<String> = section
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit())
        .map(str::to_string)
        .collect();
    let expected: Vec<String> =
        Exit::ALL.iter().map(|(exit, meaning)| format!("| {} | {meaning} |", *exit as u8)).collect();
    assert_eq!(documented, expected);
}

#[test]
fn help_at_each_level_names_everything_that_can_be_said_there() {
    let flat = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let program = render(Topic::Program);
    for (group, summary) in GROUPS {
        assert!(flat(program.clone()).contains(&format!("{group} {summary}")), "{group}");
        let text = render(Topic::Group(group));
        for verb in VERBS.iter().filter(|verb| verb.split().0 == Some(group)) {
            assert!(text.contains(&format!("\n  {}", verb.split().1)), "{}", verb.path);
        }
    }
    for (exit, meaning) in Exit::ALL {
        assert!(program.contains(&format!("\n  {}  {meaning}\n", *exit as u8)), "{meaning}");
    }
    for verb in VERBS {
        let text = render(Topic::Verb(verb));
        let info = (verb.info)();
        for (scope, flag) in info
            .flags
            .iter()
            .map(|flag| (Some(verb.path), flag))
            .chain(globals::infos().iter().flat_map(|info| info.flags.iter().map(|flag| (None, flag))))
        {
            let shown = if flag.long == "--help" { "-h, --help" } else { flag.long };
            assert!(text.contains(&format!("\n  {shown}")), "`{}` help without {}", verb.path, flag.long);
            let Some(row) = row_of(scope, flag.long) else { continue };
            if let Some(name) = row.env {
                assert!(text.contains(&format!("env {name}")), "`{}` help without {name}", verb.path);
            }
            if let Default::Value(value) | Default::Described(value) = row.default {
                assert!(flat(text.clone()).contains(&format!("default {value}")), "`{}` without {value}", verb.path);
            }
        }
        for argument in info.positionals {
            assert!(text.contains(&format!("\n  <{}>", argument.name)), "`{}` without <{}>", verb.path, argument.name);
        }
        assert!(text.lines().all(|line| line.chars().count() <= 110), "`{}` help is too wide", verb.path);
    }
}

/// The words of a line as a shell gives them: blanks separate, double quotes keep together, `#` and redirections end it.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut in_quotes, mut has_word) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => (in_quotes, has_word) = (!in_quotes, true),
            ' ' if !in_quotes => {
                if std::mem::take(&mut has_word) {
                    words.push(std::mem::take(&mut word));
                }
            }
            '#' | '>' if !in_quotes && !has_word => return words,
            c => {
                word.push(c);
                has_word = true;
            }
        }
    }
    if has_word {
        words.push(word);
    }
    words
}

#[test]
fn every_command_on_the_page_about_routes_is_one_that_the_command_line_takes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operators/routes.md");
    let page = std::fs::read_to_string(path).expect("docs/operators/routes.md is part of the repository");
    let lines = page.lines().map(str::trim).filter_map(|line| line.strip_prefix("kheish-daemon "));
    let mut count = 0;
    for line in lines {
        let words = shell_words(line);
        let parsed = super::argv::parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
        let super::argv::Parsed::Command { verb, mut given, .. } = parsed else { panic!("{line}: no command") };
        let info = (verb.info)();
        super::options::complete(&mut given, &info, Some(verb.path), &super::Environment::default())
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        (verb.check)(verb, &given.words_for(&info)).unwrap_or_else(|error| panic!("{line}: {error}"));
        count += 1;
    }
    assert!(count >= 15, "only {count} commands were found");
}
