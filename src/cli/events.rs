//! `events stream`.
//! Owns: the filters of the daemon's one stream.
//! Never: interprets an event.

use argh::{ArgsInfo, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::path::Path;
use super::streaming::StreamRequest;
use super::verbs::Command;

/// follow all events of the daemon as JSON lines
#[derive(FromArgs, ArgsInfo)]
pub struct Stream {
    /// only events of this session
    #[argh(option, arg_name = "id")]
    session_id: Option<String>,
    /// only events of this run
    #[argh(option, arg_name = "id")]
    run_id: Option<String>,
    /// begin behind this event; 0 begins with the oldest
    #[argh(option, arg_name = "event-id")]
    cursor: Option<u64>,
    /// end when the stream ends instead of opening it again
    #[argh(switch)]
    no_reconnect: bool,
}

impl Command for Stream {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        StreamRequest {
            path: Path::new("/v1/events/stream")
                .query("session_id", self.session_id.as_deref())
                .query("run_id", self.run_id.as_deref()),
            cursor: self.cursor,
            reconnect: !self.no_reconnect,
            may_be_text: false,
            until_end_of: None,
        }
        .run(context)
    }
}
