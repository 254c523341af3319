//! `write_file`, `edit_file` and `apply_patch`.
//! Owns: the rules of replacing text: exactly once unless all, never an empty text, all hunks or none.
//! May touch: files through `Target`.
//! Never: writes what redaction has put into a text in place of a secret.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::ToolError;
use super::output::ToolOutput;
use super::target::{Original, Staged, Target, sha256};
use super::workspace::Workspace;
use super::{Control, parse};
use crate::broker::REDACTED;
use crate::limits::TOOL_EDIT_BYTES_MAX;

#[derive(Deserialize)]
struct Write {
    path: String,
    content: Option<String>,
    content_base64: Option<String>,
    expected_sha256: Option<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    path: &'a str,
    bytes_written: usize,
    sha256: String,
    created: bool,
}

/// `write_file`.
pub(super) fn write(input: &RawValue, workspace: &Workspace, control: &Control) -> Result<ToolOutput, ToolError> {
    let Write { path, content, content_base64, expected_sha256 } = parse(input)?;
    let bytes = match (content, content_base64) {
        (Some(content), None) => content.into_bytes(),
        (None, Some(encoded)) => STANDARD.decode(encoded.trim()).map_err(|error| ToolError::Arguments {
            field: "content_base64".to_string(),
            cause: error.to_string(),
            expected: "standard base64 with padding".to_string(),
        })?,
        (content, _) => {
            return Err(ToolError::Arguments {
                field: "content".to_string(),
                cause: if content.is_some() { "given together with content_base64" } else { "it is missing" }
                    .to_string(),
                expected: "exactly one of content and content_base64".to_string(),
            });
        }
    };
    refuse_redacted("content", &bytes)?;
    if bytes.len() > TOOL_EDIT_BYTES_MAX {
        return Err(ToolError::Refused {
            code: "file_too_large",
            cause: format!("{} bytes, at most {TOOL_EDIT_BYTES_MAX} can be written at once", bytes.len()),
            next: "write it in parts with bash".to_string(),
        });
    }
    let target = Target::find(workspace, &path, true)?;
    let original = target.original(control)?;
    if let Some(expected) = expected_sha256 {
        expect_digest(&path, original.as_ref(), &expected)?;
    }
    let created = original.is_none();
    target.stage(&bytes, original)?.commit(false)?;
    Ok(ToolOutput::ok(&Written { path: &path, bytes_written: bytes.len(), sha256: sha256(&bytes), created }, false))
}

#[derive(Deserialize)]
struct Hunk {
    path: String,
    old_text: String,
    new_text: String,
    #[serde(default)]
    replace_all: bool,
    expected_sha256: Option<String>,
}

#[derive(Serialize)]
struct Edited<'a> {
    path: &'a str,
    replacements: usize,
    sha256: String,
}

/// `edit_file`.
pub(super) fn edit(input: &RawValue, workspace: &Workspace, control: &Control) -> Result<ToolOutput, ToolError> {
    let hunk: Hunk = parse(input)?;
    hunk.check("")?;
    let target = Target::find(workspace, &hunk.path, false)?;
    let original = target.original(control)?.ok_or_else(|| missing(&hunk.path))?;
    if let Some(expected) = &hunk.expected_sha256 {
        expect_digest(&hunk.path, Some(&original), expected)?;
    }
    let (text, replacements) = hunk.apply(text_of(&hunk.path, &original)?, "")?;
    target.stage(text.as_bytes(), Some(original))?.commit(false)?;
    Ok(ToolOutput::ok(&Edited { path: &hunk.path, replacements, sha256: sha256(text.as_bytes()) }, false))
}

#[derive(Deserialize)]
struct Patch {
    hunks: Vec<Hunk>,
}

#[derive(Serialize)]
struct Patched {
    changed_files: Vec<PatchedFile>,
    file_count: usize,
}

#[derive(Serialize)]
struct PatchedFile {
    path: String,
    hunks: usize,
    replacements: usize,
    bytes_written: usize,
    sha256: String,
}

/// A file while its hunks are applied in memory.
struct Draft {
    target: Target,
    original: Original,
    digest: String,
    text: String,
    hunks: usize,
    replacements: usize,
}

/// `apply_patch`.
pub(super) fn patch(input: &RawValue, workspace: &Workspace, control: &Control) -> Result<ToolOutput, ToolError> {
    let Patch { hunks } = parse(input)?;
    for (index, hunk) in hunks.iter().enumerate() {
        hunk.check(&format!("hunks[{index}]."))?;
    }
    // One order for everybody, so that two patches never wait for each other's files.
    let mut drafts = BTreeMap::new();
    for hunk in &hunks {
        drafts.insert(workspace.clean(&hunk.path)?, None);
    }
    for hunk in &hunks {
        let draft = drafts.get_mut(&workspace.clean(&hunk.path)?).expect("made from the same hunks");
        if draft.is_none() {
            let target = Target::find(workspace, &hunk.path, false)?;
            *draft = Some(target);
        }
    }
    let mut opened = BTreeMap::new();
    for (clean, target) in drafts {
        let target = target.expect("every path has a hunk");
        let original = target.original(control)?.ok_or_else(|| missing(&target.raw))?;
        let text = text_of(&target.raw, &original)?;
        let draft = Draft { target, digest: original.sha256(), original, text, hunks: 0, replacements: 0 };
        opened.insert(clean, draft);
    }
    for (index, hunk) in hunks.iter().enumerate() {
        let draft = opened.get_mut(&workspace.clean(&hunk.path)?).expect("made from the same hunks");
        if let Some(expected) = &hunk.expected_sha256
            && *expected != draft.digest
        {
            return Err(changed(&hunk.path, expected, &draft.digest));
        }
        let (text, replacements) = hunk.apply(std::mem::take(&mut draft.text), &format!("hunks[{index}]: "))?;
        draft.text = text;
        draft.hunks += 1;
        draft.replacements += replacements;
    }
    let mut changed_files = Vec::new();
    let mut staged = Vec::new();
    for draft in opened.into_values() {
        let Draft { target, original, text, hunks, replacements, .. } = draft;
        let path = target.raw.clone();
        let (bytes_written, sha256) = (text.len(), sha256(text.as_bytes()));
        changed_files.push(PatchedFile { path, hunks, replacements, bytes_written, sha256 });
        staged.push(target.stage(text.as_bytes(), Some(original))?);
    }
    commit_all(&mut staged, |staged| staged.commit(true))?;
    Ok(ToolOutput::ok(&Patched { file_count: changed_files.len(), changed_files }, false))
}

/// Puts all new files in place, or none.
fn commit_all(
    staged: &mut [Staged],
    mut commit: impl FnMut(&mut Staged) -> Result<(), ToolError>,
) -> Result<(), ToolError> {
    for index in 0..staged.len() {
        let Err(error) = commit(&mut staged[index]) else { continue };
        let lost: Vec<String> =
            staged[..index].iter_mut().filter_map(|done| (!done.restore()).then(|| done.raw().to_string())).collect();
        if lost.is_empty() {
            return Err(error);
        }
        return Err(ToolError::Refused {
            code: "patch_half_applied",
            cause: format!("{error}; and these files could not be put back and are changed: {}", lost.join(", ")),
            next: "read them before anything else".to_string(),
        });
    }
    staged.iter_mut().for_each(Staged::settle);
    Ok(())
}

impl Hunk {
    /// What can be wrong without looking at the file.
    fn check(&self, at: &str) -> Result<(), ToolError> {
        refuse_redacted(&format!("{at}new_text"), self.new_text.as_bytes())?;
        if self.old_text == self.new_text {
            return Err(ToolError::Arguments {
                field: format!("{at}new_text"),
                cause: "it is the same as old_text".to_string(),
                expected: "a different text".to_string(),
            });
        }
        Ok(())
    }

    /// The text with the replacement, and how many there were.
    fn apply(&self, text: String, at: &str) -> Result<(String, usize), ToolError> {
        let count = text.matches(&self.old_text).count();
        let refuse = |code, cause: String, next: &str| {
            let cause = format!("{at}{:?}: {cause}", self.path);
            Err(ToolError::Refused { code, cause, next: next.to_string() })
        };
        if count == 0 {
            let next = if self.old_text.contains(REDACTED) {
                "old_text has the mark that stands for a secret, which the file does not hold: choose a text without it"
            } else {
                "read the file and copy the text exactly, with its blanks and line ends"
            };
            return refuse("no_match", "old_text does not occur".to_string(), next);
        }
        if count > 1 && !self.replace_all {
            let lines: Vec<String> = text
                .match_indices(&self.old_text)
                .take(5)
                .map(|(at, _)| (text[..at].bytes().filter(|byte| *byte == b'\n').count() + 1).to_string())
                .collect();
            let more = if count > lines.len() { ", …" } else { "" };
            return refuse(
                "ambiguous_match",
                format!("old_text occurs {count} times (lines {}{more})", lines.join(", ")),
                "add text around it until it is unique, or set replace_all",
            );
        }
        let grown =
            (text.len() - count * self.old_text.len()).saturating_add(count.saturating_mul(self.new_text.len()));
        if grown > TOOL_EDIT_BYTES_MAX {
            let cause = format!("the result would have {grown} bytes, at most {TOOL_EDIT_BYTES_MAX}");
            return refuse("file_too_large", cause, "replace less");
        }
        Ok((text.replace(&self.old_text, &self.new_text), count))
    }
}

fn text_of(path: &str, original: &Original) -> Result<String, ToolError> {
    let text = std::str::from_utf8(&original.bytes).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_string).ok_or_else(|| ToolError::File {
        path: path.chars().take(200).collect(),
        code: "binary_file",
        cause: "it is not UTF-8 text and cannot be edited".to_string(),
    })
}

fn missing(path: &str) -> ToolError {
    ToolError::File {
        path: path.chars().take(200).collect(),
        code: "not_found",
        cause: "there is no such file".to_string(),
    }
}

fn changed(path: &str, expected: &str, found: &str) -> ToolError {
    ToolError::Refused {
        code: "file_changed",
        cause: format!("{path:?} has sha256 {found}, not {expected}"),
        next: "read the file again, then decide".to_string(),
    }
}

fn expect_digest(path: &str, original: Option<&Original>, expected: &str) -> Result<(), ToolError> {
    let expected = expected.to_ascii_lowercase();
    match original.map(Original::sha256) {
        Some(found) if found == expected => Ok(()),
        None if expected.is_empty() => Ok(()),
        Some(found) => Err(changed(path, if expected.is_empty() { "that of no file" } else { &expected }, &found)),
        None => Err(missing(path)),
    }
}

/// The model saw the mark where a secret is; writing it back would replace the secret in the file by the mark.
fn refuse_redacted(field: &str, bytes: &[u8]) -> Result<(), ToolError> {
    let mark = REDACTED.as_bytes();
    if !bytes.windows(mark.len()).any(|window| window == mark) {
        return Ok(());
    }
    Err(ToolError::Arguments {
        field: field.to_string(),
        cause: format!("it contains {REDACTED}, the mark that stands where a secret was hidden from you"),
        expected: "a text without the mark; use edit_file on the lines around the secret".to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> (std::path::PathBuf, Workspace) {
        let path = std::env::temp_dir().join(format!("kheish-edit-{}-{name}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir(&path).unwrap();
        let workspace = Workspace::open(&path).unwrap();
        (path, workspace)
    }

    #[test]
    fn a_patch_whose_second_file_cannot_be_replaced_changes_neither() {
        let (path, workspace) = scratch("rollback");
        for linked in [true, false] {
            std::fs::write(path.join("a"), "old a").unwrap();
            std::fs::write(path.join("b"), "old b").unwrap();
            let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&path.join(name).metadata().unwrap());
            let before = inode("a");
            let control = Control::new(5_000);
            let stage = |name: &str| {
                let target = Target::find(&workspace, name, false).unwrap();
                let original = target.original(&control).unwrap();
                target.stage(b"new", original).unwrap()
            };
            let mut staged = [stage("a"), stage("b")];
            let error = commit_all(&mut staged, |staged| {
                if staged.raw() == "b" { Err(ToolError::Cancelled) } else { staged.commit(linked) }
            });
            drop(staged);
            assert_eq!(error, Err(ToolError::Cancelled));
            assert_eq!(std::fs::read_to_string(path.join("a")).unwrap(), "old a");
            assert_eq!(std::fs::read_to_string(path.join("b")).unwrap(), "old b");
            assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2, "a staged file stayed");
            assert_eq!(inode("a") == before, linked, "with hard links the very same file comes back");
        }
        std::fs::remove_dir_all(path).unwrap();
    }
}
