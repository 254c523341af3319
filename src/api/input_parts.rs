//! The input of a submission: texts, and files that come inside of it.
//! Owns: the wire form of items and attachments, which files are taken, and their check against their own bytes.
//! Never: trusts a declared type over what the bytes say; stores anything.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use crate::engine::{StoredFile, StoredPart};
use crate::hex::to_hex;
use crate::http::problem::{Problem, codes};
use crate::limits::{INPUT_FILE_BYTES_MAX, INPUT_FILES_MAX, INPUT_TEXT_BYTES_MAX, LABEL_BYTES_MAX};

/// One input item or attachment.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputItem {
    /// `text`, `inline_asset` or `asset_reference`, which `assets` resolves; other kinds are not in this version.
    #[serde(rename = "type", default)]
    pub item_type: String,
    /// The text.
    pub text: Option<String>,
    /// Name of the file.
    pub file_name: Option<String>,
    /// Its type; found out from its bytes when absent.
    pub media_type: Option<String>,
    /// Its bytes in standard base64.
    pub content_base64: Option<String>,
    /// Of a reference: the asset.
    pub asset_id: Option<String>,
}

/// The input, checked.
#[derive(Debug, Default)]
pub struct Gathered {
    /// All texts, with an empty line between them.
    pub content: String,
    /// In order, where there is more than text; else empty.
    pub parts: Vec<StoredPart>,
    /// Bytes of the files among the parts, in order.
    pub files: Vec<Vec<u8>>,
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(&codes::BAD_REQUEST, detail)
}

/// Gathers what a submission says: `content` and `attachments`, or `items`.
///
/// # Errors
/// The problem that answers the request.
pub fn gather(
    content: Option<String>,
    attachments: Vec<InputItem>,
    items: Vec<InputItem>,
) -> Result<Gathered, Problem> {
    let content = content.unwrap_or_default();
    let is_other = !content.is_empty() || !attachments.is_empty();
    if !items.is_empty() && is_other {
        return Err(bad("content and input_items exclude each other, attachments too; next: send one of them"));
    }
    if attachments.iter().any(|item| item.item_type == "text") {
        return Err(bad("an attachment is no text; next: put it into content or input_items"));
    }
    let mut gathered = Gathered::default();
    let mut texts = Vec::new();
    if !content.is_empty() {
        texts.push(content.clone());
        gathered.parts.push(StoredPart::Text { text: content });
    }
    for item in items.into_iter().chain(attachments) {
        match (item.item_type.as_str(), item.text.as_ref()) {
            ("text", Some(text)) if text.is_empty() => {}
            ("text", Some(text)) => {
                texts.push(text.clone());
                gathered.parts.push(StoredPart::Text { text: text.clone() });
            }
            ("text", None) => return Err(bad("a text item has no text")),
            ("inline_asset", None) => match file(item)? {
                File::Text(text) => {
                    texts.push(text.clone());
                    gathered.parts.push(StoredPart::Text { text });
                }
                File::Bytes(stored, bytes) => {
                    gathered.files.push(bytes);
                    gathered.parts.push(StoredPart::File(stored));
                }
            },
            _ => {
                let detail = "an input item other than text, inline_asset and asset_reference is not supported by this daemon version; \
                              next: leave it out";
                return Err(Problem::new(&codes::UNSUPPORTED_FEATURE, detail));
            }
        }
    }
    if gathered.files.len() > INPUT_FILES_MAX {
        return Err(bad(format!("there are {} files, at most {INPUT_FILES_MAX} are taken", gathered.files.len())));
    }
    let total: usize = gathered.files.iter().map(Vec::len).sum();
    if total > INPUT_FILE_BYTES_MAX {
        let detail = format!("the files have {total} bytes, at most {INPUT_FILE_BYTES_MAX} together");
        return Err(Problem::new(&codes::PAYLOAD_TOO_LARGE, detail));
    }
    gathered.content = texts.join("\n\n");
    if gathered.content.trim().is_empty() && gathered.files.is_empty() {
        return Err(bad("the submission carries no input; next: send content"));
    }
    if gathered.content.len() > INPUT_TEXT_BYTES_MAX {
        let detail = format!("the input has {} bytes, at most {INPUT_TEXT_BYTES_MAX}", gathered.content.len());
        return Err(Problem::new(&codes::PAYLOAD_TOO_LARGE, detail));
    }
    if gathered.files.is_empty() {
        gathered.parts.clear();
    }
    Ok(gathered)
}

/// Replaces the texts by one, which stands where the first of them stood.
pub(super) fn with_text(gathered: &mut Gathered, text: String) {
    if !gathered.parts.is_empty() {
        let is_text = |part: &StoredPart| matches!(part, StoredPart::Text { .. });
        let place = gathered.parts.iter().position(is_text).unwrap_or(0);
        gathered.parts.retain(|part| !is_text(part));
        gathered.parts.insert(place, StoredPart::Text { text: text.clone() });
    }
    gathered.content = text;
}

enum File {
    /// A document of text, which any model reads.
    Text(String),
    Bytes(StoredFile, Vec<u8>),
}

/// Name, type and bytes of a file, each checked.
///
/// # Errors
/// It is none that an input can hold.
pub(super) fn checked(item: InputItem) -> Result<(String, String, Vec<u8>), Problem> {
    let name = item.file_name.map(|name| name.trim().to_string()).unwrap_or_default();
    let is_name = !name.is_empty()
        && name.len() <= LABEL_BYTES_MAX
        && !name.chars().any(|c| c.is_control() || "/\\\"<>".contains(c));
    if !is_name {
        let rule = format!("file_name has 1 to {LABEL_BYTES_MAX} bytes without control characters, quotes and slashes");
        return Err(bad(rule));
    }
    let encoded = item.content_base64.unwrap_or_default();
    let bytes = BASE64_STANDARD.decode(encoded.trim()).map_err(|_| bad(format!("{name}: not standard base64")))?;
    if bytes.is_empty() {
        return Err(bad(format!("{name}: the file is empty")));
    }
    let declared = item.media_type.as_deref().map(normal_type).filter(|media_type| !media_type.is_empty());
    let media_type = match (declared, found_type(&bytes)) {
        (Some(declared), Some(found)) if declared == found => found.to_string(),
        (None, Some(found)) => found.to_string(),
        (Some(declared), None) if is_text_type(&declared) => declared,
        (None, None) => "text/plain".to_string(),
        (Some(declared), found) => {
            let found = found.unwrap_or("no type that is taken");
            let detail = format!("{name}: declared {declared}, and the bytes are {found}; next: correct media_type");
            return Err(bad(detail));
        }
    };
    if is_text_type(&media_type) && !std::str::from_utf8(&bytes).is_ok_and(|text| !text.contains('\0')) {
        let taken = "PNG, JPEG, GIF, WebP, PDF and UTF-8 text";
        return Err(bad(format!("{name}: neither of the files that are taken ({taken}); next: convert it")));
    }
    Ok((name, media_type, bytes))
}

fn file(item: InputItem) -> Result<File, Problem> {
    let (name, media_type, bytes) = checked(item)?;
    if is_text_type(&media_type) {
        let text = String::from_utf8(bytes).map_err(|_| bad(format!("{name}: not UTF-8")))?;
        return Ok(File::Text(format!("<file name=\"{name}\" type=\"{media_type}\">\n{text}\n</file>")));
    }
    let sha256 = to_hex(digest(&SHA256, &bytes).as_ref());
    Ok(File::Bytes(StoredFile { file_name: name, media_type, sha256, bytes: bytes.len() as u64 }, bytes))
}

/// Without parameters, in lower case, under its usual name.
fn normal_type(media_type: &str) -> String {
    let plain = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match plain.as_str() {
        "image/jpg" => "image/jpeg".to_string(),
        "application/x-pdf" => "application/pdf".to_string(),
        _ => plain,
    }
}

fn is_text_type(media_type: &str) -> bool {
    media_type.starts_with("text/") || media_type == "application/json"
}

/// What the first bytes say of the types that models see.
pub(super) fn found_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        [b'%', b'P', b'D', b'F', b'-', ..] => Some("application/pdf"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

    fn asset(name: &str, media_type: Option<&str>, bytes: &[u8]) -> InputItem {
        InputItem {
            item_type: "inline_asset".to_string(),
            text: None,
            file_name: Some(name.to_string()),
            media_type: media_type.map(str::to_string),
            content_base64: Some(BASE64_STANDARD.encode(bytes)),
            asset_id: None,
        }
    }

    fn text(text: &str) -> InputItem {
        InputItem {
            item_type: "text".to_string(),
            text: Some(text.to_string()),
            file_name: None,
            media_type: None,
            content_base64: None,
            asset_id: None,
        }
    }

    #[test]
    fn parts_keep_their_order_and_texts_of_files_are_texts() {
        let items = vec![
            text("look:"),
            asset("a.png", None, PNG),
            asset("n.md", Some("text/markdown; x=y"), b"# n"),
            text("so?"),
        ];
        let gathered = gather(None, Vec::new(), items).expect("legal");
        let note = "<file name=\"n.md\" type=\"text/markdown\">\n# n\n</file>";
        assert_eq!(gathered.content, format!("look:\n\n{note}\n\nso?"));
        assert_eq!(gathered.files, [PNG]);
        let kinds: Vec<&str> = gathered
            .parts
            .iter()
            .map(|part| match part {
                StoredPart::Text { text } => text.as_str(),
                StoredPart::File(file) => file.media_type.as_str(),
            })
            .collect();
        assert_eq!(kinds, ["look:", "image/png", note, "so?"]);
        let plain = gather(Some("x".to_string()), Vec::new(), Vec::new()).expect("legal");
        assert!(plain.parts.is_empty() && plain.content == "x", "plain text needs no parts");
        let alone = gather(None, vec![asset("a.png", Some("IMAGE/PNG"), PNG)], Vec::new()).expect("a picture is input");
        assert_eq!((alone.content.as_str(), alone.parts.len()), ("", 1));
        let mut held = gather(None, Vec::new(), vec![asset("a.png", None, PNG), text("a"), text("b")]).expect("legal");
        with_text(&mut held, "{}".to_string());
        assert!(matches!(&held.parts[1], StoredPart::Text { text } if text == "{}") && held.parts.len() == 2);
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        for (item, words) in [
            (asset("a.png", Some("image/png"), b"GIF89a"), "the bytes are image/gif"),
            (asset("a.exe", Some("application/octet-stream"), b"MZ"), "the bytes are no type that is taken"),
            (asset("a.bin", None, b"\xff\x00"), "neither of the files that are taken"),
            (asset("a.txt", Some("text/plain"), b"\xff"), "neither of the files that are taken"),
            (asset("a.png", Some("text/plain"), PNG), "the bytes are image/png"),
            (asset("../a.png", None, PNG), "file_name has 1 to"),
            (asset("", None, PNG), "file_name has 1 to"),
            (asset("a.png", None, b""), "the file is empty"),
            (InputItem { content_base64: Some("%%%".to_string()), ..asset("a.png", None, PNG) }, "not standard base64"),
            (InputItem { item_type: "asset_reference".to_string(), ..asset("a", None, PNG) }, "not supported"),
        ] {
            let problem = gather(None, Vec::new(), vec![item]).expect_err(words);
            assert!(problem.detail.contains(words), "{words}: {}", problem.detail);
        }
        let many = (0..=INPUT_FILES_MAX).map(|_| asset("a.png", None, PNG)).collect();
        assert!(gather(None, many, Vec::new()).is_err());
        assert!(gather(Some("x".to_string()), Vec::new(), vec![text("y")]).is_err());
        assert!(gather(None, vec![text("y")], Vec::new()).is_err());
        let large = asset("a.png", None, &[PNG, &vec![0; INPUT_FILE_BYTES_MAX]].concat());
        assert_eq!(gather(None, vec![large], Vec::new()).expect_err("too large").code.code, "payload_too_large");
    }
}
