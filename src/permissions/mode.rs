//! Permission modes and what they do to a decision.
//! Owns: the five modes, their spellings, and how a global mode and a session's own one combine.
//! Never: looks at a rule.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::facts::Facts;

/// What a rule or a decision says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behavior {
    /// The call is refused.
    Deny,
    /// A person decides.
    Ask,
    /// The call goes ahead.
    Allow,
}

impl Behavior {
    /// Wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Ask => "ask",
            Self::Allow => "allow",
        }
    }
}

/// How much a run may do without a person. Applied after the rules; read at every call, so that a switch takes hold of
/// the next call of a run under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// What the rules say.
    #[default]
    Default,
    /// Edits of workspace files that would be asked about go ahead.
    AcceptEdits,
    /// Whatever would be asked about goes ahead; a deny stays.
    BypassPermissions,
    /// Only what reads or coordinates.
    Plan,
    /// Whatever would be asked about is refused.
    DontAsk,
}

/// A mode that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownMode(String);

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no permission mode; next: use default, acceptEdits, plan, dontAsk or bypassPermissions",
            self.0
        )
    }
}

impl std::error::Error for UnknownMode {}

impl Mode {
    /// Every mode, in the order of the matrix.
    pub const ALL: [Self; 5] = [Self::Default, Self::AcceptEdits, Self::BypassPermissions, Self::Plan, Self::DontAsk];

    /// Wire name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AcceptEdits => "acceptEdits",
            Self::BypassPermissions => "bypassPermissions",
            Self::Plan => "plan",
            Self::DontAsk => "dontAsk",
        }
    }

    /// Reads the wire name or the command line's spelling (`dont-ask`).
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, UnknownMode> {
        Ok(match text {
            "default" => Self::Default,
            "acceptEdits" | "accept-edits" => Self::AcceptEdits,
            "bypassPermissions" | "bypass-permissions" => Self::BypassPermissions,
            "plan" => Self::Plan,
            "dontAsk" | "dont-ask" => Self::DontAsk,
            _ => return Err(UnknownMode(text.chars().take(64).collect())),
        })
    }

    /// Whether no call is decided more generously under `self` than under `other`. `plan` and `dontAsk` cannot be
    /// compared: each refuses something that the other lets through.
    pub fn is_at_most(self, other: Self) -> bool {
        fn height(mode: Mode) -> u8 {
            match mode {
                Mode::Plan | Mode::DontAsk => 0,
                Mode::Default => 1,
                Mode::AcceptEdits => 2,
                Mode::BypassPermissions => 3,
            }
        }
        self == other || height(self) < height(other)
    }

    /// What becomes of `base` under this mode, and the name of the effect if the mode had a say.
    pub(super) fn apply(self, base: Behavior, facts: Facts) -> (Behavior, Option<&'static str>) {
        match (self, base) {
            (Self::Default, _) | (_, Behavior::Deny) => (base, None),
            (Self::AcceptEdits, Behavior::Ask) if facts.edits => {
                (Behavior::Allow, Some("accept_edits_auto_allowed_edit_approval"))
            }
            (Self::BypassPermissions, Behavior::Ask) => {
                (Behavior::Allow, Some("bypass_permissions_auto_allowed_approval"))
            }
            (Self::Plan, _) if facts.plan_safe => (base, Some("plan_mode_allowed_read_only_or_coordination_tool")),
            (Self::Plan, _) => (Behavior::Deny, Some("plan_mode_denied_non_whitelisted_tool")),
            (Self::DontAsk, Behavior::Ask) => (Behavior::Deny, Some(DONT_ASK_DENIED)),
            (Self::AcceptEdits | Self::BypassPermissions | Self::DontAsk, _) => (base, None),
        }
    }
}

/// The effect of `dontAsk`.
pub(super) const DONT_ASK_DENIED: &str = "dont_ask_denied_approval";

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The mode in force for one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effective {
    /// The mode.
    pub mode: Mode,
    /// The whole daemon is in `dontAsk`: whatever the session's own mode leaves to be asked is refused.
    pub contained: bool,
}

impl Effective {
    /// The session's own mode if it has one, else the daemon's. `dontAsk` for the whole daemon is containment: no
    /// session's own mode may loosen it, and a session in `plan` keeps the stricter of both.
    pub fn of(daemon: Mode, session: Option<Mode>) -> Self {
        match (daemon, session) {
            (Mode::DontAsk, Some(Mode::Plan)) => Self { mode: Mode::Plan, contained: true },
            (Mode::DontAsk, _) => Self { mode: Mode::DontAsk, contained: true },
            (daemon, session) => Self { mode: session.unwrap_or(daemon), contained: false },
        }
    }

    pub(super) fn apply(self, base: Behavior, facts: Facts) -> (Behavior, Option<&'static str>) {
        match self.mode.apply(base, facts) {
            (Behavior::Ask, _) if self.contained => (Behavior::Deny, Some(DONT_ASK_DENIED)),
            outcome => outcome,
        }
    }
}

impl From<Mode> for Effective {
    fn from(mode: Mode) -> Self {
        Self::of(mode, None)
    }
}
