//! Model providers: the routes file, the neutral transcript, and one attempt of one model turn.
//! Owns: wire formats, their errors as one set of classes, and the decision whether a failure is worth a retry.
//! May touch: the network through `net` only.
//! Never: stores anything, waits between attempts, or resolves a credential; the engine does these.

mod anthropic;
mod anthropic_models;
mod anthropic_stream;
mod chat;
mod chat_stream;
mod drift;
mod driver;
mod error;
mod exchange;
mod google;
mod google_stream;
mod message;
mod openai;
mod openai_stream;
mod options;
mod retry;
mod routes;
mod routes_file;
mod routes_rules;
mod schema;
mod stream;
mod wire;

pub(crate) use anthropic_stream::TEXT_SEPARATOR;
pub use drift::{Drift, DriftState, RoutesWatch};
pub use driver::Driver;
pub use error::{ErrorClass, ProviderError, Retry};
pub use exchange::{Attempt, Exchange, PreparedTurn, Turn, run_turn};
pub use message::{
    Effort, InputPart, Message, Origin, OutputSchema, Reasoning, Stop, ToolCall, ToolChoice, ToolResult, ToolSpec,
    TurnEvent, TurnOptions, TurnOutcome, TurnRequest, Usage,
};
pub use options::{
    Expected, GenerationOptions, PreparedSchema, ReasoningOption, ResponseFormat, Stage, Summary, ToolChoiceOption,
};
pub(crate) use retry::hint_ms as retry_hint_ms;
pub use retry::retry_delay_ms;
pub use routes::{
    Capabilities, Diagnostic, ModelSupport, Route, RouteCredential, Routes, RoutesError, RoutesSource, Severity,
};
pub(crate) use routes_file::nearest;
pub use stream::StreamReader;
