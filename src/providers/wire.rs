//! What the wire formats have in common.
//! Owns: small readers and builders of JSON that more than one driver needs.
//! Never: knows a vendor.

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{ErrorClass, ProviderError, Retry};
use super::message::{Origin, ToolSpec};

/// A part of a stream that should have been JSON of a known shape.
pub(super) fn unreadable(what: &str) -> ProviderError {
    ProviderError::malformed(format!("the stream holds {what} that cannot be read"))
}

/// Reads `raw`, which is `what` in an error.
pub(super) fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue, what: &str) -> Result<T, ProviderError> {
    serde_json::from_str(raw.get()).map_err(|_| unreadable(what))
}

/// The value as raw JSON.
pub(super) fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("texts, numbers and raw JSON always serialise")
}

/// The value as a request body.
pub(super) fn body(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts, numbers and raw JSON always serialise")
}

/// The same JSON without line ends, which would break a journal line. Inside strings JSON has none, so only
/// blanks between tokens change.
pub(super) fn on_one_line(raw: &RawValue) -> Box<RawValue> {
    if !raw.get().contains(['\n', '\r']) {
        return raw.to_owned();
    }
    let text = raw.get().replace(['\n', '\r'], " ");
    RawValue::from_string(text).expect("JSON with other blanks is JSON")
}

/// `data:<type>;base64,…`.
pub(super) fn data_url(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", base64(bytes))
}

/// Standard base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// A tool's input schema as JSON.
///
/// # Errors
/// It is none.
pub(super) fn schema_of(tool: &ToolSpec) -> Result<&RawValue, ProviderError> {
    serde_json::from_str(&tool.input_schema).map_err(|error| {
        let message = format!("the input schema of tool {} is no JSON: {error}", tool.name);
        ProviderError::new(ErrorClass::InvalidRequest, Retry::Never, "tool_schema_invalid", message)
    })
}

/// Whether raw items of `origin` may go to this route and model.
pub(super) fn may_replay(items: &[Box<RawValue>], origin: &Origin, route: &str, model: &str) -> bool {
    !items.is_empty() && origin.route == route && origin.model == model
}

/// Arguments for an API that wants an object: what the model wrote if it is one, else an empty object.
pub(super) fn object_or_empty(arguments: &str) -> Cow<'_, RawValue> {
    let is_object = arguments.trim_start().starts_with('{');
    match serde_json::from_str::<&RawValue>(arguments) {
        Ok(raw) if is_object => Cow::Borrowed(raw),
        _ => Cow::Owned(RawValue::from_string("{}".to_string()).expect("an empty object is JSON")),
    }
}

/// Starts the ids that stand in for those that a server left out.
const SYNTHETIC_ID: &str = "call_local_";

/// An id for the call `number` of a turn, whose `seed` tells it from other turns.
pub(super) fn synthetic_call_id(seed: &str, number: usize) -> String {
    format!("{SYNTHETIC_ID}{seed}_{number}")
}

/// The id, unless it is ours and would mean nothing to the vendor.
pub(super) fn vendor_call_id(call_id: &str) -> Option<&str> {
    (!call_id.starts_with(SYNTHETIC_ID)).then_some(call_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_passes_as_arguments_and_keeps_its_digits() {
        for (arguments, expected) in [
            (" {\"a\": 1.50}", "{\"a\": 1.50}"),
            ("{}", "{}"),
            ("", "{}"),
            ("[1]", "{}"),
            ("{\"a\":", "{}"),
            ("null", "{}"),
        ] {
            assert_eq!(object_or_empty(arguments).get(), expected, "{arguments}");
        }
        assert_eq!(vendor_call_id(&synthetic_call_id("ab", 1)), None);
        assert_eq!(vendor_call_id("call_1"), Some("call_1"));
    }
}
