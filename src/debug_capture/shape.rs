//! From an exchange to what a level keeps of it.
//! Owns: digests, redaction, shortening and the bound of one artifact.
//! Never: lets a text through that did not pass the redactor and the patterns.

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::patterns;
use crate::broker::REDACTED;
use crate::core::DebugLevel;
use crate::hex::to_hex;
use crate::limits::{DEBUG_MEDIA_BYTES_MIN, DEBUG_PREVIEW_BYTES};

/// What is kept.
pub(super) struct Shaped {
    pub(super) body: Vec<u8>,
    pub(super) format: &'static str,
    /// Bytes before it was cut, if it was.
    pub(super) original_bytes: Option<u64>,
}

/// What `level` keeps of `bytes`, in at most `bytes_max` bytes.
pub(super) fn shape(level: DebugLevel, bytes: &[u8], bytes_max: u64, redact: &dyn Fn(&str) -> String) -> Shaped {
    let parsed = serde_json::from_slice::<Value>(bytes).ok();
    let (body, format) = match (level, parsed) {
        (DebugLevel::Off | DebugLevel::On, parsed) => (outline(bytes, parsed.as_ref()), "json"),
        (_, Some(value)) => {
            let cleaner = Cleaner { redact, preview: level == DebugLevel::Redacted };
            (serde_json::to_vec(&cleaner.value(value)).unwrap_or_default(), "json")
        }
        (_, None) => {
            let cleaner = Cleaner { redact, preview: level == DebugLevel::Redacted };
            (cleaner.text(&String::from_utf8_lossy(bytes)).into_bytes(), "text")
        }
    };
    cut(body, format, usize::try_from(bytes_max).unwrap_or(usize::MAX))
}

/// Digest and size alone.
fn outline(bytes: &[u8], parsed: Option<&Value>) -> Vec<u8> {
    let kind = match parsed {
        None => "none",
        Some(Value::Object(_)) => "object",
        Some(Value::Array(_)) => "array",
        Some(_) => "value",
    };
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + usize::from(!bytes.is_empty());
    let sha256 = to_hex(digest(&SHA256, bytes).as_ref());
    let outline = json!({"bytes": bytes.len(), "json": kind, "lines": lines, "sha256": sha256});
    serde_json::to_vec(&outline).unwrap_or_default()
}

/// An artifact that is too large becomes an object that says so, with its beginning.
fn cut(body: Vec<u8>, format: &'static str, bytes_max: usize) -> Shaped {
    if body.len() <= bytes_max {
        return Shaped { body, format, original_bytes: None };
    }
    let original_bytes = Some(body.len() as u64);
    let text = String::from_utf8_lossy(&body);
    // Escapes may double the text; a second try always fits.
    for budget in [bytes_max.saturating_sub(256), bytes_max.saturating_sub(256) / 8] {
        let end = (0..=budget.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let short = json!({"truncated": true, "original_bytes": body.len(), "beginning": &text[..end]});
        let short = serde_json::to_vec(&short).unwrap_or_default();
        if short.len() <= bytes_max {
            return Shaped { body: short, format: "json", original_bytes };
        }
    }
    Shaped { body: br#"{"truncated":true}"#.to_vec(), format: "json", original_bytes }
}

struct Cleaner<'a> {
    redact: &'a dyn Fn(&str) -> String,
    /// Long texts are cut.
    preview: bool,
}

impl Cleaner<'_> {
    fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => self.string(text),
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.value(item)).collect()),
            Value::Object(members) => Value::Object(self.members(members)),
            other => other,
        }
    }

    fn members(&self, members: Map<String, Value>) -> Map<String, Value> {
        let cleaned = members.into_iter().map(|(name, value)| {
            let value = match value {
                Value::String(_) if patterns::is_secret_name(&name) => Value::String(REDACTED.to_string()),
                value => self.value(value),
            };
            (self.clean(&name), value)
        });
        cleaned.collect()
    }

    fn string(&self, text: String) -> Value {
        if let Some(media) = media(&text) {
            return media;
        }
        // Arguments of tools are JSON in a string.
        if text.starts_with(['{', '['])
            && let Ok(inner) = serde_json::from_str::<Value>(&text)
        {
            let cleaned = serde_json::to_string(&self.value(inner)).unwrap_or_default();
            return Value::String(self.shortened(cleaned));
        }
        Value::String(self.text(&text))
    }

    fn text(&self, text: &str) -> String {
        self.shortened(self.clean(text))
    }

    fn clean(&self, text: &str) -> String {
        patterns::redact(&(self.redact)(text))
    }

    fn shortened(&self, text: String) -> String {
        if !self.preview || text.len() <= DEBUG_PREVIEW_BYTES {
            return text;
        }
        let end = (0..=DEBUG_PREVIEW_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        format!("{}… [{} bytes cut]", &text[..end], text.len() - end)
    }
}

/// What stands for pictures, sounds and documents.
fn media(text: &str) -> Option<Value> {
    let (media_type, encoded) = match text.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
        Some((media_type, encoded)) => (Some(media_type), encoded),
        None => (None, text),
    };
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    let is_media = encoded.len() >= DEBUG_MEDIA_BYTES_MIN && encoded.bytes().all(is_base64);
    is_media.then(|| {
        let sha256 = to_hex(digest(&SHA256, encoded.as_bytes()).as_ref());
        json!({"redacted": true, "media_type": media_type, "encoded_chars": encoded.len(), "encoded_sha256": sha256})
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(text: &str) -> String {
        text.replace("hunter2-hunter2", REDACTED)
    }

    fn shaped(level: DebugLevel, text: &str) -> String {
        let shaped = shape(level, text.as_bytes(), 100_000, &redact);
        String::from_utf8(shaped.body).expect("UTF-8")
    }

    #[test]
    fn each_level_keeps_what_it_says() {
        let long = "words ".repeat(100);
        let exchange = json!({
            "model": "m",
            "messages": [{"role": "user", "content": format!("my key is hunter2-hunter2, {long}")}],
            "api_key": "short",
            "hunter2-hunter2": 1,
            "max_output_tokens": 5,
            "tool": {"arguments": "{\"password\":\"x\",\"path\":\"a\"}"},
        })
        .to_string();
        let on = shaped(DebugLevel::On, &exchange);
        assert!(on.contains(r#""json":"object""#) && on.contains("sha256") && !on.contains("model"), "{on}");
        let redacted = shaped(DebugLevel::Redacted, &exchange);
        let full = shaped(DebugLevel::Full, &exchange);
        for text in [&redacted, &full] {
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains(r#""api_key":"<redacted>""#) && text.contains(r#""max_output_tokens":5"#), "{text}");
            assert!(text.contains(r#"{\"password\":\"<redacted>\",\"path\":\"a\"}"#), "{text}");
        }
        assert!(full.contains(long.trim()), "{full}");
        assert!(redacted.contains("bytes cut]") && !redacted.contains(long.trim()), "{redacted}");
    }

    #[test]
    fn text_that_is_no_json_is_cleaned_too() {
        let text = "a hunter2-hunter2 b\nAuthorization: Bearer abcdefgh12345\n\u{fffd}";
        for level in [DebugLevel::Redacted, DebugLevel::Full] {
            assert_eq!(shaped(level, text), "a <redacted> b\nAuthorization: Bearer <redacted>\n\u{fffd}");
        }
        let bytes = shape(DebugLevel::Full, b"\xff\xfehunter2-hunter2", 1_000, &redact).body;
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"));
    }

    #[test]
    fn pictures_become_a_line_about_them() {
        let picture = "iVBORw0KGgo".repeat(200);
        let text = json!({"image_url": format!("data:image/png;base64,{picture}"), "data": picture}).to_string();
        let full = shaped(DebugLevel::Full, &text);
        assert!(
            !full.contains("iVBORw0KGgo") && full.contains("image/png") && full.contains("encoded_sha256"),
            "{full}"
        );
    }

    #[test]
    fn an_artifact_never_passes_its_bound_whatever_is_in_it() {
        for text in ["x ".repeat(5_000), "\"\\\n".repeat(5_000), "ü".repeat(5_000), "\u{1}".repeat(5_000)] {
            let body = json!({ "text": text }).to_string();
            for bytes_max in [512, 1_000, 4_000] {
                let shaped = shape(DebugLevel::Full, body.as_bytes(), bytes_max, &redact);
                assert!(shaped.body.len() as u64 <= bytes_max, "{}", shaped.body.len());
                assert!(shaped.original_bytes.is_some_and(|bytes| bytes > bytes_max));
                serde_json::from_slice::<Value>(&shaped.body).expect("what stands for it is JSON");
            }
        }
    }
}
