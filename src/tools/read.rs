//! `read_file`.
//! Owns: streaming to the asked lines or bytes, and the digest of the whole file.
//! May touch: one regular file of the workspace, for reading.
//! Never: holds more of a file than it passes on.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::ToolError;
use super::output::{ToolOutput, cut_escaped};
use super::workspace::{Workspace, explain};
use super::{Control, parse};
use crate::hex::to_hex;
use crate::limits::{TOOL_READ_ESCAPED_BYTES_MAX, TOOL_READ_SCAN_BYTES_MAX, TOOL_READ_TEXT_BYTES_MAX};

#[derive(Deserialize)]
struct Input {
    path: String,
    start_line: Option<u64>,
    line_count: Option<u64>,
    #[serde(default)]
    include_base64: bool,
    start_byte: Option<u64>,
    byte_count: Option<u64>,
}

#[derive(Serialize, Default)]
struct Output<'a> {
    path: &'a str,
    start_line: u64,
    line_count: u64,
    content: String,
    bytes_read: usize,
    /// Of the whole file; absent when it was not read to its end.
    sha256: Option<String>,
    encoding: &'static str,
    binary: bool,
    truncated: bool,
    file_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_lines: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_start_line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_start_byte: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_base64: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
enum Range {
    Lines { first: u64, count: u64 },
    Bytes { first: u64, count: u64 },
}

/// What one pass over a file found.
struct Scan {
    kept: Vec<u8>,
    /// Offset of the first kept byte.
    kept_at: u64,
    /// The asked range goes on behind what is kept.
    cut: bool,
    lines_kept: u64,
    total_lines: u64,
    total_bytes: u64,
    has_nul: bool,
    /// Digest, when the end was reached.
    sha256: Option<String>,
}

/// `read_file`.
pub(super) fn read(input: &RawValue, workspace: &Workspace, control: &Control) -> Result<ToolOutput, ToolError> {
    let input: Input = parse(input)?;
    let range = match (input.start_byte, input.byte_count) {
        (None, None) => {
            Range::Lines { first: input.start_line.unwrap_or(1), count: input.line_count.unwrap_or(u64::MAX) }
        }
        (first, count) if input.start_line.is_none() && input.line_count.is_none() => {
            Range::Bytes { first: first.unwrap_or(0), count: count.unwrap_or(TOOL_READ_TEXT_BYTES_MAX as u64) }
        }
        _ => {
            return Err(ToolError::Arguments {
                field: "start_byte".to_string(),
                cause: "given together with a range of lines".to_string(),
                expected: "lines or bytes, not both".to_string(),
            });
        }
    };
    let (mut file, metadata) = workspace.regular_file(&input.path)?;
    let scan = scan(&mut file, range, control).map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => ToolError::TimedOut { done: "while reading the file".to_string() },
        _ => explain(&input.path, &error),
    })?;
    Ok(present(&input, range, scan, metadata.len()))
}

fn scan(file: &mut impl Read, range: Range, control: &Control) -> std::io::Result<Scan> {
    let mut found = Scan {
        kept: Vec::new(),
        kept_at: 0,
        cut: false,
        lines_kept: 0,
        total_lines: 0,
        total_bytes: 0,
        has_nul: false,
        sha256: None,
    };
    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    let mut line = 1;
    let mut ends_with_line_feed = true;
    loop {
        let count = match file.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        let chunk = &buffer[..count];
        if count == 0 {
            found.total_lines = if ends_with_line_feed { line - 1 } else { line };
            found.sha256 = Some(to_hex(digest.finish().as_ref()));
            return Ok(found);
        }
        digest.update(chunk);
        found.has_nul |= chunk.contains(&0);
        ends_with_line_feed = chunk.last() == Some(&b'\n');
        keep(&mut found, chunk, range, &mut line);
        found.total_bytes += count as u64;
        if found.total_bytes >= TOOL_READ_SCAN_BYTES_MAX || control.is_over() {
            let complete = found.cut
                || match range {
                    Range::Lines { first, count } => line >= first.saturating_add(count),
                    Range::Bytes { first, count } => found.total_bytes >= first.saturating_add(count),
                };
            if complete {
                found.total_lines = 0;
                return Ok(found);
            }
            return Err(std::io::ErrorKind::TimedOut.into());
        }
    }
}

/// Takes the part of `chunk` that lies in the range; `line` is the number of the line in which it begins.
fn keep(found: &mut Scan, chunk: &[u8], range: Range, line: &mut u64) {
    let at = found.total_bytes;
    match range {
        Range::Bytes { first, count } => {
            let from = first.saturating_sub(at).min(chunk.len() as u64) as usize;
            let to = first.saturating_add(count).saturating_sub(at).min(chunk.len() as u64) as usize;
            take(found, &chunk[from..to.max(from)], at + from as u64);
            *line += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        Range::Lines { first, count } => {
            let last = first.saturating_add(count);
            let mut from = 0;
            for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
                if *line >= first && *line < last {
                    take(found, piece, at + from as u64);
                }
                from += piece.len();
                *line += u64::from(piece.ends_with(b"\n"));
            }
        }
    }
}

fn take(found: &mut Scan, piece: &[u8], at: u64) {
    if piece.is_empty() {
        return;
    }
    let room = TOOL_READ_TEXT_BYTES_MAX - found.kept.len();
    if found.cut || room == 0 {
        found.cut = true;
        return;
    }
    if found.kept.is_empty() {
        found.kept_at = at;
    }
    found.cut = piece.len() > room;
    found.kept.extend_from_slice(&piece[..piece.len().min(room)]);
    found.lines_kept += u64::from(!found.cut && piece.ends_with(b"\n"));
}

fn present(input: &Input, range: Range, mut scan: Scan, file_bytes: u64) -> ToolOutput {
    let file_bytes = if scan.sha256.is_some() { scan.total_bytes } else { file_bytes.max(scan.total_bytes) };
    let total_lines = scan.sha256.is_some().then_some(scan.total_lines);
    let mut output = Output {
        path: &input.path,
        sha256: scan.sha256.take(),
        file_bytes,
        total_lines,
        binary: scan.has_nul,
        encoding: if scan.has_nul { "binary" } else { "utf-8" },
        ..Output::default()
    };
    if let Range::Lines { first, .. } = range {
        output.start_line = first;
    }
    if scan.has_nul {
        output.bytes_read = scan.kept.len();
        output.truncated = scan.cut;
        output.next_start_byte = scan.cut.then_some(scan.kept_at + scan.kept.len() as u64);
        output.content_base64 = input.include_base64.then(|| STANDARD.encode(&scan.kept));
        return ToolOutput::ok(&output, scan.cut);
    }
    // A range of bytes, or a cut, may begin or end inside a character.
    if std::str::from_utf8(&scan.kept).is_err() {
        let trimmed = trim_to_characters(&scan.kept);
        if std::str::from_utf8(trimmed).is_ok() {
            scan.kept_at += trimmed.as_ptr() as u64 - scan.kept.as_ptr() as u64;
            scan.kept = trimmed.to_vec();
        } else {
            output.encoding = "utf-8-lossy";
        }
    }
    let whole = String::from_utf8_lossy(&scan.kept);
    let shown = cut_escaped(&whole, TOOL_READ_ESCAPED_BYTES_MAX);
    let mut cut = scan.cut || shown.len() < whole.len();
    let mut content = shown.to_string();
    if let (Range::Lines { first, .. }, true) = (range, cut) {
        // Whole lines only, unless a single one is too long.
        match content.rfind('\n') {
            Some(end) => {
                content.truncate(end + 1);
                let lines = content.bytes().filter(|byte| *byte == b'\n').count() as u64;
                output.next_start_line = Some(first + lines);
            }
            None => output.next_start_byte = Some(scan.kept_at + content.len() as u64),
        }
    } else if cut {
        output.next_start_byte = Some(scan.kept_at + content.len() as u64);
    } else if let Range::Bytes { .. } = range
        && scan.kept_at + (content.len() as u64) < file_bytes
    {
        output.next_start_byte = Some(scan.kept_at + content.len() as u64);
        cut = true;
    }
    output.line_count = content.lines().count() as u64;
    output.bytes_read = content.len();
    output.content = content;
    output.truncated = cut;
    ToolOutput::ok(&output, cut)
}

/// Without the at most three bytes at each end that belong to a character outside.
fn trim_to_characters(bytes: &[u8]) -> &[u8] {
    let head = bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    let bytes = &bytes[head..];
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}
