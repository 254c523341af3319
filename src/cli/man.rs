//! `man`: manual pages, made from the help texts' tables.
//! Owns: their form in roff.
//! May touch: the directory that is named.
//! Never: replaces anything but a page of its own name.

use std::fmt::Write;
use std::fs;
use std::path::Path as FilePath;

use argh::{ArgsInfo, FromArgs};

use super::PROGRAM;
use super::argv::Topic;
use super::context::Context;
use super::exit::CliError;
use super::help;
use super::verbs::{Command, VERBS, Verb};

/// write the manual pages: one for the program and one for each command
#[derive(FromArgs, ArgsInfo)]
pub struct Man {
    /// directory to write them to, such as share/man/man1; it is made where it is missing
    #[argh(option, arg_name = "dir")]
    out: String,
}

impl Command for Man {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let directory = FilePath::new(&self.out);
        let refused = |path: &FilePath, error: std::io::Error| CliError::File {
            path: path.to_path_buf(),
            cause: error.to_string(),
            next: "name a directory that you may write to",
        };
        fs::create_dir_all(directory).map_err(|error| refused(directory, error))?;
        let pages = pages();
        for (name, text) in &pages {
            let path = directory.join(name);
            fs::write(&path, text).map_err(|error| refused(&path, error))?;
        }
        context.out.note(&format!("{} pages were written to {}", pages.len(), directory.display()));
        Ok(())
    }
}

/// File names and texts of all pages.
fn pages() -> Vec<(String, String)> {
    let program = (format!("{PROGRAM}.1"), program_page());
    std::iter::once(program)
        .chain(VERBS.iter().map(|verb| (format!("{}.1", page_name(verb)), verb_page(verb))))
        .collect()
}

/// `kheish-daemon-sessions-input`: blanks of the path as hyphens, as the pages of git.
fn page_name(verb: &Verb) -> String {
    format!("{PROGRAM}-{}", verb.path.replace(' ', "-"))
}

fn head(name: &str, about: &str) -> String {
    format!(
        ".TH \"{}\" 1 \"\" \"{PROGRAM} {}\" \"kheish-daemon\"\n.SH NAME\n{} \\- {}\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        name.replace('-', "\\-"),
        escaped(about)
    )
}

/// The help text is the page's body: what it says is made from the same tables and laid out for a terminal already.
fn body(out: &mut String, title: &str, text: &str) {
    let _ = write!(out, ".SH {title}\n.nf\n{}\n.fi\n", escaped(text.trim_end()));
}

fn program_page() -> String {
    let mut out =
        head(PROGRAM, "owns AI-agent execution: durable runs, leased credentials, a journal that can be verified");
    body(&mut out, "DESCRIPTION", &help::render(Topic::Program));
    out.push_str(".SH \"SEE ALSO\"\n");
    let names: Vec<String> = VERBS.iter().map(|verb| format!("{}(1)", page_name(verb).replace('-', "\\-"))).collect();
    out.push_str(&names.join(",\n"));
    out.push('\n');
    out
}

fn verb_page(verb: &'static Verb) -> String {
    let mut out = head(&page_name(verb), (verb.info)().description);
    body(&mut out, "DESCRIPTION", &help::render(Topic::Verb(verb)));
    let _ = write!(out, ".SH \"SEE ALSO\"\n{}(1)\n", PROGRAM.replace('-', "\\-"));
    out
}

/// Text that roff prints as it is: no escape, no request at the beginning of a line, hyphens that can be searched for,
/// and ASCII alone, whatever the reader's roff takes its input for.
fn escaped(text: &str) -> String {
    let character = |c: char| match c {
        '\\' => "\\e".to_string(),
        '-' => "\\-".to_string(),
        c if c.is_ascii() => c.to_string(),
        c => format!("\\[u{:04X}]", u32::from(c)),
    };
    let line = |line: &str| {
        let plain: String = line.chars().map(character).collect();
        if plain.starts_with(['.', '\'']) { format!("\\&{plain}") } else { plain }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::globals::option_names_of_all;

    #[test]
    fn there_is_a_page_for_the_program_and_for_each_command_with_each_of_its_options() {
        let pages = pages();
        assert_eq!(pages.len(), VERBS.len() + 1);
        for verb in VERBS {
            let name = format!("{}.1", page_name(verb));
            let (_, text) = pages.iter().find(|(named, _)| *named == name).expect("a page");
            let infos = (verb.info)();
            let options = infos.flags.iter().map(|flag| flag.long).chain(option_names_of_all());
            for option in options {
                assert!(text.contains(&option.replace('-', "\\-")), "{name} has no {option}");
            }
        }
    }

    #[test]
    fn no_line_of_a_text_is_taken_for_a_request() {
        assert_eq!(escaped(".SH x\n'y\na\\fBb --c"), "\\&.SH x\n\\&'y\na\\efBb \\-\\-c");
        assert_eq!(escaped("a\u{2026}"), "a\\[u2026]");
    }
}
