//! `list_files`, `glob_search` and `grep_search`.
//! Owns: what is shown of a walk, and the comparing of lines.
//! May touch: directories and regular files of the workspace, for reading.
//! Never: follows a link to a directory; gives an answer that depends on the order of a directory.

use std::io::{BufRead, BufReader, Read};

use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::ToolError;
use super::glob::{Glob, compile};
use super::output::{ToolOutput, cut_escaped};
use super::walk::{Flow, Found, Walk};
use super::workspace::Workspace;
use super::{Control, parse};
use crate::limits::{
    TOOL_OUTPUT_BYTES_MAX, TOOL_SEARCH_BYTES_MAX, TOOL_SEARCH_DEPTH_MAX, TOOL_SEARCH_ITEMS_MAX,
    TOOL_SEARCH_LINE_BYTES_MAX, TOOL_SEARCH_SHOWN_BYTES_MAX,
};
use crate::sys::files::{self, Kind, Open};

/// Room for names and figures around the items of a result.
const FRAME_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    base: String,
    depth: Option<usize>,
    limit: Option<usize>,
    #[serde(default)]
    include_ignored: bool,
}

#[derive(Serialize)]
struct Paths<'a> {
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
    paths: Vec<String>,
    truncated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// Collects items until the caller's limit or the bound of a result.
struct Shown<T> {
    items: Vec<T>,
    limit: usize,
    bytes: usize,
    full: bool,
}

impl<T> Shown<T> {
    fn new(limit: Option<usize>) -> Self {
        let limit = limit.unwrap_or(TOOL_SEARCH_ITEMS_MAX).clamp(1, TOOL_SEARCH_ITEMS_MAX);
        Self { items: Vec::new(), limit, bytes: FRAME_BYTES, full: false }
    }

    /// Adds an item of `bytes` bytes as JSON; when it does not fit, the result is full.
    fn push(&mut self, item: T, bytes: usize) -> Flow {
        if self.items.len() == self.limit || self.bytes + bytes > TOOL_OUTPUT_BYTES_MAX {
            self.full = true;
            return Flow::Stop;
        }
        self.bytes += bytes;
        self.items.push(item);
        Flow::Go
    }
}

/// Bytes of a text inside a JSON result, at most.
fn json_bytes(text: &str) -> usize {
    super::output::escaped_bytes(text) + 8
}

/// `list_files`.
pub(super) fn list(input: &RawValue, workspace: &Workspace, control: &Control) -> Result<ToolOutput, ToolError> {
    let input: Listing = parse(input)?;
    let depth = input.depth.unwrap_or(TOOL_SEARCH_DEPTH_MAX);
    let mut shown = Shown::new(input.limit);
    let mut walk = Walk::new(control, depth, &input.base, input.include_ignored);
    walk.over(workspace.directory(&input.base)?, &mut |found| match found {
        Found::File { path, .. } => shown.push(path.to_string(), json_bytes(path)),
        Found::ClosedDirectory { path } => shown.push(format!("{path}/"), json_bytes(path)),
    });
    Ok(paths(&input.base, None, shown, &walk))
}

#[derive(Deserialize)]
struct Globbing {
    pattern: String,
    #[serde(default)]
    base: String,
    limit: Option<usize>,
    #[serde(default)]
    include_ignored: bool,
}

/// `glob_search`.
pub(super) fn glob(input: &RawValue, workspace: &Workspace, control: &Control) -> Result<ToolOutput, ToolError> {
    let input: Globbing = parse(input)?;
    let glob = Glob::new(&input.pattern, "pattern")?;
    let mut shown = Shown::new(input.limit);
    let mut walk = Walk::new(control, TOOL_SEARCH_DEPTH_MAX, &input.base, input.include_ignored);
    walk.over(workspace.directory(&input.base)?, &mut |found| match found {
        Found::File { path, below, .. } if glob.matches(below) => shown.push(path.to_string(), json_bytes(path)),
        Found::File { .. } | Found::ClosedDirectory { .. } => Flow::Go,
    });
    Ok(paths(&input.base, Some(&input.pattern), shown, &walk))
}

fn paths(base: &str, pattern: Option<&str>, shown: Shown<String>, walk: &Walk<'_>) -> ToolOutput {
    let truncated = shown.full || walk.is_cut();
    ToolOutput::ok(&Paths { base, pattern, paths: shown.items, truncated, notes: walk.notes() }, truncated)
}

#[derive(Deserialize)]
struct Grepping {
    pattern: String,
    #[serde(default)]
    base: String,
    glob: Option<String>,
    #[serde(default)]
    ignore_case: bool,
    limit: Option<usize>,
    #[serde(default)]
    include_ignored: bool,
}

#[derive(Serialize)]
struct Match {
    path: String,
    line: u64,
    text: String,
}

#[derive(Serialize)]
struct Matches<'a> {
    base: &'a str,
    pattern: &'a str,
    matches: Vec<Match>,
    truncated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// What is compared with each line.
enum Pattern {
    /// A plain text is found much faster than by the machine for patterns.
    Text(String),
    Regex(Regex),
}

impl Pattern {
    fn find(&self, line: &str) -> Option<usize> {
        match self {
            Self::Text(text) => line.find(text.as_str()),
            Self::Regex(regex) => regex.find(line).map(|found| found.start()),
        }
    }
}

/// One search through files.
struct Grep<'a> {
    pattern: Pattern,
    control: &'a Control,
    shown: Shown<Match>,
    bytes_left: u64,
    binary: u64,
    unreadable: u64,
    long_lines: u64,
    over: bool,
}

/// `grep_search`.
pub(super) fn grep(input: &RawValue, workspace: &Workspace, control: &Control) -> Result<ToolOutput, ToolError> {
    let input: Grepping = parse(input)?;
    let plain = !input.ignore_case && regex_lite::escape(&input.pattern) == input.pattern;
    let regex = compile(&input.pattern, input.ignore_case).map_err(|error| ToolError::Arguments {
        field: "pattern".to_string(),
        cause: error.to_string(),
        expected: "a regular expression without look-around and back-references; escape ( [ { . * + ? with a backslash"
            .to_string(),
    })?;
    let glob = input.glob.as_deref().map(|glob| Glob::new(glob, "glob")).transpose()?;
    let mut grep = Grep {
        pattern: if plain { Pattern::Text(input.pattern.clone()) } else { Pattern::Regex(regex) },
        control,
        shown: Shown::new(input.limit),
        bytes_left: TOOL_SEARCH_BYTES_MAX,
        binary: 0,
        unreadable: 0,
        long_lines: 0,
        over: false,
    };
    let mut walk = Walk::new(control, TOOL_SEARCH_DEPTH_MAX, &input.base, input.include_ignored);
    if !input.base.is_empty() && workspace.is_file(&input.base)? {
        let (file, _) = workspace.regular_file(&input.base)?;
        grep.file(&input.base, file);
    } else {
        walk.over(workspace.directory(&input.base)?, &mut |found| match found {
            Found::File { path, below, name, kind, directory } if kind != Kind::Link => {
                if glob.as_ref().is_some_and(|glob| !glob.matches(below)) {
                    return Flow::Go;
                }
                // Looked at before it is opened, so that no device is touched; and again afterwards, since it may have
                // been replaced.
                let regular = files::look_at(directory, name).is_ok_and(|entry| entry.kind == Kind::File);
                if !regular {
                    return Flow::Go;
                }
                match files::open_entry(directory, name, Open::Any) {
                    Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => grep.file(path, file),
                    Ok(_) => Flow::Go,
                    Err(_) => {
                        grep.unreadable += 1;
                        Flow::Go
                    }
                }
            }
            Found::File { .. } | Found::ClosedDirectory { .. } => Flow::Go,
        });
    }
    let truncated = grep.shown.full || grep.over || walk.is_cut();
    let mut notes = walk.notes();
    notes.extend(grep.notes());
    let (base, pattern) = (input.base.as_str(), input.pattern.as_str());
    Ok(ToolOutput::ok(&Matches { base, pattern, matches: grep.shown.items, truncated, notes }, truncated))
}

impl Grep<'_> {
    fn file(&mut self, path: &str, file: std::fs::File) -> Flow {
        let mut reader = BufReader::with_capacity(64 * 1024, file.take(self.bytes_left));
        match reader.fill_buf() {
            Err(_) => {
                self.unreadable += 1;
                return Flow::Go;
            }
            Ok(head) if head.contains(&0) => {
                self.binary += 1;
                return Flow::Go;
            }
            Ok(_) => {}
        }
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            let cut = match read_line(&mut reader, &mut line) {
                Err(_) => {
                    self.unreadable += 1;
                    return Flow::Go;
                }
                Ok(None) => break,
                Ok(Some(cut)) => cut,
            };
            number += 1;
            self.long_lines += u64::from(cut);
            let text = String::from_utf8_lossy(&line);
            if let Some(at) = self.pattern.find(&text) {
                let text = around(&text, at);
                let bytes = json_bytes(path) + json_bytes(&text) + 48;
                if self.shown.push(Match { path: path.to_string(), line: number, text }, bytes) == Flow::Stop {
                    return Flow::Stop;
                }
            }
            if number % 256 == 0 && self.control.is_over() {
                self.over = true;
                return Flow::Stop;
            }
        }
        self.bytes_left = reader.get_ref().limit();
        if self.bytes_left == 0 || self.control.is_over() {
            self.over = true;
            return Flow::Stop;
        }
        Flow::Go
    }

    fn notes(&self) -> Vec<String> {
        let counted = [
            (self.binary, "binary files were left out"),
            (self.unreadable, "files could not be read"),
            (self.long_lines, "very long lines were compared only in their beginning"),
            (u64::from(self.over), "the time or the bytes for one search were used up: name a narrower base"),
        ];
        let some = counted.iter().filter(|(count, _)| *count > 0);
        some.map(|(count, what)| if what.starts_with("the ") { (*what).to_string() } else { format!("{count} {what}") })
            .collect()
    }
}

/// Reads a line without its line feed into `line`; `None` at the end, else whether it was cut.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Option<bool>> {
    let mut any = false;
    let mut cut = false;
    loop {
        let available = match reader.fill_buf() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            available => available?,
        };
        if available.is_empty() {
            return Ok(any.then_some(cut));
        }
        any = true;
        let (used, ended) = match available.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end, true),
            None => (available.len(), false),
        };
        let room = TOOL_SEARCH_LINE_BYTES_MAX - line.len();
        cut |= used > room;
        line.extend_from_slice(&available[..used.min(room)]);
        reader.consume(used + usize::from(ended));
        if ended {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(cut));
        }
    }
}

/// The line, or the part of it around byte `at`, marked where it was cut.
fn around(line: &str, at: usize) -> String {
    if line.len() <= TOOL_SEARCH_SHOWN_BYTES_MAX {
        return cut_escaped(line, 4 * TOOL_SEARCH_SHOWN_BYTES_MAX).to_string();
    }
    let mut from = at.saturating_sub(TOOL_SEARCH_SHOWN_BYTES_MAX / 4);
    while !line.is_char_boundary(from) {
        from -= 1;
    }
    let mut to = (from + TOOL_SEARCH_SHOWN_BYTES_MAX).min(line.len());
    while !line.is_char_boundary(to) {
        to -= 1;
    }
    let (head, tail) = (if from > 0 { "…" } else { "" }, if to < line.len() { "…" } else { "" });
    format!("{head}{}{tail}", cut_escaped(&line[from..to], 4 * TOOL_SEARCH_SHOWN_BYTES_MAX))
}
