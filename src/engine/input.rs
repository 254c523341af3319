//! What a user said, with the pictures and documents that came with it.
//! Owns: the form in which a run's input names its files, and the making of the message from it.
//! May touch: blobs, reading.
//! Never: puts the bytes of a file into a record; they lie among the blobs, under their digest.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use super::context::{ContextError, Submitted};
use crate::blobs::Blobs;
use crate::limits::CONTEXT_FILES_BYTES_MAX;
use crate::providers::{InputPart, Message};

/// One part of a run's input as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StoredPart {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture or a document.
    File(StoredFile),
}

/// A file of a run's input; its bytes lie among the blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its name, shown to the model.
    pub file_name: String,
    /// For example `image/png`.
    pub media_type: String,
    /// Names the blob.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

impl StoredFile {
    fn part(&self, blobs: &Blobs) -> Result<InputPart, String> {
        let bytes = blobs.get(&self.sha256).map_err(|error| error.to_string())?.into();
        let media_type = self.media_type.clone();
        Ok(match self.media_type.starts_with("image/") {
            true => InputPart::Image { media_type, bytes },
            false => InputPart::Document { media_type, name: self.file_name.clone(), bytes },
        })
    }
}

/// Where the files of a conversation come from, and how many of them are shown again.
pub(super) struct Files<'a> {
    blobs: Option<&'a Blobs>,
    /// Whether files of earlier runs are of use to the route.
    shows_earlier: bool,
    /// Bytes that files of earlier runs may still have.
    left: Cell<u64>,
}

impl<'a> Files<'a> {
    /// For a route that takes files, or not.
    pub(super) fn new(blobs: Option<&'a Blobs>, shows_earlier: bool) -> Self {
        Self { blobs, shows_earlier, left: Cell::new(CONTEXT_FILES_BYTES_MAX) }
    }

    /// The input of the run itself: it is whole, or there is none.
    pub(super) fn own(&self, submitted: &Submitted) -> Result<Message, ContextError> {
        self.message(submitted, |file| {
            let blobs = self.blobs.ok_or_else(|| ContextError::Record("there are no blobs".to_string()))?;
            file.part(blobs).map_err(ContextError::Record)
        })
    }

    /// The input of an earlier run of the session. Files that do not fit any more are named only; asked for from the newest
    /// run backwards.
    pub(super) fn earlier(&self, submitted: &Submitted) -> Result<Message, ContextError> {
        self.message(submitted, |file| {
            let left = self.left.get().checked_sub(file.bytes).filter(|_| self.shows_earlier);
            let shown = left.and_then(|left| {
                let part = file.part(self.blobs?).ok()?;
                self.left.set(left);
                Some(part)
            });
            let named = || InputPart::Text(format!("[{}, {}, is not shown again]", file.file_name, file.media_type));
            Ok(shown.unwrap_or_else(named))
        })
    }

    fn message(
        &self,
        submitted: &Submitted,
        show: impl Fn(&StoredFile) -> Result<InputPart, ContextError>,
    ) -> Result<Message, ContextError> {
        if submitted.parts.is_empty() {
            return Ok(Message::user(submitted.content.clone()));
        }
        let part = |part: &StoredPart| match part {
            StoredPart::Text { text } => Ok(InputPart::Text(text.clone())),
            StoredPart::File(file) => show(file),
        };
        Ok(Message::User { parts: submitted.parts.iter().map(part).collect::<Result<_, _>>()? })
    }
}
