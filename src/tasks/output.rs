//! The output of a task as a file of bounded size.
//! Owns: `shell-tasks/<id>.out`: its growth, its rotation, reading its end, and the space of all of them.
//! May touch: that directory of the state root.
//! Never: holds more of an output in memory than one buffer, or one answer; writes a secret that the broker knows, or a text with the
//! shape of a key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::limits::{
    TASK_OUTPUT_BYTES_HELD_MAX, TASK_OUTPUT_BYTES_KEPT, TASK_OUTPUT_BYTES_MAX, TASK_OUTPUT_FILES_MAX,
    TASK_OUTPUT_MARGIN_BYTES, TASK_OUTPUTS_BYTES_MAX,
};
use crate::redaction;

/// Figures of one output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputFigures {
    /// Size of the file.
    pub size_bytes: u64,
    /// Bytes that the command wrote.
    pub total_bytes: u64,
    /// How often older output was dropped.
    pub rotation_count: u32,
}

/// An output that is being written.
#[derive(Debug)]
pub(super) struct OutputFile {
    path: PathBuf,
    file: File,
    /// What came and may be the beginning of a secret.
    held: Vec<u8>,
    pub(super) figures: OutputFigures,
}

/// Where the output of a task lies.
pub fn path_of(directory: &Path, id: &str) -> PathBuf {
    directory.join(format!("{id}.out"))
}

impl OutputFile {
    /// A new, empty one.
    pub(super) fn create(directory: &Path, id: &str) -> io::Result<Self> {
        let path = path_of(directory, id);
        let file = OpenOptions::new().write(true).read(true).create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(Self { path, file, held: Vec::new(), figures: OutputFigures::default() })
    }

    /// Adds what came, as far as nothing that follows can make it a part of a secret.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.figures.total_bytes += bytes.len() as u64;
        self.held.extend_from_slice(bytes);
        let is_long = self.held.len() > TASK_OUTPUT_BYTES_HELD_MAX;
        self.write(is_long)
    }

    /// Adds what was held back: nothing follows.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.write(true)
    }

    fn write(&mut self, all: bool) -> io::Result<()> {
        let bytes = self.ready(all);
        self.file.write_all(&bytes)?;
        self.figures.size_bytes += bytes.len() as u64;
        if self.figures.size_bytes > TASK_OUTPUT_BYTES_MAX {
            self.rotate()?;
        }
        Ok(())
    }

    /// Takes what can be written out of what is held. What is no text is kept as it is.
    fn ready(&mut self, all: bool) -> Vec<u8> {
        let (mut ready, mut used) = (Vec::with_capacity(self.held.len()), 0);
        let mut chunks = self.held.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            let text = chunk.valid();
            if chunks.peek().is_none() && !all {
                // What is no text behind it may be the beginning of a character.
                let (text, settled) = redaction::stream(text);
                ready.extend_from_slice(text.as_bytes());
                used += settled;
                break;
            }
            ready.extend_from_slice(redaction::text(text).as_bytes());
            ready.extend_from_slice(chunk.invalid());
            used += text.len() + chunk.invalid().len();
        }
        self.held.drain(..used);
        ready
    }

    /// Replaces the file by a note and its newest part.
    fn rotate(&mut self) -> io::Result<()> {
        let rotation_count = self.figures.rotation_count + 1;
        let note = format!(
            "[older output was dropped: the newest {TASK_OUTPUT_BYTES_KEPT} at most of {} bytes, rotation {rotation_count}]\n",
            self.figures.total_bytes
        );
        let fresh = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).read(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(note.as_bytes())?;
        let cut = self.figures.size_bytes - TASK_OUTPUT_BYTES_KEPT;
        let kept_from = cut + rest_of_line(&mut self.file, cut)?;
        self.file.seek(SeekFrom::Start(kept_from))?;
        io::copy(&mut self.file, &mut file)?;
        fs::rename(&fresh, &self.path)?;
        self.file = file;
        self.figures.size_bytes = note.len() as u64 + self.figures.size_bytes - kept_from;
        self.figures.rotation_count = rotation_count;
        Ok(())
    }
}

/// Bytes from `at` to the beginning of the next line, 0 where none begins within a secret's length: a line that is cut may
/// begin with the end of a secret, which nothing recognises any more.
fn rest_of_line(file: &mut File, at: u64) -> io::Result<u64> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(TASK_OUTPUT_MARGIN_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes.iter().position(|byte| *byte == b'\n').map_or(0, |place| place as u64 + 1))
}

/// The newest at most `bytes_max` bytes of an output, as redacted text, and whether that is all of the file; `None` when
/// there is no file any more. A secret that the cut would go through is not shown in part either.
///
/// # Errors
/// The file is there and cannot be read.
pub fn tail(
    directory: &Path,
    id: &str,
    bytes_max: u64,
    redact: &dyn Fn(&str) -> String,
) -> io::Result<Option<(String, bool)>> {
    let mut file = match File::open(path_of(directory, id)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let size = file.metadata()?.len();
    let skipped = size.saturating_sub(bytes_max);
    let margin = skipped.min(TASK_OUTPUT_MARGIN_BYTES);
    file.seek(SeekFrom::Start(skipped - margin))?;
    let mut bytes = Vec::new();
    file.take(margin + bytes_max).read_to_end(&mut bytes)?;
    let mut from = (margin as usize).min(bytes.len());
    // A cut may have landed inside a character.
    from += if skipped > 0 { bytes[from..].iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count() } else { 0 };
    let text = |part: &[u8]| redact(&String::from_utf8_lossy(part));
    let whole = text(&bytes);
    if from == 0 {
        return Ok(Some((whole, skipped == 0)));
    }
    // Where the parts are masked as the whole is, the cut goes through no secret; else it is moved behind the line, and a
    // few lines further for a secret that has several. Beyond that nothing is shown.
    for _ in 0..4 {
        let shown = text(&bytes[from..]);
        if text(&bytes[..from]) + &shown == whole {
            return Ok(Some((shown, skipped == 0)));
        }
        let rest = bytes[from..].iter().position(|byte| *byte == b'\n');
        from = rest.map_or(bytes.len(), |place| from + place + 1);
    }
    Ok(Some((String::new(), false)))
}

/// Removes outputs, oldest first, until those that stay keep to the bounds. Those of `live` tasks stay.
pub(super) fn prune(directory: &Path, is_live: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let metadata = entry.metadata()?;
        match name.strip_suffix(".out") {
            Some(id) if !is_live(id) => found.push((metadata.modified()?, metadata.len(), entry.path())),
            Some(_) => {}
            // Left by a rotation that did not come to its end.
            None if name.ends_with(".new") && !is_live(name.trim_end_matches(".new")) => fs::remove_file(entry.path())?,
            None => {}
        }
    }
    found.sort();
    let mut bytes: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
    let mut files = found.len();
    for (_, size, path) in found {
        if bytes <= TASK_OUTPUTS_BYTES_MAX && files <= TASK_OUTPUT_FILES_MAX {
            break;
        }
        fs::remove_file(path)?;
        bytes -= size;
        files -= 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("kheish-task-output-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn an_endless_output_stays_bounded_and_keeps_its_newest_part() {
        let directory = scratch("rotation");
        let mut output = OutputFile::create(&directory, "shell-task-1").unwrap();
        let line = |n: u64| format!("{n:063}\n");
        let lines = 3 * TASK_OUTPUT_BYTES_MAX / 64;
        for n in 0..lines {
            output.append(line(n).as_bytes()).unwrap();
            assert!(output.figures.size_bytes <= TASK_OUTPUT_BYTES_MAX);
        }
        let figures = output.figures;
        let text = fs::read_to_string(path_of(&directory, "shell-task-1")).unwrap();
        assert_eq!(figures.size_bytes, text.len() as u64);
        assert_eq!(figures.total_bytes, lines * 64);
        assert!(figures.rotation_count >= 8, "{figures:?}");
        let mut kept = text.lines();
        assert!(kept.next().unwrap().starts_with("[older output was dropped: the newest "));
        let first: u64 = kept.clone().nth(1).unwrap().parse().unwrap();
        assert!(kept.skip(1).enumerate().all(|(at, text)| text.parse() == Ok(first + at as u64)), "a line is missing");
        assert!(text.ends_with(&line(lines - 1)));
        assert_eq!(tail(&directory, "shell-task-1", 64, &as_it_is).unwrap(), Some((line(lines - 1), false)));
        fs::remove_dir_all(directory).unwrap();
    }

    fn as_it_is(text: &str) -> String {
        text.to_string()
    }

    /// Whoever chose the number of bytes could have the cut go through a secret, of which the rest was then shown.
    #[test]
    fn no_length_of_a_tail_shows_a_part_of_a_secret() {
        let directory = scratch("secret-tail");
        fs::write(path_of(&directory, "a"), "before\nkey=TOPSECRET behind\nlast\n").unwrap();
        let redact = |text: &str| text.replace("TOPSECRET", "<redacted>");
        for bytes in 1..40 {
            let (text, _) = tail(&directory, "a", bytes, &redact).unwrap().unwrap();
            let whole = redact("before\nkey=TOPSECRET behind\nlast\n");
            assert!(whole.ends_with(&text), "{bytes}: {text:?}");
            assert!(bytes < 5 || text.ends_with("last\n"), "{bytes}: {text:?}");
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_key_that_comes_in_pieces_is_not_written_and_everything_else_is() {
        let directory = scratch("secret");
        let mut output = OutputFile::create(&directory, "a").unwrap();
        let written = || fs::read(path_of(&directory, "a")).unwrap();
        let said = b"caf\xc3\xa9 \xff sk-proj-abcdefghijklmnopqrstuvwxyz0123 done\n";
        for piece in said.chunks(1) {
            output.append(piece).unwrap();
            assert!(!String::from_utf8_lossy(&written()).contains("sk-proj"));
        }
        assert_eq!(written(), b"caf\xc3\xa9 \xff <redacted> done\n", "a whole line is there before the end");
        output.append(b"half of sk-proj-abcdefghijklmnopqrstuvwxyz0123").unwrap();
        output.finish().unwrap();
        let text = String::from_utf8_lossy(&written()).into_owned();
        assert!(text.ends_with("done\nhalf of <redacted>"), "{text}");
        assert_eq!(output.figures.size_bytes, written().len() as u64);
        assert_eq!(output.figures.total_bytes, said.len() as u64 + 46);
        // What never ends is not held for ever.
        let mut endless = OutputFile::create(&directory, "b").unwrap();
        let block = format!("-----BEGIN {}", "x".repeat(TASK_OUTPUT_BYTES_HELD_MAX));
        endless.append(block.as_bytes()).unwrap();
        assert!(endless.figures.size_bytes > 0);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_tail_never_begins_inside_a_character() {
        let directory = scratch("tail");
        fs::write(path_of(&directory, "a"), "aé€b").unwrap();
        let tails: Vec<_> = (1..8).map(|bytes| tail(&directory, "a", bytes, &as_it_is).unwrap().unwrap()).collect();
        let text = |text: &str, whole| (text.to_string(), whole);
        let expected = [
            text("b", false),
            text("b", false),
            text("b", false),
            text("€b", false),
            text("€b", false),
            text("é€b", false),
            text("aé€b", true),
        ];
        assert_eq!(tails, expected);
        assert_eq!(tail(&directory, "b", 1, &as_it_is).unwrap(), None);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn old_outputs_make_room_and_live_ones_stay() {
        let directory = scratch("prune");
        for n in 0..TASK_OUTPUT_FILES_MAX + 5 {
            fs::write(path_of(&directory, &format!("shell-task-{n}")), "x").unwrap();
        }
        fs::write(directory.join("shell-task-9.new"), "x").unwrap();
        prune(&directory, |id| id == "shell-task-0").unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), TASK_OUTPUT_FILES_MAX + 1);
        assert!(path_of(&directory, "shell-task-0").exists());
        fs::remove_dir_all(directory).unwrap();
    }
}
