//! One journal line: from a draft to bytes, and from bytes to a record.
//! Owns: the line's exact spelling (docs/journal-format.md). A line has one spelling; any other is refused.
//! Never: touches a file; knows what a kind means.

use std::fmt;
use std::ops::Range;

use serde_json::value::RawValue;

use super::chain::Chain;
use crate::actor::Actor;
use crate::ids::{RunId, Seq, SessionId};
use crate::limits::JOURNAL_KIND_BYTES_MAX;

/// What is to become one line.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Position; the first draft of a batch has [`super::Journal::next_seq`], the others follow without a hole.
    pub seq: Seq,
    /// When it happened, Unix milliseconds.
    pub at_ms: u64,
    /// What happened: lower-case letters, digits, `.` and `_`.
    pub kind: &'static str,
    /// The session it belongs to.
    pub session: Option<SessionId>,
    /// The run it belongs to.
    pub run: Option<RunId>,
    /// Previous record of the same session; 0 is none.
    pub session_prev: Seq,
    /// Previous record of the same run; 0 is none.
    pub run_prev: Seq,
    /// The run's `run.accepted` record; 0 is none.
    pub run_first: Seq,
    /// The API caller on whose behalf it was committed.
    pub by: Option<Actor>,
    /// One JSON object. Line breaks between its tokens are written as blanks.
    pub body: Vec<u8>,
}

/// A record borrowed from the bytes it was read from.
#[derive(Debug)]
pub struct RecordRef<'a> {
    /// Position.
    pub seq: Seq,
    /// When it happened, Unix milliseconds.
    pub at_ms: u64,
    /// What happened.
    pub kind: &'a str,
    /// The session it belongs to.
    pub session: Option<SessionId>,
    /// The run it belongs to.
    pub run: Option<RunId>,
    /// Previous record of the same session; 0 is none.
    pub session_prev: Seq,
    /// Previous record of the same run; 0 is none.
    pub run_prev: Seq,
    /// The run's `run.accepted` record; 0 is none.
    pub run_first: Seq,
    /// The API caller on whose behalf it was committed.
    pub by: Option<Actor>,
    /// One JSON object.
    pub body: &'a RawValue,
    /// On the first line of a batch: the batch's number and its count of lines.
    pub batch: Option<(u64, u32)>,
}

/// A record that owns its bytes.
#[derive(Debug, Clone)]
pub struct Record {
    /// Position.
    pub seq: Seq,
    /// When it happened, Unix milliseconds.
    pub at_ms: u64,
    /// What happened.
    pub kind: String,
    /// The session it belongs to.
    pub session: Option<SessionId>,
    /// The run it belongs to.
    pub run: Option<RunId>,
    /// Previous record of the same session; 0 is none.
    pub session_prev: Seq,
    /// Previous record of the same run; 0 is none.
    pub run_prev: Seq,
    /// The run's `run.accepted` record; 0 is none.
    pub run_first: Seq,
    /// The API caller on whose behalf it was committed.
    pub by: Option<Actor>,
    /// One JSON object.
    pub body: Box<RawValue>,
    /// On the first line of a batch: the batch's number and its count of lines.
    pub batch: Option<(u64, u32)>,
}

impl RecordRef<'_> {
    /// A copy that owns its bytes.
    pub fn to_record(&self) -> Record {
        Record {
            seq: self.seq,
            at_ms: self.at_ms,
            kind: self.kind.to_string(),
            session: self.session.clone(),
            run: self.run,
            session_prev: self.session_prev,
            run_prev: self.run_prev,
            run_first: self.run_first,
            by: self.by.clone(),
            body: self.body.to_owned(),
            batch: self.batch,
        }
    }
}

/// Bytes behind the covered part of a line: `,"chain":"` + 64 digits + `"}` + line feed.
const TAIL_BYTES: usize = CHAIN_LABEL.len() + 64 + TAIL_END.len();
const CHAIN_LABEL: &[u8] = b",\"chain\":\"";
const TAIL_END: &[u8] = b"\"}\n";

/// Appends one line to `buffer` and returns its chain value. `batch` is given for the first line of a batch.
///
/// # Panics
/// The kind or body breaks the rules of [`Draft`]: a line that could not be read back must never be written.
pub(super) fn encode(buffer: &mut Vec<u8>, draft: &Draft, batch: Option<(u64, u32)>, previous: Chain) -> Chain {
    assert!(is_kind(draft.kind.as_bytes()), "record kind {:?} breaks the rules", draft.kind);
    let is_object = draft.body.first() == Some(&b'{') && draft.body.last() == Some(&b'}');
    assert!(is_object, "the body of {} is not a JSON object", draft.kind);
    // Bodies come from a serialiser or are raw values that were parsed; reading each again would double its cost.
    debug_assert!(serde_json::from_slice::<&RawValue>(&draft.body).is_ok(), "the body of {} is not JSON", draft.kind);
    let start = buffer.len();
    number(buffer, b"{\"seq\":", draft.seq);
    number(buffer, b",\"at_ms\":", draft.at_ms);
    buffer.extend_from_slice(b",\"kind\":\"");
    buffer.extend_from_slice(draft.kind.as_bytes());
    buffer.push(b'"');
    if let Some(session) = &draft.session {
        buffer.extend_from_slice(b",\"session\":\"");
        for byte in session.as_str().bytes() {
            // The only byte of a session id that JSON escapes; control characters and '\' are not allowed in one.
            if byte == b'"' {
                buffer.push(b'\\');
            }
            buffer.push(byte);
        }
        buffer.push(b'"');
    }
    if let Some(run) = draft.run {
        number(buffer, b",\"run\":\"run-", u64::from(run.number));
        if run.epoch != 0 {
            number(buffer, b"-", u64::from(run.epoch));
        }
        buffer.push(b'"');
    }
    let links = [(LINKS[0], draft.session_prev), (LINKS[1], draft.run_prev), (LINKS[2], draft.run_first)];
    for (label, seq) in links {
        if seq != 0 {
            number(buffer, label.as_bytes(), seq);
        }
    }
    if let Some((batch, count)) = batch {
        number(buffer, b",\"batch\":[", batch);
        number(buffer, b",", u64::from(count));
        buffer.push(b']');
    }
    if let Some(by) = &draft.by {
        buffer.extend_from_slice(BY);
        by.write_json(buffer);
    }
    buffer.extend_from_slice(b",\"body\":");
    let body = buffer.len();
    buffer.extend_from_slice(&draft.body);
    if draft.body.contains(&b'\n') || draft.body.contains(&b'\r') {
        // JSON allows raw line breaks between tokens only, where a blank means the same.
        buffer[body..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    }
    let chain = previous.next(&buffer[start..]);
    buffer.extend_from_slice(CHAIN_LABEL);
    buffer.extend_from_slice(&chain.hex());
    buffer.extend_from_slice(TAIL_END);
    chain
}

const BY: &[u8] = b",\"by\":";
const LINKS: [&str; 3] = [",\"session_prev\":", ",\"run_prev\":", ",\"run_first\":"];

fn is_kind(kind: &[u8]) -> bool {
    let legal = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_');
    !kind.is_empty() && kind.len() <= JOURNAL_KIND_BYTES_MAX && kind.iter().all(legal)
}

/// Appends `label` and a decimal number.
fn number(buffer: &mut Vec<u8>, label: &[u8], mut value: u64) {
    buffer.extend_from_slice(label);
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    buffer.extend_from_slice(&digits[at..]);
}

/// Why bytes are no journal line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineError(pub String);

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A line's envelope, with its variable parts as ranges, so that it outlives a move of the bytes.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub seq: Seq,
    pub at_ms: u64,
    pub batch: Option<(u64, u32)>,
    kind: Range<usize>,
    session: Option<SessionId>,
    run: Option<RunId>,
    session_prev: Seq,
    run_prev: Seq,
    run_first: Seq,
    by: Option<Actor>,
    body: Range<usize>,
    covered: usize,
    chain: Range<usize>,
}

impl Line {
    /// Reads one line, line feed included. The body is not looked into here.
    pub fn parse(bytes: &[u8]) -> Result<Self, LineError> {
        let covered = bytes.len().checked_sub(TAIL_BYTES).ok_or_else(|| error("the line is cut short"))?;
        let tail = &bytes[covered..];
        if !tail.starts_with(CHAIN_LABEL) || !tail.ends_with(TAIL_END) {
            return Err(error("the line does not end with its chain value"));
        }
        let mut cursor = Cursor { bytes: &bytes[..covered], at: 0 };
        cursor.expect(b"{\"seq\":")?;
        let seq = cursor.number()?;
        cursor.expect(b",\"at_ms\":")?;
        let at_ms = cursor.number()?;
        cursor.expect(b",\"kind\":\"")?;
        let kind = cursor.until_quote()?;
        if !is_kind(&bytes[kind.clone()]) {
            return Err(error("the kind has characters that no kind has"));
        }
        let session = match cursor.skip(b",\"session\":\"") {
            true => Some(session_id(&bytes[cursor.until_quote()?])?),
            false => None,
        };
        let run = match cursor.skip(b",\"run\":\"") {
            true => Some(run_id(&bytes[cursor.until_quote()?])?),
            false => None,
        };
        let mut links = [0; 3];
        for (link, label) in links.iter_mut().zip(LINKS) {
            if cursor.skip(label.as_bytes()) {
                *link = cursor.number()?;
            }
        }
        let batch = match cursor.skip(b",\"batch\":[") {
            true => Some(cursor.batch()?),
            false => None,
        };
        let by = match cursor.skip(BY) {
            true => Some(cursor.actor()?),
            false => None,
        };
        cursor.expect(b",\"body\":")?;
        let body = cursor.at..covered;
        let chain = covered + CHAIN_LABEL.len()..bytes.len() - TAIL_END.len();
        let [session_prev, run_prev, run_first] = links;
        Ok(Self { seq, at_ms, batch, kind, session, run, session_prev, run_prev, run_first, by, body, covered, chain })
    }

    /// The chain value that follows `previous`, if the line carries exactly that one.
    pub fn follows(&self, bytes: &[u8], previous: Chain) -> Option<Chain> {
        let chain = previous.next(&bytes[..self.covered]);
        (chain.hex() == bytes[self.chain.clone()]).then_some(chain)
    }

    /// The chain value as written.
    pub fn chain(&self, bytes: &[u8]) -> Option<Chain> {
        Chain::parse(&bytes[self.chain.clone()])
    }

    /// The record; `bytes` are those that the line was parsed from.
    pub fn record<'a>(&self, bytes: &'a [u8]) -> Result<RecordRef<'a>, LineError> {
        let text = |range: &Range<usize>| {
            std::str::from_utf8(&bytes[range.clone()]).map_err(|_| error("the line is not UTF-8"))
        };
        let body = text(&self.body)?;
        if !body.starts_with('{') || !body.ends_with('}') {
            return Err(error("the body is not an object"));
        }
        let body = serde_json::from_str(body).map_err(|cause| error(format!("the body is not JSON: {cause}")))?;
        Ok(RecordRef {
            seq: self.seq,
            at_ms: self.at_ms,
            kind: text(&self.kind)?,
            session: self.session.clone(),
            run: self.run,
            session_prev: self.session_prev,
            run_prev: self.run_prev,
            run_first: self.run_first,
            by: self.by.clone(),
            body,
            batch: self.batch,
        })
    }
}

fn error(cause: impl Into<String>) -> LineError {
    LineError(cause.into())
}

fn session_id(raw: &[u8]) -> Result<SessionId, LineError> {
    let raw = std::str::from_utf8(raw).map_err(|_| error("the session id is not UTF-8"))?;
    let parsed = match raw.contains('\\') {
        // `\"` is the one escape that is written; what else may follow a backslash is no session id.
        true => SessionId::parse(&raw.replace("\\\"", "\"")),
        false => SessionId::parse(raw),
    };
    parsed.map_err(|cause| error(cause.to_string()))
}

fn run_id(raw: &[u8]) -> Result<RunId, LineError> {
    std::str::from_utf8(raw).ok().and_then(RunId::parse).ok_or_else(|| error("the run id is none"))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn skip(&mut self, label: &[u8]) -> bool {
        let matches = self.bytes[self.at..].starts_with(label);
        if matches {
            self.at += label.len();
        }
        matches
    }

    fn expect(&mut self, label: &[u8]) -> Result<(), LineError> {
        if self.skip(label) {
            return Ok(());
        }
        Err(error(format!("expected {} at byte {} of the line", String::from_utf8_lossy(label), self.at)))
    }

    fn number(&mut self) -> Result<u64, LineError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let canonical = length == 1 || (length > 1 && rest[0] != b'0');
        let mut value = 0u64;
        for digit in &rest[..length] {
            let next = value.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit - b'0')));
            value = next.ok_or_else(|| error(format!("the number at byte {} of the line is too large", self.at)))?;
        }
        if !canonical {
            return Err(error(format!("expected a number at byte {} of the line", self.at)));
        }
        self.at += length;
        Ok(value)
    }

    /// The bytes up to the closing quote, which is consumed.
    fn until_quote(&mut self) -> Result<Range<usize>, LineError> {
        let start = self.at;
        let mut at = start;
        while let Some(byte) = self.bytes.get(at) {
            match byte {
                b'"' => {
                    self.at = at + 1;
                    return Ok(start..at);
                }
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        Err(error(format!("the text at byte {start} of the line has no end")))
    }

    fn actor(&mut self) -> Result<Actor, LineError> {
        let (actor, length) = Actor::read_json(&self.bytes[self.at..])
            .ok_or_else(|| error(format!("the caller at byte {} of the line is not as documented", self.at)))?;
        self.at += length;
        Ok(actor)
    }

    fn batch(&mut self) -> Result<(u64, u32), LineError> {
        let batch = self.number()?;
        self.expect(b",")?;
        let count = u32::try_from(self.number()?).map_err(|_| error("the batch has too many lines"))?;
        self.expect(b"]")?;
        if count == 0 {
            return Err(error("the batch has no lines"));
        }
        Ok((batch, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::ActorRole;

    fn draft() -> Draft {
        Draft {
            seq: 7,
            at_ms: 1,
            kind: "run.accepted",
            session: Some(SessionId::parse("a\"b é").unwrap()),
            run: RunId::parse("run-3-9"),
            session_prev: 5,
            run_prev: 6,
            run_first: 4,
            by: Some(Actor::new(ActorRole::Admin, Some([1; 4]), "127.0.0.1:9".parse().ok(), "r-1")),
            body: b"{\"a\":\n1}".to_vec(),
        }
    }

    fn round_trip(draft: &Draft, batch: Option<(u64, u32)>) -> (Vec<u8>, Record) {
        let mut bytes = Vec::new();
        let chain = encode(&mut bytes, draft, batch, Chain::START);
        let line = Line::parse(&bytes).unwrap();
        assert_eq!(line.follows(&bytes, Chain::START), Some(chain));
        let record = line.record(&bytes).unwrap().to_record();
        (bytes, record)
    }

    #[test]
    fn a_line_has_exactly_the_documented_bytes() {
        let (bytes, _) = round_trip(&draft(), Some((2, 3)));
        let text = String::from_utf8(bytes).unwrap();
        let (covered, tail) = text.split_at(text.len() - TAIL_BYTES);
        assert_eq!(
            covered,
            "{\"seq\":7,\"at_ms\":1,\"kind\":\"run.accepted\",\"session\":\"a\\\"b é\",\"run\":\"run-3-9\",\
             \"session_prev\":5,\"run_prev\":6,\"run_first\":4,\"batch\":[2,3],\"by\":{\"role\":\"admin\",\"token\":\"01010101\",\"peer\":\"127.0.0.1:9\",\
             \"request_id\":\"r-1\"},\"body\":{\"a\": 1}"
        );
        assert_eq!(tail, format!(",\"chain\":\"{}\"}}\n", Chain::START.next(covered.as_bytes())));
        let whole: serde_json::Value = serde_json::from_str(&text).expect("a line is one JSON object");
        assert_eq!(whole["session"], "a\"b é");
    }

    #[test]
    fn a_record_is_read_back_as_it_was_drafted() {
        let (_, record) = round_trip(&draft(), Some((2, 3)));
        let draft = draft();
        assert_eq!((record.seq, record.at_ms, record.kind.as_str()), (draft.seq, draft.at_ms, draft.kind));
        assert_eq!((record.session, record.run), (draft.session, draft.run));
        assert_eq!((record.session_prev, record.run_prev, record.run_first), (5, 6, 4));
        assert_eq!((record.body.get(), record.batch), ("{\"a\": 1}", Some((2, 3))));
        let bare =
            Draft { by: None, session: None, run: None, session_prev: 0, run_prev: 0, run_first: 0, ..draft_bare() };
        let (bytes, record) = round_trip(&bare, None);
        assert_eq!((record.session, record.run, record.batch), (None, None, None));
        assert!(!String::from_utf8(bytes).unwrap().contains("prev"), "absent members are left out");
    }

    fn draft_bare() -> Draft {
        Draft { body: b"{}".to_vec(), ..draft() }
    }

    #[test]
    fn every_single_changed_byte_is_noticed() {
        let (bytes, _) = round_trip(&draft(), Some((2, 3)));
        for at in 0..bytes.len() {
            for change in [1, 0x20, 0x80] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                let noticed = match Line::parse(&damaged) {
                    Err(_) => true,
                    Ok(line) => line.follows(&damaged, Chain::START).is_none(),
                };
                assert!(noticed, "byte {at} ^ {change:#x} went unnoticed");
            }
        }
    }

    #[test]
    fn a_line_cut_anywhere_is_no_line() {
        let (bytes, _) = round_trip(&draft(), None);
        for length in 0..bytes.len() {
            assert!(Line::parse(&bytes[..length]).is_err(), "{length} bytes were taken for a line");
        }
    }

    #[test]
    fn numbers_have_one_spelling_and_a_range() {
        for (bytes, expected) in [
            (&b"0"[..], Some(0)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"01", None),
            (b"", None),
            (b"-1", None),
        ] {
            assert_eq!(Cursor { bytes, at: 0 }.number().ok(), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
