//! The events of an Anthropic Messages stream, folded into one outcome.
//! Owns: the assembling of content blocks, and the condition of success: `message_stop` after a stop reason.
//! Never: alters a signature or redacted data; fields that it does not know go back as they came.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::limits::PROVIDER_ITEMS_MAX;

use super::error::{self, ErrorClass, ProviderError, Retry, VendorError};
use super::message::{Stop, ToolCall, TurnEvent, TurnOutcome, Usage};
use super::stream::{Collect, OnEvent};
use super::wire::{self, on_one_line, read, unreadable};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content_block: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MessageStart<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    usage: Option<Value>,
}

#[derive(Deserialize)]
struct BlockDelta<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    partial_json: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    thinking: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    signature: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    citation: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MessageDelta<'a> {
    #[serde(borrow, default)]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(default)]
    stop_details: Option<Value>,
}

/// One block: its fields as they came with the start, and what the deltas added.
#[derive(Default)]
struct OpenBlock {
    kind: String,
    fields: BTreeMap<String, Box<RawValue>>,
    text: String,
    signature: Option<String>,
    citations: Vec<Box<RawValue>>,
}

/// What has come so far.
#[derive(Default)]
pub(super) struct MessagesCollector {
    started: bool,
    id: Option<String>,
    blocks: BTreeMap<u64, OpenBlock>,
    /// The block whose text was shown last.
    shown: Option<u64>,
    stop_reason: Option<String>,
    stop_details: Option<Value>,
    /// The figures by name, each as told last.
    usage: BTreeMap<&'static str, u64>,
}

/// Pointer of each figure in a usage object.
const FIGURES: [&str; 5] = [
    "/input_tokens",
    "/cache_creation_input_tokens",
    "/cache_read_input_tokens",
    "/output_tokens",
    "/output_tokens_details/thinking_tokens",
];

impl Collect for MessagesCollector {
    fn frame(&mut self, data: &str, on_event: OnEvent<'_>) -> Result<Option<TurnOutcome>, ProviderError> {
        if data.trim().is_empty() {
            return Ok(None);
        }
        let event: Event<'_> = serde_json::from_str(data).map_err(|_| unreadable("an event"))?;
        let kind = event.kind.and_then(|kind| serde_json::from_str::<Cow<'_, str>>(kind.get()).ok());
        if !std::mem::replace(&mut self.started, true) {
            on_event(TurnEvent::Started);
        }
        match kind.as_deref() {
            Some("message_start") => {
                let message: MessageStart<'_> = read(event.message.ok_or_else(|| unreadable("a start"))?, "a start")?;
                self.id = message.id.map(Cow::into_owned);
                self.count(message.usage.as_ref());
            }
            Some("content_block_start") => self.open(&event, on_event)?,
            Some("content_block_delta") => self.delta(&event, on_event)?,
            Some("message_delta") => {
                if let Some(raw) = event.delta {
                    let delta: MessageDelta<'_> = read(raw, "a message delta")?;
                    if let Some(reason) = delta.stop_reason {
                        self.stop_reason = Some(reason.into_owned());
                    }
                    self.stop_details = delta.stop_details.or(self.stop_details.take());
                }
                let usage: Option<Value> = event.usage.and_then(|raw| serde_json::from_str(raw.get()).ok());
                self.count(usage.as_ref());
            }
            Some("message_stop") => return self.finish().map(Some),
            Some("error") => return Err(stream_error(event.error)),
            None if event.error.is_some() => return Err(stream_error(event.error)),
            _ => {}
        }
        Ok(None)
    }
}

fn stream_error(error: Option<&RawValue>) -> ProviderError {
    let value: Value = error.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    error::from_stream(&VendorError::from_value(&value))
}

fn index_of(event: &Event<'_>) -> Result<u64, ProviderError> {
    event.index.and_then(|raw| serde_json::from_str(raw.get()).ok()).ok_or_else(|| unreadable("an index"))
}

impl MessagesCollector {
    /// Figures that are not told again keep their value.
    fn count(&mut self, usage: Option<&Value>) {
        for name in FIGURES {
            if let Some(value) = usage.and_then(|usage| usage.pointer(name)).and_then(Value::as_u64) {
                self.usage.insert(name, value);
            }
        }
    }

    fn open(&mut self, event: &Event<'_>, on_event: OnEvent<'_>) -> Result<(), ProviderError> {
        let index = index_of(event)?;
        let raw = event.content_block.ok_or_else(|| unreadable("a content block"))?;
        let fields: BTreeMap<String, Box<RawValue>> = read(raw, "a content block")?;
        let text_of = |name: &str| -> Option<String> { serde_json::from_str(fields.get(name)?.get()).ok() };
        let kind = text_of("type").unwrap_or_default();
        let mut block = OpenBlock { kind, ..OpenBlock::default() };
        match block.kind.as_str() {
            "text" => block.text = text_of("text").unwrap_or_default(),
            "thinking" => {
                block.text = text_of("thinking").unwrap_or_default();
                block.signature = text_of("signature").filter(|signature| !signature.is_empty());
            }
            _ => {}
        }
        if block.kind == "text" {
            show(&mut self.shown, index, &block.text, on_event);
        }
        block.fields = fields;
        self.blocks.insert(index, block);
        if self.blocks.len() > PROVIDER_ITEMS_MAX {
            let error = ProviderError::malformed(format!("the answer has over {PROVIDER_ITEMS_MAX} blocks"));
            return Err(ProviderError { retry: Retry::Never, ..error });
        }
        Ok(())
    }

    fn delta(&mut self, event: &Event<'_>, on_event: OnEvent<'_>) -> Result<(), ProviderError> {
        let index = index_of(event)?;
        let delta: BlockDelta<'_> = read(event.delta.ok_or_else(|| unreadable("a delta"))?, "a delta")?;
        let block = self.blocks.get_mut(&index).ok_or_else(|| unreadable("a delta of no block"))?;
        match &*delta.kind {
            "text_delta" => {
                let text = delta.text.ok_or_else(|| unreadable("a text delta"))?;
                block.text.push_str(&text);
                show(&mut self.shown, index, &text, on_event);
            }
            "input_json_delta" => block.text.push_str(&delta.partial_json.unwrap_or_default()),
            "thinking_delta" => {
                let text = delta.thinking.unwrap_or_default();
                block.text.push_str(&text);
                if !text.is_empty() {
                    on_event(TurnEvent::ReasoningDelta(&text));
                }
            }
            "signature_delta" => block.signature = delta.signature.map(Cow::into_owned),
            "citations_delta" => block.citations.extend(delta.citation.map(on_one_line)),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<TurnOutcome, ProviderError> {
        let Some(reason) = self.stop_reason.take() else { return Err(ProviderError::truncated()) };
        let mut texts = Vec::new();
        let (mut items, mut tool_calls) = (Vec::new(), Vec::new());
        for block in std::mem::take(&mut self.blocks).into_values() {
            if block.kind == "text" && !block.text.is_empty() {
                texts.push(block.text.clone());
            }
            if block.kind == "tool_use" {
                tool_calls.push(block.tool_call());
            }
            // The vendor refuses blank texts, its own among them.
            if block.kind != "text" || !block.text.trim().is_empty() {
                items.push(block.into_item());
            }
        }
        let text = texts.join(TEXT_SEPARATOR);
        let stop = match reason.as_str() {
            // Without a block there is nothing that another request could end with.
            "pause_turn" if tool_calls.is_empty() && !items.is_empty() => Stop::Pause,
            "pause_turn" if tool_calls.is_empty() => Stop::Length,
            "max_tokens" | "model_context_window_exceeded" => Stop::Length,
            "refusal" if text.is_empty() => return Err(self.refusal()),
            "refusal" => Stop::Refusal,
            _ if !tool_calls.is_empty() => Stop::ToolCalls,
            _ => Stop::Done,
        };
        Ok(TurnOutcome { text, items, tool_calls, usage: self.usage(), stop, response_id: self.id.take() })
    }

    /// A refusal without a word of its own.
    fn refusal(&self) -> ProviderError {
        let category = self.stop_details.as_ref().and_then(|it| it.get("category")).and_then(Value::as_str);
        let known = ["cyber", "bio", "frontier_llm", "reasoning_extraction", "general_harms"];
        let category = known.into_iter().find(|known| Some(*known) == category);
        let message = match category {
            Some(category) => format!("the model declined to answer (category {category})"),
            None => "the model declined to answer".to_string(),
        };
        ProviderError::new(ErrorClass::ContentFilter, Retry::Never, "refusal", message)
    }

    /// The three kinds of input are disjoint here, unlike elsewhere.
    fn usage(&self) -> Option<Usage> {
        let at = |index: usize| self.usage.get(FIGURES[index]).copied().unwrap_or(0);
        (!self.usage.is_empty()).then(|| Usage {
            input_tokens: at(0).saturating_add(at(1)).saturating_add(at(2)),
            cached_input_tokens: at(2),
            cache_write_tokens: at(1),
            output_tokens: at(3),
            reasoning_tokens: at(4),
        })
    }
}

/// Between two texts of one answer.
pub(crate) const TEXT_SEPARATOR: &str = "\n\n";

/// Shows more text of a block, apart from the text of another.
fn show(shown: &mut Option<u64>, index: u64, text: &str, on_event: OnEvent<'_>) {
    if text.is_empty() {
        return;
    }
    if shown.replace(index).is_some_and(|last| last != index) {
        on_event(TurnEvent::TextDelta(TEXT_SEPARATOR));
    }
    on_event(TurnEvent::TextDelta(text));
}

impl OpenBlock {
    fn field(&self, name: &str) -> String {
        self.fields.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    /// The call's arguments: what the deltas spelled, else what stood in the start, else nothing.
    fn arguments(&self) -> String {
        if self.text.trim().is_empty() {
            return self.fields.get("input").map_or("{}", |raw| raw.get()).to_string();
        }
        self.text.clone()
    }

    fn tool_call(&self) -> ToolCall {
        ToolCall { call_id: self.field("id"), name: self.field("name"), arguments: self.arguments() }
    }

    /// The block as it is to be sent back.
    fn into_item(mut self) -> Box<RawValue> {
        match self.kind.as_str() {
            "text" => {
                self.fields.insert("text".to_string(), wire::raw(&self.text));
                if !self.citations.is_empty() {
                    self.fields.insert("citations".to_string(), wire::raw(&self.citations));
                }
            }
            "thinking" => {
                self.fields.insert("thinking".to_string(), wire::raw(&self.text));
                if let Some(signature) = &self.signature {
                    self.fields.insert("signature".to_string(), wire::raw(signature));
                }
            }
            _ if self.fields.contains_key("input") => {
                // What is no object cannot be sent back; the result says that the call was not understood.
                let input = wire::object_or_empty(&self.arguments()).into_owned();
                self.fields.insert("input".to_string(), on_one_line(&input));
            }
            _ => {}
        }
        on_one_line(&wire::raw(&self.fields))
    }
}

#[cfg(test)]
mod tests;
