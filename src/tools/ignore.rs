//! Ignore files of a workspace: what searches leave out unless they are asked for it.
//! Owns: reading `.gitignore`, and which of its rules decides.
//! May touch: the files named so, by descriptor.
//! Never: hides what is named as the base of a search.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;

use super::glob::Glob;
use crate::limits::{TOOL_IGNORE_BYTES_MAX, TOOL_IGNORE_RULES_MAX};
use crate::sys::files::{self, Open};

/// Name of the files that are read.
pub(super) const FILE: &str = ".gitignore";

/// One line.
#[derive(Debug)]
struct Rule {
    glob: Glob,
    /// Only entries of the file's own directory.
    here_only: bool,
    directories_only: bool,
    /// It brings back what an earlier one left out.
    negated: bool,
}

/// The rules of one file.
#[derive(Debug)]
struct Rules {
    /// Where the names of its directory begin in a path.
    prefix_bytes: usize,
    rules: Vec<Rule>,
}

/// The rules that hold where a walk is, outermost first.
#[derive(Debug, Default)]
pub(super) struct Ignored(Vec<Rules>);

impl Ignored {
    /// Reads the file in `directory`, whose entries begin at `prefix_bytes` of a path. Whatever it holds, it is bounded,
    /// and lines that are no patterns mean nothing. Tells whether there were any rules; if so, they hold until
    /// [`Ignored::leave`].
    pub(super) fn enter(&mut self, directory: &File, prefix_bytes: usize) -> bool {
        let Ok(file) = files::open_entry(directory, OsStr::new(FILE), Open::Any) else { return false };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return false;
        }
        let mut bytes = Vec::new();
        if file.take(TOOL_IGNORE_BYTES_MAX).read_to_end(&mut bytes).is_err() {
            return false;
        }
        let text = String::from_utf8_lossy(&bytes);
        let rules: Vec<Rule> = text.lines().filter_map(rule).take(TOOL_IGNORE_RULES_MAX).collect();
        let any = !rules.is_empty();
        if any {
            self.0.push(Rules { prefix_bytes, rules });
        }
        any
    }

    /// Leaves the directory that was entered last.
    pub(super) fn leave(&mut self) {
        self.0.pop();
    }

    /// Whether the entry at `path` is left out: the last rule of the innermost file that means it decides.
    pub(super) fn covers(&self, path: &str, is_directory: bool) -> bool {
        for Rules { prefix_bytes, rules } in self.0.iter().rev() {
            let Some(below) = path.get(*prefix_bytes..) else { continue };
            let means = |rule: &&Rule| {
                (is_directory || !rule.directories_only)
                    && !(rule.here_only && below.contains('/'))
                    && rule.glob.matches(below)
            };
            if let Some(rule) = rules.iter().rev().find(means) {
                return !rule.negated;
            }
        }
        false
    }
}

fn rule(line: &str) -> Option<Rule> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (negated, pattern) = match line.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (directories_only, pattern) = match pattern.strip_suffix('/') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (is_anchored, pattern) = match pattern.strip_prefix('/') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    // Braces mean themselves here.
    let pattern = pattern.replace('{', "\\{").replace('}', "\\}");
    let glob = Glob::new(&pattern, FILE).ok().filter(|_| !pattern.is_empty())?;
    Some(Rule { glob, here_only: is_anchored && !pattern.contains('/'), directories_only, negated })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(text: &str) -> Ignored {
        Ignored(vec![Rules { prefix_bytes: 0, rules: text.lines().filter_map(rule).collect() }])
    }

    #[test]
    fn lines_mean_what_they_mean_to_git() {
        let rules = ignored("# note\n\ntarget/\n*.log\n!keep.log\n/root.txt\ndocs/**/draft\na{b}\n[bad\n");
        let cases = [
            ("target", true, true),
            ("target", false, false),
            ("deep/target", true, true),
            ("x.log", false, true),
            ("deep/x.log", false, true),
            ("deep/keep.log", false, false),
            ("root.txt", false, true),
            ("deep/root.txt", false, false),
            ("docs/a/b/draft", false, true),
            ("docs/draft", true, true),
            ("other/docs/draft", true, false),
            ("a{b}", false, true),
            ("ab", false, false),
            ("# note", false, false),
            ("[bad", false, false),
        ];
        for (path, is_directory, expected) in cases {
            assert_eq!(rules.covers(path, is_directory), expected, "{path}");
        }
    }

    #[test]
    fn the_innermost_file_decides() {
        let mut rules = ignored("*.txt\n");
        rules.0.push(Rules { prefix_bytes: 4, rules: vec![rule("!a.txt").unwrap()] });
        assert!(!rules.covers("sub/a.txt", false));
        assert!(rules.covers("sub/b.txt", false));
        rules.leave();
        assert!(rules.covers("sub/a.txt", false));
    }
}
