//! One event of a stream.
//! Owns: the rules that an event of the daemon obeys, and its form as a document.
//! Never: refuses a name that it does not know.

use serde::Serialize;
use serde_json::value::RawValue;

use super::exit::CliError;
use super::json_text::Document;
use crate::net::SseFrame;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Position in the journal; previews and heartbeats have none.
    pub id: Option<u64>,
    /// Its name; `message` when the server gave none.
    pub event: String,
    /// Its data lines, joined.
    pub data: String,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    event: &'a str,
    data: &'a RawValue,
}

impl Frame {
    /// Checks a frame as it came.
    ///
    /// # Errors
    /// Its id is no decimal number: such a stream could not be resumed.
    pub fn of(frame: SseFrame) -> Result<Self, CliError> {
        let id = match frame.id.as_deref() {
            None | Some("") => None,
            Some(text) => {
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                let number = digits.then(|| text.parse().ok()).flatten();
                Some(number.ok_or_else(|| CliError::Schema {
                    what: "the event stream".to_string(),
                    cause: "an event id is not a decimal number".to_string(),
                })?)
            }
        };
        let event = frame.event.filter(|name| !name.is_empty()).unwrap_or_else(|| "message".to_string());
        Ok(Self { id, event, data: frame.data })
    }

    /// The frame as a document: `{"id":"12","event":"…","data":…}`; data that is no JSON becomes a string.
    pub fn document(&self) -> Document {
        let raw = RawValue::from_string(self.data.clone())
            .or_else(|_| serde_json::value::to_raw_value(&self.data))
            .expect("a string is JSON");
        Document::of(&Line { id: self.id.map(|id| id.to_string()), event: &self.event, data: &raw })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(id: Option<&str>, event: Option<&str>, data: &str, expected: Option<&str>) {
        let frame = SseFrame { id: id.map(str::to_string), event: event.map(str::to_string), data: data.to_string() };
        let line = Frame::of(frame).ok().map(|frame| frame.document().compact());
        assert_eq!(line.as_deref(), expected);
    }

    #[test]
    fn a_frame_is_printed_with_its_data_untouched_whatever_its_name() {
        check(
            Some("12"),
            Some("new_thing"),
            "{\"z\": 1, \"a\": 2}",
            Some(r#"{"id":"12","event":"new_thing","data":{"z":1,"a":2}}"#),
        );
        check(None, None, "not json", Some(r#"{"event":"message","data":"not json"}"#));
    }

    #[test]
    fn an_id_that_is_no_number_is_an_error() {
        for id in ["x", "-1", "+1", "1 ", "18446744073709551616"] {
            check(Some(id), None, "{}", None);
        }
        check(
            Some("18446744073709551615"),
            None,
            "1",
            Some(r#"{"id":"18446744073709551615","event":"message","data":1}"#),
        );
    }
}
