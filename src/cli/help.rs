//! Help texts, made from the verb table and the option table.
//! Owns: their layout.
//! Never: says anything that the tables do not hold.

use std::fmt::Write;

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality};

use super::argv::Topic;
use super::exit::Exit;
use super::options::{Default, VARIABLES, row_of};
use super::verbs::{GROUPS, VERBS, Verb, split};
use super::{PROGRAM, globals};

/// Columns of a help text; terminals are rarely narrower.
const WIDTH: usize = 100;
/// Column at which descriptions start.
const INDENT: usize = 32;

/// The text for `topic`.
pub fn render(topic: Topic) -> String {
    match topic {
        Topic::Program => program(),
        Topic::Group(name) => group(name),
        Topic::Verb(row) => verb(row),
    }
}

/// The program's name and version.
pub fn version() -> String {
    format!("{PROGRAM} {}\n", env!("CARGO_PKG_VERSION"))
}

fn program() -> String {
    let mut out = format!(
        "{PROGRAM} {}: owns AI-agent execution; durable runs, leased credentials, a journal that can be verified\n\n\
         Usage: {PROGRAM} [global options] <command> [options]\n       \
         {PROGRAM} [serve options]            (same as `{PROGRAM} serve …`)\n\nCommands:\n",
        env!("CARGO_PKG_VERSION")
    );
    for row in VERBS.iter().filter(|row| row.split().0.is_none()) {
        line(&mut out, row.path, (row.info)().description);
    }
    for (name, summary) in GROUPS {
        let verbs: Vec<&str> =
            VERBS.iter().filter(|row| row.split().0 == Some(name)).map(|row| row.split().1).collect();
        line(&mut out, name, &format!("{summary}: {}", verbs.join(", ")));
    }
    global_options(&mut out);
    out.push_str("\nExit codes:\n");
    for (exit, meaning) in Exit::ALL {
        let _ = writeln!(out, "  {}  {meaning}", *exit as u8);
    }
    let _ = writeln!(out, "\nHelp for a command: `{PROGRAM} <command> --help`. More: docs/cli.md.");
    out
}

fn group(name: &str) -> String {
    let summary = GROUPS.iter().find(|(group, _)| *group == name).map_or("", |(_, summary)| summary);
    let mut out = format!("{PROGRAM} {name}: {summary}\n\nUsage: {PROGRAM} {name} <verb> [options]\n\nVerbs:\n");
    for row in VERBS.iter().filter(|row| row.split().0 == Some(name)) {
        line(&mut out, &names(row), (row.info)().description);
    }
    for (path, summary) in GROUPS.iter().filter(|(path, _)| split(path).0 == Some(name)) {
        line(&mut out, split(path).1, &format!("{summary}; has verbs of its own"));
    }
    global_options(&mut out);
    let _ = writeln!(out, "\nHelp for a verb: `{PROGRAM} {name} <verb> --help`.");
    out
}

fn verb(row: &Verb) -> String {
    let info = (row.info)();
    let mut out = format!("{}\n\nUsage: {PROGRAM} {}", sentence(info.description), row.path);
    for argument in info.positionals {
        let name = argument.name;
        let _ = match argument.optionality {
            Optionality::Required => write!(out, " <{name}>"),
            _ => write!(out, " [{name}]"),
        };
    }
    out.push_str(" [options]\n");
    if !row.aliases.is_empty() {
        let _ = writeln!(out, "Also: {}", row.aliases.join(", "));
    }
    if !info.positionals.is_empty() {
        out.push_str("\nArguments:\n");
        for argument in info.positionals {
            line(&mut out, &format!("<{}>", argument.name), argument.description);
        }
    }
    options(&mut out, "Options", &info, Some(row.path));
    let variables: Vec<_> = VARIABLES.iter().filter(|(scope, ..)| scope.covers(Some(row.path))).collect();
    if !variables.is_empty() {
        out.push_str("\nEnvironment:\n");
        for (_, name, text) in variables {
            line(&mut out, name, text);
        }
    }
    global_options(&mut out);
    out
}

fn names(row: &Verb) -> String {
    let mut names = row.split().1.to_string();
    for alias in row.aliases {
        let _ = write!(names, ", {alias}");
    }
    names
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn global_options(out: &mut String) {
    out.push_str("\nGlobal options, before or after the command:\n");
    for info in globals::infos() {
        option_lines(out, &info, None);
    }
    line(out, "-h, --help", "this text");
    line(out, "-V, --version", "the version");
}

fn options(out: &mut String, title: &str, info: &CommandInfoWithArgs, verb: Option<&str>) {
    if !info.flags.is_empty() {
        let _ = writeln!(out, "\n{title}:");
        option_lines(out, info, verb);
    }
}

fn option_lines(out: &mut String, info: &CommandInfoWithArgs, verb: Option<&str>) {
    for flag in info.flags.iter().filter(|flag| flag.long != "--help") {
        let name = match flag.kind {
            FlagInfoKind::Switch => flag.long.to_string(),
            FlagInfoKind::Option { arg_name } => format!("{} <{arg_name}>", flag.long),
        };
        line(out, &name, &described(flag, verb));
    }
}

fn described(flag: &FlagInfo<'_>, verb: Option<&str>) -> String {
    let mut notes = Vec::new();
    match flag.optionality {
        Optionality::Repeating => notes.push("may be repeated".to_string()),
        Optionality::Required if row_of(verb, flag.long).is_none() && flag.kind != FlagInfoKind::Switch => {
            notes.push("required".to_string());
        }
        _ => {}
    }
    if let Some(row) = row_of(verb, flag.long) {
        notes.extend(row.env.map(|name| format!("env {name}")));
        match row.default {
            Default::None => {}
            Default::Value(text) | Default::Described(text) => notes.push(format!("default {text}")),
        }
    }
    if notes.is_empty() {
        return flag.description.to_string();
    }
    let notes: Vec<String> = notes.iter().map(|note| note.replace(' ', TIE)).collect();
    format!("{} [{}]", flag.description, notes.join("; "))
}

/// Stands for a blank at which a line must not be broken.
const TIE: &str = "\u{a0}";

/// One line of a two-column list, its right column wrapped.
fn line(out: &mut String, left: &str, right: &str) {
    let mut current = format!("  {left}");
    if current.chars().count() + 2 > INDENT {
        let _ = writeln!(out, "{current}");
        current.clear();
    }
    let mut column = INDENT;
    let _ = write!(current, "{:width$}", "", width = INDENT - current.chars().count());
    for word in right.split(' ') {
        let width = word.chars().count();
        if column + 1 + width > WIDTH && column > INDENT {
            let _ = writeln!(out, "{}", current.trim_end());
            current = " ".repeat(INDENT);
            column = INDENT;
        }
        if column > INDENT {
            current.push(' ');
            column += 1;
        }
        current.push_str(&word.replace(TIE, " "));
        column += width;
    }
    let _ = writeln!(out, "{}", current.trim_end());
}
