//! Files that are kept for inputs to come, named by their digest.
//! Owns: the routes below `/v1/assets`, and what an `asset_reference` stands for.
//! May touch: blobs.
//! Never: takes a file that no input could hold.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Serialize;

use super::call::{Call, Reply};
use super::context::Api;
use super::input_parts::{InputItem, checked, found_type};
use super::json;
use super::submit::SubmitInput;
use super::witness::Act;
use crate::blobs::BlobError;
use crate::hex::to_hex;
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::limits::{INPUT_FILE_BYTES_MAX, INPUT_FILES_MAX};

/// What stands before the digest in an asset's id.
const PREFIX: &str = "asset-";

#[derive(Debug, Serialize)]
struct AssetView {
    asset_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_name: Option<String>,
    media_type: String,
    sha256: String,
    byte_length: u64,
}

/// The digest that an id names: `asset-<sha256>`, or the digest alone as a run's view shows it.
fn digest_of(id: &str) -> &str {
    id.strip_prefix(PREFIX).unwrap_or(id)
}

fn not_found(id: &str) -> Problem {
    let id = super::text::quote(id);
    Problem::new(&codes::ASSET_NOT_FOUND, format!("there is no asset {id}; next: `kheish-daemon assets import FILE`"))
}

/// The bytes of an asset, checked against its digest, and what they are.
fn find(api: &Api, id: &str) -> Result<(Vec<u8>, &'static str), Problem> {
    let bytes = api.blobs.get(digest_of(id)).map_err(|error| match error {
        BlobError::Unknown { .. } => not_found(id),
        error => {
            log::error!("an asset cannot be read: {error}");
            Problem::new(&codes::BLOB_UNREADABLE, error.to_string())
        }
    })?;
    let is_text = || std::str::from_utf8(&bytes).is_ok_and(|text| !text.contains('\0'));
    let media_type = found_type(&bytes).or_else(|| is_text().then_some("text/plain"));
    let media_type = media_type.filter(|_| bytes.len() <= INPUT_FILE_BYTES_MAX).ok_or_else(|| not_found(id))?;
    Ok((bytes, media_type))
}

/// `POST /v1/assets`: keeps a file; the same file is kept once.
pub fn put(api: &Api, call: Call, reply: Reply) {
    reply.send_result(store(api, &call));
}

fn store(api: &Api, call: &Call) -> Result<Response, Problem> {
    let mut item: InputItem = json::parse(&call.body)?;
    item.item_type = "inline_asset".to_string();
    let (file_name, media_type, mut bytes) = checked(item)?;
    if bytes.len() > INPUT_FILE_BYTES_MAX {
        let detail = format!("the file has {} bytes, at most {INPUT_FILE_BYTES_MAX} are taken", bytes.len());
        return Err(Problem::new(&codes::PAYLOAD_TOO_LARGE, detail));
    }
    // Text is kept as it will be shown to models; the bytes of a picture are no text to look through.
    if let Ok(text) = std::str::from_utf8(&bytes) {
        bytes = api.broker.redact(text).into_bytes();
    }
    let sha256 = to_hex(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref());
    let asset_id = format!("{PREFIX}{sha256}");
    let act = Act { verb: "asset.put", target: &asset_id, containment: false };
    api.witnessed(&call.actor(), act, || super::runs::keep(api, &bytes))?;
    let view = AssetView { asset_id, file_name: Some(file_name), media_type, sha256, byte_length: bytes.len() as u64 };
    Ok(Response::json(200, &view))
}

/// `GET /v1/assets/{asset_id}`.
pub fn get(api: &Api, call: &Call) -> Result<Response, Problem> {
    let id = call.param("asset_id")?;
    let (bytes, media_type) = find(api, &id)?;
    let sha256 = digest_of(&id).to_string();
    let (asset_id, byte_length) = (format!("{PREFIX}{sha256}"), bytes.len() as u64);
    let view = AssetView { asset_id, file_name: None, media_type: media_type.to_string(), sha256, byte_length };
    Ok(Response::json(200, &view))
}

/// Puts the files that references name in their place; from there on they are like files that came along.
pub(super) fn resolve(api: &Api, input: &mut SubmitInput) -> Result<(), Problem> {
    let items = input.input_items.iter_mut().chain(&mut input.attachments).flatten();
    let mut count = 0;
    for item in items.filter(|item| item.item_type == "asset_reference") {
        count += 1;
        if count > INPUT_FILES_MAX {
            return Err(Problem::new(&codes::BAD_REQUEST, format!("at most {INPUT_FILES_MAX} files are taken")));
        }
        if item.text.is_some() || item.content_base64.is_some() {
            let detail = "an asset_reference has asset_id, and file_name where the model is to be told one";
            return Err(Problem::new(&codes::BAD_REQUEST, detail));
        }
        let id = item.asset_id.take().unwrap_or_default();
        let (bytes, media_type) = find(api, &id)?;
        item.item_type = "inline_asset".to_string();
        item.file_name.get_or_insert_with(|| default_name(media_type));
        item.media_type.get_or_insert_with(|| media_type.to_string());
        item.content_base64 = Some(BASE64_STANDARD.encode(bytes));
    }
    Ok(())
}

fn default_name(media_type: &str) -> String {
    let end = match media_type {
        "image/jpeg" => "jpg",
        "text/plain" => "txt",
        other => other.rsplit('/').next().unwrap_or("bin"),
    };
    format!("asset.{end}")
}
