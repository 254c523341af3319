//! Model providers: the routes file, the neutral transcript, and one attempt of one model turn.
//! Owns: wire formats, their errors as one set of classes, and the decision whether a failure is worth a retry.
//! May touch: the network through `net` only.
//! Never: stores anything, waits between attempts, or resolves a credential; the engine does these.

mod error;
mod message;
mod openai;
mod openai_stream;
mod retry;
mod routes;
mod routes_file;
mod routes_rules;

pub use error::{ErrorClass, ProviderError, Retry};
pub use message::{
    InputPart, Message, Origin, Stop, ToolCall, ToolResult, ToolSpec, TurnEvent, TurnOutcome, TurnRequest, Usage,
};
pub use openai::{Attempt, Exchange, PreparedTurn, Turn, run_turn};
pub use retry::retry_delay_ms;
pub use routes::{
    Capabilities, Diagnostic, Driver, ModelSupport, Route, RouteCredential, Routes, RoutesError, RoutesSource, Severity,
};
