//! Rules as operators write them, and as decisions use them.
//! Owns: their JSON form, their checks, and which of two is narrower.
//! Never: decides; `policy` does.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::arguments::{Arguments, Field};
use super::command::CommandPrefix;
use super::host::HostPattern;
use super::mode::Behavior;
use super::path::{Path, PathPattern};
use crate::limits::{PERMISSION_PATTERN_BYTES_MAX, PERMISSION_REASON_BYTES_MAX};

/// For whom a rule holds. Later ones are narrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleScope {
    /// The operator, everywhere.
    User,
    /// This workspace.
    Project,
    /// One session.
    Session,
}

impl RuleScope {
    /// Wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Project => "project",
            Self::Session => "session",
        }
    }
}

/// What a rule says of a call's arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArgumentMatcher {
    /// The words that `command` begins with, separated by single blanks: `git status`.
    CommandPrefix(String),
    /// A pattern for `path`, `base` and the paths of `hunks`: `src/**`, `**/.env`, `/etc/**`.
    Path(String),
    /// The host of `url`: `docs.example.com`, or `*.example.com` for every host below one.
    Host(String),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// For whom it holds.
    pub scope: RuleScope,
    /// A tool's name, `*`, or the beginning of names with a trailing `*`.
    pub tool_name_pattern: String,
    /// What it says of the arguments; without it, it holds for every call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<ArgumentMatcher>,
    /// What it says.
    pub behavior: Behavior,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleError {
    /// The tool's name or pattern.
    ToolPattern(String),
    /// The argument's pattern.
    Argument {
        /// Which kind.
        kind: &'static str,
        /// As written.
        pattern: String,
    },
    /// The reason is too long or has control characters.
    Reason,
    /// Another rule of the same scope has the same target.
    Repeated {
        /// The pattern of both.
        tool_name_pattern: String,
    },
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToolPattern(pattern) => write!(
                f,
                "tool_name_pattern {pattern:?} is no tool name; next: write a name, *, or the beginning of names with \
                 one trailing *"
            ),
            Self::Argument { kind: "command_prefix", pattern } => write!(
                f,
                "command_prefix {pattern:?} is not made of plain words; next: write words without quotes or shell \
                 characters, separated by single blanks"
            ),
            Self::Argument { kind: "path", pattern } => write!(
                f,
                "path {pattern:?} is no path pattern; next: write components with * and ?, or ** alone for any number \
                 of components, and no .."
            ),
            Self::Argument { pattern, .. } => {
                write!(f, "host {pattern:?} is no host; next: write a lower-case name or address, or *. before a name")
            }
            Self::Reason => write!(
                f,
                "the reason of a rule has control characters or more than {PERMISSION_REASON_BYTES_MAX} bytes; next: \
                 shorten it"
            ),
            Self::Repeated { tool_name_pattern } => write!(
                f,
                "two rules of one scope for {tool_name_pattern:?} have the same target; next: keep one of them"
            ),
        }
    }
}

impl std::error::Error for RuleError {}

/// A rule, ready to be compared with calls.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    pub(super) rule: Rule,
    tool: ToolPattern,
    argument: Option<Matcher>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ToolPattern {
    Exact(String),
    Prefix(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Matcher {
    Command(CommandPrefix),
    Path(PathPattern),
    Host(HostPattern),
}

impl Rule {
    /// Checks the rule by itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), RuleError> {
        self.compile().map(|_| ())
    }

    pub(super) fn compile(&self) -> Result<Compiled, RuleError> {
        let name_is_legal = |name: &str| {
            name.len() <= PERMISSION_PATTERN_BYTES_MAX
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let tool = match self.tool_name_pattern.strip_suffix('*') {
            Some(prefix) if name_is_legal(prefix) => ToolPattern::Prefix(prefix.to_string()),
            None if name_is_legal(&self.tool_name_pattern) && !self.tool_name_pattern.is_empty() => {
                ToolPattern::Exact(self.tool_name_pattern.clone())
            }
            _ => return Err(RuleError::ToolPattern(shown(&self.tool_name_pattern))),
        };
        let argument = match &self.argument {
            None => None,
            Some(ArgumentMatcher::CommandPrefix(text)) => Some(
                CommandPrefix::parse(text)
                    .map(Matcher::Command)
                    .ok_or_else(|| RuleError::Argument { kind: "command_prefix", pattern: shown(text) })?,
            ),
            Some(ArgumentMatcher::Path(text)) => Some(
                PathPattern::parse(text)
                    .map(Matcher::Path)
                    .ok_or_else(|| RuleError::Argument { kind: "path", pattern: shown(text) })?,
            ),
            Some(ArgumentMatcher::Host(text)) => Some(
                HostPattern::parse(text)
                    .map(Matcher::Host)
                    .ok_or_else(|| RuleError::Argument { kind: "host", pattern: shown(text) })?,
            ),
        };
        let reason_is_legal =
            |reason: &String| reason.len() <= PERMISSION_REASON_BYTES_MAX && !reason.contains(char::is_control);
        if !self.reason.as_ref().is_none_or(reason_is_legal) {
            return Err(RuleError::Reason);
        }
        Ok(Compiled { rule: self.clone(), tool, argument })
    }
}

/// A pattern as an error repeats it.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl Compiled {
    /// Whether the rule speaks of this call. A rule that restricts matches where it might apply, one that allows only
    /// where it surely does.
    pub(super) fn matches(&self, tool: &str, arguments: &Arguments, workspace: Option<&Path>) -> bool {
        let names_tool = match &self.tool {
            ToolPattern::Exact(name) => tool == name,
            ToolPattern::Prefix(prefix) => tool.starts_with(prefix),
        };
        names_tool
            && self.argument.as_ref().is_none_or(|matcher| {
                if self.rule.behavior == Behavior::Allow {
                    matcher.surely_matches(arguments, workspace)
                } else {
                    matcher.may_match(arguments, workspace)
                }
            })
    }

    /// Whether the rule speaks of every call that `other` speaks of.
    fn covers(&self, other: &Self) -> bool {
        let tool = match (&self.tool, &other.tool) {
            (ToolPattern::Exact(own), ToolPattern::Exact(name)) => own == name,
            (ToolPattern::Exact(_), ToolPattern::Prefix(_)) => false,
            (ToolPattern::Prefix(own), ToolPattern::Exact(name) | ToolPattern::Prefix(name)) => name.starts_with(own),
        };
        let argument = match (&self.argument, &other.argument) {
            (None, _) => true,
            (Some(Matcher::Command(own)), Some(Matcher::Command(other))) => own.covers(other),
            (Some(Matcher::Path(own)), Some(Matcher::Path(other))) => own.covers(other),
            (Some(Matcher::Host(own)), Some(Matcher::Host(other))) => own.covers(other),
            (Some(_), _) => false,
        };
        tool && argument
    }

    /// Whether the two have the same target.
    pub(super) fn same_target(&self, other: &Self) -> bool {
        self.tool == other.tool && self.argument == other.argument
    }

    /// Whether the rule is narrower than `other`: a smaller target, or the same one in a narrower scope.
    pub(super) fn is_narrower_than(&self, other: &Self) -> bool {
        other.covers(self) && (!self.covers(other) || self.rule.scope > other.rule.scope)
    }

    /// Orders rules that say the same from the most to the least specific, for the audit record.
    pub(super) fn specificity(&self) -> (usize, usize, RuleScope) {
        let tool = match &self.tool {
            ToolPattern::Exact(_) => usize::MAX,
            ToolPattern::Prefix(prefix) => prefix.len(),
        };
        let argument = match &self.rule.argument {
            None => 0,
            Some(ArgumentMatcher::CommandPrefix(text) | ArgumentMatcher::Path(text) | ArgumentMatcher::Host(text)) => {
                1 + text.len()
            }
        };
        (tool, argument, self.rule.scope)
    }
}

impl Matcher {
    fn surely_matches(&self, arguments: &Arguments, workspace: Option<&Path>) -> bool {
        match self {
            Self::Command(prefix) => {
                matches!(&arguments.command, Field::Is(command) if command.is_surely(prefix))
            }
            Self::Path(pattern) => match (&arguments.paths, workspace) {
                (Field::Is(paths), Some(workspace)) => {
                    let holds = |path: &Path| match paths.search {
                        true => pattern.matches_below(path, workspace),
                        false => pattern.matches(path, workspace),
                    };
                    !paths.may_leave && paths.given.iter().all(holds)
                }
                _ => false,
            },
            Self::Host(pattern) => matches!(&arguments.host, Field::Is(host) if pattern.matches(host)),
        }
    }

    fn may_match(&self, arguments: &Arguments, workspace: Option<&Path>) -> bool {
        match self {
            Self::Command(prefix) => match &arguments.command {
                Field::Absent => false,
                Field::Unreadable => true,
                Field::Is(command) => command.may_contain(prefix),
            },
            Self::Path(pattern) => match (&arguments.paths, workspace) {
                (Field::Absent, _) => false,
                (Field::Is(paths), Some(workspace)) => {
                    paths.may_leave
                        || paths.given.iter().any(|path| {
                            pattern.matches(path, workspace) || paths.search && pattern.reaches(path, workspace)
                        })
                }
                (Field::Unreadable, _) | (Field::Is(_), None) => true,
            },
            Self::Host(pattern) => match &arguments.host {
                Field::Absent => false,
                Field::Unreadable => true,
                Field::Is(host) => pattern.matches(host),
            },
        }
    }
}
