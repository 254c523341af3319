//! From the bytes of an answer to its outcome, whatever the vendor.
//! Owns: what holds for every wire format: framing, limits, and what of an outcome may be kept.
//! Never: reads a socket; bytes come in, events and the outcome go out.

use std::collections::HashSet;

use crate::limits::{PROVIDER_FRAME_BYTES_MAX, PROVIDER_ITEMS_MAX};
use crate::net::SseParser;

use super::anthropic_stream::MessagesCollector;
use super::chat_stream::ChatCollector;
use super::driver::Driver;
use super::error::{self, ProviderError, Retry};
use super::google_stream::GoogleCollector;
use super::message::{Stop, TurnEvent, TurnOutcome};
use super::openai_stream::ResponsesCollector;

/// Where previews go.
pub(super) type OnEvent<'a> = &'a mut dyn FnMut(TurnEvent<'_>);

/// Folds the frames of one wire format.
pub(super) trait Collect: Send {
    /// Takes the data of one frame; gives the outcome at the terminal one.
    fn frame(&mut self, data: &str, on_event: OnEvent<'_>) -> Result<Option<TurnOutcome>, ProviderError>;

    /// The body has ended without a terminal frame, `clean` or by a broken connection.
    fn end(&mut self, clean: bool) -> Result<TurnOutcome, ProviderError> {
        let _all_the_same = clean;
        Err(ProviderError::truncated())
    }

    /// Whether the answer is complete and at most figures are still to come.
    fn is_settled(&self) -> bool {
        false
    }
}

/// Reads one streamed answer.
pub struct StreamReader {
    parser: SseParser,
    collector: Box<dyn Collect>,
}

impl StreamReader {
    /// A reader of what `driver`'s vendor sends. `seed` tells this turn from others, in the ids of tool calls
    /// whose vendor gave none: a few letters and digits.
    pub fn new(driver: Driver, seed: &str) -> Self {
        let collector: Box<dyn Collect> = match driver {
            Driver::Openai | Driver::Xai => Box::new(ResponsesCollector::default()),
            Driver::OpenaiCompatible | Driver::Openrouter => Box::new(ChatCollector::new(seed)),
            Driver::Anthropic => Box::new(MessagesCollector::default()),
            Driver::Google => Box::new(GoogleCollector::new(seed)),
        };
        Self { parser: SseParser::new(PROVIDER_FRAME_BYTES_MAX), collector }
    }

    /// Takes bytes as they come; gives the outcome when the answer is complete, after which nothing more is read.
    ///
    /// # Errors
    /// The vendor reports a failure, or the stream cannot be understood.
    pub fn push(
        &mut self,
        bytes: &[u8],
        on_event: &mut dyn FnMut(TurnEvent<'_>),
    ) -> Result<Option<TurnOutcome>, ProviderError> {
        self.parser.push(bytes);
        while let Some(frame) = self.parser.next_frame().map_err(|error| ProviderError::malformed(error.to_string()))? {
            if let Some(outcome) = self.collector.frame(&frame.data, on_event)? {
                return presentable(outcome).map(Some);
            }
        }
        Ok(None)
    }

    /// The body has ended, `clean` or by a broken connection.
    ///
    /// # Errors
    /// The answer was not complete; or the vendor reported a failure outside of the event stream.
    pub fn end(&mut self, clean: bool) -> Result<TurnOutcome, ProviderError> {
        match error::from_stray_text(self.parser.stray()) {
            Some(error) if !self.collector.is_settled() => Err(error),
            _ => self.collector.end(clean).and_then(presentable),
        }
    }

    /// Whether the answer is complete and at most figures are still to come.
    pub fn is_settled(&self) -> bool {
        self.collector.is_settled()
    }
}

/// An outcome that can be kept and continued.
fn presentable(mut outcome: TurnOutcome) -> Result<TurnOutcome, ProviderError> {
    if outcome.items.len() > PROVIDER_ITEMS_MAX || outcome.tool_calls.len() > PROVIDER_ITEMS_MAX {
        return Err(ProviderError {
            retry: Retry::Never,
            ..ProviderError::malformed(format!("the answer has over {PROVIDER_ITEMS_MAX} parts"))
        });
    }
    match outcome.stop {
        // A call that was cut must not run, and a call without a result, or thinking without what it led to, makes
        // the next turn fail. The text is what remains.
        Stop::Length | Stop::Refusal => {
            outcome.tool_calls.clear();
            outcome.items.clear();
        }
        Stop::Done | Stop::ToolCalls | Stop::Pause => {
            let mut seen = HashSet::new();
            if let Some(call) = outcome.tool_calls.iter().find(|call| call.name.is_empty() || call.call_id.is_empty()) {
                let what = if call.name.is_empty() { "name" } else { "id" };
                return Err(ProviderError::malformed(format!("the answer has a tool call without a {what}")));
            }
            if !outcome.tool_calls.iter().all(|call| seen.insert(call.call_id.as_str())) {
                return Err(ProviderError::malformed("the answer has two tool calls with one id"));
            }
        }
    }
    Ok(outcome)
}
