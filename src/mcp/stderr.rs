//! What a server writes to its standard error, as log lines.
//! Owns: the cutting into lines and their bound in length and number.
//! Never: holds back a line that warns because of many that do not; the log redacts them as all of its lines.

use std::time::{Duration, Instant};

use super::content::shown;
use crate::limits::{MCP_STDERR_LINE_BYTES_MAX, MCP_STDERR_LINES_MAX, MCP_STDERR_SEEN_BYTES_MAX};

/// Lines of one server.
#[derive(Debug)]
pub(super) struct ErrorLines {
    server: String,
    line: Vec<u8>,
    began: Instant,
    shown: u32,
    held_back: u64,
}

impl ErrorLines {
    pub fn new(server: &str) -> Self {
        Self { server: server.to_string(), line: Vec::new(), began: Instant::now(), shown: 0, held_back: 0 }
    }

    /// Takes bytes as they come.
    pub fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.show();
            } else if self.line.len() < MCP_STDERR_SEEN_BYTES_MAX {
                self.line.push(*byte);
            }
        }
    }

    fn show(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.trim_ascii().is_empty() {
            return;
        }
        if self.began.elapsed() >= Duration::from_secs(1) {
            if self.held_back > 0 {
                log::debug!("MCP server {}: {} lines more on its standard error", self.server, self.held_back);
            }
            (self.began, self.shown, self.held_back) = (Instant::now(), 0, 0);
        }
        if self.shown >= MCP_STDERR_LINES_MAX {
            self.held_back += 1;
            return;
        }
        self.shown += 1;
        let text = shown(&String::from_utf8_lossy(&line), MCP_STDERR_LINE_BYTES_MAX);
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let lower = text.to_ascii_lowercase();
        if ["warn", "error", "fatal", "panic"].iter().any(|word| lower.contains(word)) {
            log::warn!("MCP server {}: {}", self.server, text.trim());
        } else {
            log::debug!("MCP server {}: {}", self.server, text.trim());
        }
    }
}
