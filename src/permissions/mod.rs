//! Permissions: may this call of a tool go ahead, must a person be asked, or is it refused?
//! Owns: modes, rules, argument matchers, and the decision with everything its audit record says.
//! May touch: nothing outside this folder but `limits` and `hex`.
//! Never: reads a clock, a file, a socket or a random source; a decision is a function of what is handed in.
//!
//! Three steps. A matching deny of any scope wins. Else the asks and allows are weighed: an ask stands unless an allow
//! that is strictly narrower (or has the same target and a narrower scope) also matches. Only when no rule matches, the
//! tool's default speaks. The mode then bends the outcome. So a broad default never hides a rule, and adding a deny or
//! an ask never widens anything.

mod arguments;
mod command;
mod facts;
mod host;
mod mode;
mod path;
mod policy;
mod rule;

pub(crate) use command::words as command_words;
pub use facts::Facts;
pub use mode::{Behavior, Effective, Mode, UnknownMode};
pub(crate) use path::glob_matches;
pub use policy::{Origin, Policy, Question, Verdict};
pub use rule::{ArgumentMatcher, Rule, RuleError, RuleScope};
