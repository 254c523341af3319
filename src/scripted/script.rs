//! The script file: which request gets which answer.
//! Owns: its format, its rules, and the order in which turns are used up.
//! Never: guesses: an unknown key or an impossible combination is an error with its line.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::limits::{SCRIPT_FILE_BYTES_MAX, SCRIPT_TURNS_MAX, SCRIPTED_DELAY_MS_MAX, SCRIPTED_PADDING_BYTES_MAX};

/// Why a script was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptError {
    /// The file cannot be read.
    Unreadable {
        /// The script.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// It is no TOML, or holds an unknown key or a wrong type.
    Syntax {
        /// The script.
        path: PathBuf,
        /// The parser's text, with line and column.
        reason: String,
    },
    /// It breaks a rule.
    Rule {
        /// The script.
        path: PathBuf,
        /// Which turn, counted from 1; 0 is the default turn.
        turn: usize,
        /// The rule.
        rule: &'static str,
    },
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = "next: correct it, docs/scripted-provider.md has the format";
        match self {
            Self::Unreadable { path, reason } => {
                write!(f, "cannot read script {}: {reason}; next: check the path", path.display())
            }
            Self::Syntax { path, reason } => write!(f, "script {}: {}; {next}", path.display(), reason.trim_end()),
            Self::Rule { path, turn: 0, rule } => write!(f, "script {}: [default]: {rule}; {next}", path.display()),
            Self::Rule { path, turn, rule } => write!(f, "script {}: [[turn]] {turn}: {rule}; {next}", path.display()),
        }
    }
}

impl std::error::Error for ScriptError {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScript {
    #[serde(default)]
    version: Option<u32>,
    #[serde(default)]
    turn: Vec<Turn>,
    #[serde(default)]
    default: Option<Turn>,
}

/// One answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    /// Substring of the last user input; without it the turn is used in file order.
    #[serde(default, rename = "match")]
    pub matches: Option<String>,
    /// How often it is used: once without `match`, for ever with it, unless set.
    #[serde(default)]
    pub times: Option<u32>,
    /// Substring of the tool results, when these are the last thing that was said.
    #[serde(default)]
    pub match_result: Option<String>,
    /// Text of the answer; without it, and without tool calls, the input is echoed.
    #[serde(default)]
    pub text: Option<String>,
    /// Characters of one text delta.
    #[serde(default)]
    pub chunk_chars: Option<usize>,
    /// Wait before the first byte of the answer.
    #[serde(default)]
    pub delay_ms: u64,
    /// Wait before each text delta after the first.
    #[serde(default)]
    pub chunk_delay_ms: u64,
    /// Words with which the model declines, in place of the text.
    #[serde(default)]
    pub refusal: Option<String>,
    /// Readable reasoning before the text.
    #[serde(default)]
    pub thinking: Option<String>,
    /// Opaque reasoning data that is to be sent back: encrypted content or a signature.
    #[serde(default)]
    pub reasoning: Option<String>,
    /// Tool calls after the text.
    #[serde(default)]
    pub tool_calls: Vec<ToolCall>,
    /// Token counts; estimated from the text lengths when absent.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// Tells no token counts.
    #[serde(default)]
    pub no_usage: bool,
    /// How lines of the stream end.
    #[serde(default)]
    pub line_end: LineEnd,
    /// A comment before every frame.
    #[serde(default)]
    pub comments: bool,
    /// An event that nobody knows before every frame.
    #[serde(default)]
    pub unknown_events: bool,
    /// Bytes of an unknown event before the first one.
    #[serde(default)]
    pub padding_bytes: usize,
    /// Body bytes of one HTTP chunk and one write, wherever that cuts.
    #[serde(default)]
    pub split_bytes: Option<usize>,
    /// `Content-Type` of the stream.
    #[serde(default)]
    pub content_type: Option<String>,
    /// An HTTP error instead of an answer.
    #[serde(default)]
    pub error: Option<HttpError>,
    /// A stream that goes wrong.
    #[serde(default)]
    pub fault: Option<Fault>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolCall {
    pub name: String,
    /// JSON text.
    #[serde(default = "empty_object")]
    pub arguments: String,
    #[serde(default)]
    pub call_id: Option<String>,
    /// The arguments are sent as they stand, JSON or not.
    #[serde(default)]
    pub raw: bool,
}

/// How lines of a stream end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LineEnd {
    #[default]
    Lf,
    Crlf,
    Cr,
}

fn empty_object() -> String {
    "{}".to_string()
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Usage {
    #[serde(default)]
    pub input_tokens: u64,
    #[serde(default)]
    pub cached_input_tokens: u64,
    #[serde(default)]
    pub output_tokens: u64,
    #[serde(default)]
    pub reasoning_tokens: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpError {
    pub status: u16,
    #[serde(default)]
    pub code: Option<String>,
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default)]
    pub param: Option<String>,
    /// `Retry-After`, as text: seconds or a date.
    #[serde(default)]
    pub retry_after: Option<String>,
    /// `Retry-After-Ms`.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
    /// `retryDelay` of a Google error, for example `2s`.
    #[serde(default)]
    pub retry_delay: Option<String>,
    /// `X-Should-Retry`.
    #[serde(default)]
    pub should_retry: Option<bool>,
}

/// What goes wrong, after how many whole frames of the stream.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    pub kind: FaultKind,
    /// Whole frames sent before it.
    #[serde(default)]
    pub after_frames: Option<usize>,
    /// Body bytes sent before it, for `disconnect`.
    #[serde(default)]
    pub after_bytes: Option<usize>,
    /// Error code of `failed` and `error_event`, reason of `incomplete`.
    #[serde(default)]
    pub code: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FaultKind {
    /// Reset the connection within a chunk.
    Reset,
    /// Send a frame that is no UTF-8.
    NotUtf8,
    /// Close the connection in mid-body.
    Disconnect,
    /// End the body properly, without the terminal event.
    Truncate,
    /// Send a frame that is no JSON and go on.
    Malformed,
    /// Send nothing more and keep the connection open.
    Hang,
    /// End with `response.failed`.
    Failed,
    /// End with an `error` event.
    ErrorEvent,
    /// End with `response.incomplete`.
    Incomplete,
}

/// A script, with what is left of it.
#[derive(Debug, Clone)]
pub struct Script {
    /// Turns and how often each may still be used.
    turns: Vec<(Turn, u64)>,
    default: Turn,
}

/// The turn chosen for a request.
pub(super) struct Chosen {
    pub turn: Turn,
    /// Its number in the file, from 1; `None` is the default turn.
    pub number: Option<usize>,
}

impl Script {
    /// A script without turns: every input is echoed.
    pub fn echo() -> Self {
        Self { turns: Vec::new(), default: Turn::default() }
    }

    /// Reads and judges the script at `path`.
    ///
    /// # Errors
    /// See [`ScriptError`].
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let unreadable = |reason: String| ScriptError::Unreadable { path: path.to_path_buf(), reason };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(SCRIPT_FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text))
            .map_err(|error| unreadable(error.to_string()))?;
        if text.len() > SCRIPT_FILE_BYTES_MAX {
            return Err(unreadable(format!("it is over {SCRIPT_FILE_BYTES_MAX} bytes")));
        }
        Self::parse(&text, path)
    }

    /// Judges a script's text; `path` is for messages.
    ///
    /// # Errors
    /// As [`Script::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ScriptError> {
        let raw: RawScript = toml::from_str(text)
            .map_err(|error| ScriptError::Syntax { path: path.to_path_buf(), reason: error.to_string() })?;
        let broken = |turn, rule| Err(ScriptError::Rule { path: path.to_path_buf(), turn, rule });
        if raw.version.is_some_and(|version| version != 1) {
            return broken(0, "only `version = 1` is known");
        }
        if raw.turn.len() > SCRIPT_TURNS_MAX {
            return broken(SCRIPT_TURNS_MAX + 1, "too many turns");
        }
        for (index, turn) in raw.turn.iter().enumerate() {
            if let Err(rule) = turn.check() {
                return broken(index + 1, rule);
            }
        }
        let default = raw.default.unwrap_or_default();
        if default.matches.is_some() || default.match_result.is_some() || default.times.is_some() {
            return broken(0, "`match`, `match_result` and `times` have no meaning here");
        }
        if let Err(rule) = default.check() {
            return broken(0, rule);
        }
        let turns = raw.turn.into_iter().map(|turn| {
            let uses = match turn.times {
                Some(times) => u64::from(times),
                None if turn.matches.is_some() || turn.match_result.is_some() => u64::MAX,
                None => 1,
            };
            (turn, uses)
        });
        Ok(Self { turns: turns.collect(), default })
    }

    /// Uses up the first turn whose `match` is in `input` and `match_result` in `result`, else the first one without
    /// either, else the default.
    pub(super) fn choose(&mut self, input: &str, result: Option<&str>) -> Chosen {
        let is_bound = |turn: &Turn| turn.matches.is_some() || turn.match_result.is_some();
        let wanted = |turn: &Turn| {
            let holds = |pattern: &Option<String>, text: Option<&str>| match (pattern, text) {
                (None, _) => true,
                (Some(pattern), Some(text)) => text.contains(pattern.as_str()),
                (Some(_), None) => false,
            };
            is_bound(turn) && holds(&turn.matches, Some(input)) && holds(&turn.match_result, result)
        };
        let live = |(_, uses): &(Turn, u64)| *uses > 0;
        let index = self
            .turns
            .iter()
            .position(|entry| live(entry) && wanted(&entry.0))
            .or_else(|| self.turns.iter().position(|entry| live(entry) && !is_bound(&entry.0)));
        match index {
            Some(index) => {
                let (turn, uses) = &mut self.turns[index];
                *uses = if *uses == u64::MAX { u64::MAX } else { *uses - 1 };
                Chosen { turn: turn.clone(), number: Some(index + 1) }
            }
            None => Chosen { turn: self.default.clone(), number: None },
        }
    }
}

impl Turn {
    fn check(&self) -> Result<(), &'static str> {
        if self.delay_ms > SCRIPTED_DELAY_MS_MAX || self.chunk_delay_ms > SCRIPTED_DELAY_MS_MAX {
            return Err("a delay is over 600000 ms");
        }
        if self.chunk_chars == Some(0) || self.times == Some(0) {
            return Err("`chunk_chars` and `times` are at least 1");
        }
        let is_json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
        if self.tool_calls.iter().any(|call| !call.raw && !is_json(&call.arguments)) {
            return Err("`arguments` of a tool call is a text that holds JSON, unless `raw` is true");
        }
        if self.padding_bytes > SCRIPTED_PADDING_BYTES_MAX || self.split_bytes == Some(0) {
            return Err("`padding_bytes` is at most 64 MiB and `split_bytes` at least 1");
        }
        if self.refusal.is_some() && (self.text.is_some() || !self.tool_calls.is_empty()) {
            return Err("`refusal` excludes `text` and `tool_calls`");
        }
        if self.content_type.as_ref().is_some_and(|text| text.chars().any(char::is_control)) {
            return Err("`content_type` is one line");
        }
        if let Some(error) = &self.error {
            if !(300..=599).contains(&error.status) {
                return Err("`status` of an error is 300 to 599");
            }
            if self.text.is_some() || self.fault.is_some() || !self.tool_calls.is_empty() {
                return Err("`error` excludes `text`, `tool_calls` and `fault`");
            }
            if error.retry_after.iter().any(|text| text.chars().any(char::is_control)) {
                return Err("`retry_after` is one line");
            }
        }
        if let Some(fault) = &self.fault
            && fault.after_bytes.is_some()
            && (!matches!(fault.kind, FaultKind::Disconnect | FaultKind::Truncate) || fault.after_frames.is_some())
        {
            return Err("`after_bytes` goes with `disconnect` and `truncate` only, and excludes `after_frames`");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Script, ScriptError> {
        Script::parse(text, Path::new("s.toml"))
    }

    #[test]
    fn matched_turns_come_first_then_unmatched_ones_in_order_then_the_default() {
        let mut script = parse(
            "[[turn]]\ntext = 'first'\n[[turn]]\nmatch = 'rate'\ntimes = 1\nerror = {status = 429}\n\
             [[turn]]\nmatch = 'rate'\ntext = 'again'\n[[turn]]\ntext = 'second'\n\
             times = 2\n[default]\ntext = 'rest'\n",
        )
        .expect("valid");
        let mut numbers = |input| script.choose(input, None).number;
        assert_eq!(numbers("x"), Some(1));
        assert_eq!(numbers("the rate"), Some(2));
        assert_eq!(numbers("the rate"), Some(3));
        assert_eq!(numbers("the rate"), Some(3));
        assert_eq!(numbers("x"), Some(4));
        assert_eq!(numbers(""), Some(4));
        assert_eq!(numbers("x"), None);
        assert_eq!(script.choose("x", None).turn.text.as_deref(), Some("rest"));
    }

    #[test]
    fn a_turn_can_wait_for_the_result_of_a_tool() {
        let mut script = parse(
            "[[turn]]\nmatch = 'sum'\nmatch_result = '5'\ntext = 'five'\n\
             [[turn]]\nmatch = 'sum'\ntool_calls = [{name = 'add'}]\n[[turn]]\nmatch_result = 'x'\n",
        )
        .expect("valid");
        let mut numbers = |input, result| script.choose(input, result).number;
        assert_eq!(numbers("sum", None), Some(2));
        assert_eq!(numbers("sum", Some("it is 5")), Some(1));
        assert_eq!(numbers("other", Some("xyz")), Some(3));
        assert_eq!(numbers("other", None), None);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        for text in [
            "\n\n\nturns = []",
            "\n\n[[turn]]\ntxet = 'a'",
            "\n[default]\n\nfoo = 1",
            "\n[[turn]]\n\nerror = {status = 400, cod = 'x'}",
            "\n[[turn]]\n\nfault = {kind = 'hang', after = 1}",
            "\n[[turn]]\n\nfault = {kind = 'explode'}",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains("line 4") && error.contains("; next: "), "{error}");
        }
    }

    #[test]
    fn a_combination_that_makes_no_sense_is_refused() {
        for (text, turn) in [
            ("version = 2", 0),
            ("[default]\nmatch = 'x'", 0),
            ("[[turn]]\n[[turn]]\ndelay_ms = 600001", 2),
            ("[[turn]]\nchunk_chars = 0", 1),
            ("[[turn]]\ntimes = 0", 1),
            ("[[turn]]\nerror = {status = 200}", 1),
            ("[[turn]]\ntext = 'a'\nerror = {status = 400}", 1),
            ("[[turn]]\nfault = {kind = 'hang', after_bytes = 1}", 1),
            ("[[turn]]\ntool_calls = [{name = 'a', arguments = '{'}]", 1),
            ("[[turn]]\nrefusal = 'a'\ntext = 'b'", 1),
            ("[[turn]]\nsplit_bytes = 0", 1),
            ("[[turn]]\npadding_bytes = 67108865", 1),
            ("[[turn]]\ncontent_type = \"a\\nb\"", 1),
        ] {
            match parse(text) {
                Err(ScriptError::Rule { turn: found, .. }) => assert_eq!(found, turn, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
