//! Walking a tree of the workspace.
//! Owns: order, depth and the number of entries looked at.
//! May touch: directories, by descriptor.
//! Never: follows a symbolic link; enters version-control data that was not asked for.

use std::ffi::{OsStr, OsString};
use std::fs::File;

use super::Control;
use super::ignore::{self, Ignored};
use crate::limits::{TOOL_SEARCH_DEPTH_MAX, TOOL_SEARCH_ENTRIES_MAX};
use crate::sys::files::{self, Entries, Kind, Open};

/// What a walk meets.
pub(super) enum Found<'a> {
    /// Anything but a directory.
    File {
        /// From the workspace, with `/`; invalid UTF-8 is shown as U+FFFD.
        path: &'a str,
        /// From the base of the walk.
        below: &'a str,
        /// The name itself.
        name: &'a OsStr,
        /// What it is.
        kind: Kind,
        /// The directory that it is in.
        directory: &'a File,
    },
    /// A directory that is empty or is not entered.
    ClosedDirectory {
        /// From the workspace.
        path: &'a str,
    },
}

/// Whether a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Yes.
    Go,
    /// No.
    Stop,
}

/// Data of version control; nobody searches there by accident.
const SKIPPED: [&str; 4] = [".git", ".hg", ".svn", ".jj"];

/// One walk.
pub(super) struct Walk<'a> {
    control: &'a Control,
    depth_max: usize,
    /// Where the base ends in a path.
    base: String,
    entries: usize,
    unreadable: u64,
    too_deep: bool,
    over: bool,
    /// What ignore files say, unless they are not asked.
    ignored: Option<Ignored>,
    left_out: u64,
}

impl<'a> Walk<'a> {
    /// A walk that descends `depth_max` levels below `base`, of which paths are shown with its name.
    /// With `include_ignored` it does not read ignore files.
    pub(super) fn new(control: &'a Control, depth_max: usize, base: &str, include_ignored: bool) -> Self {
        let mut base = base.trim_start_matches("./").trim_end_matches('/').to_string();
        if base == "." {
            base.clear();
        }
        if !base.is_empty() {
            base.push('/');
        }
        let ignored = (!include_ignored).then(Ignored::default);
        Self { control, depth_max, base, entries: 0, unreadable: 0, too_deep: false, over: false, ignored, left_out: 0 }
    }

    /// Walks everything below `base`, names in byte order, a directory's content before what follows it.
    pub(super) fn over(&mut self, base: File, visit: &mut dyn FnMut(Found<'_>) -> Flow) {
        let mut path = self.base.clone();
        self.directory(base, &mut path, 1, visit);
    }

    fn directory(
        &mut self,
        directory: File,
        path: &mut String,
        depth: usize,
        visit: &mut dyn FnMut(Found<'_>) -> Flow,
    ) -> Flow {
        let Ok(mut names) = self.names(&directory) else {
            self.unreadable += 1;
            return Flow::Go;
        };
        names.sort_by(|(one, _), (other, _)| one.cmp(other));
        if names.is_empty() && path.len() > self.base.len() {
            return visit(Found::ClosedDirectory { path: path.trim_end_matches('/') });
        }
        let length = path.len();
        let has_file = names.iter().any(|(name, kind)| name == OsStr::new(ignore::FILE) && *kind == Kind::File);
        let has_rules = has_file && self.ignored.as_mut().is_some_and(|ignored| ignored.enter(&directory, length));
        let flow = self.entries(&directory, names, path, depth, visit);
        if has_rules && let Some(ignored) = &mut self.ignored {
            ignored.leave();
        }
        flow
    }

    fn entries(
        &mut self,
        directory: &File,
        names: Vec<(OsString, Kind)>,
        path: &mut String,
        depth: usize,
        visit: &mut dyn FnMut(Found<'_>) -> Flow,
    ) -> Flow {
        let length = path.len();
        for (name, kind) in names {
            if self.over || self.control.is_over() {
                self.over = true;
                return Flow::Stop;
            }
            path.push_str(&name.to_string_lossy());
            if self.ignored.as_ref().is_some_and(|ignored| ignored.covers(path, kind == Kind::Directory)) {
                self.left_out += 1;
                path.truncate(length);
                continue;
            }
            let flow = if kind == Kind::Directory {
                self.child(directory, &name, path, depth, visit)
            } else {
                let below = &path[self.base.len()..];
                visit(Found::File { path, below, name: &name, kind, directory })
            };
            path.truncate(length);
            if flow == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::Go
    }

    fn child(
        &mut self,
        directory: &File,
        name: &OsStr,
        path: &mut String,
        depth: usize,
        visit: &mut dyn FnMut(Found<'_>) -> Flow,
    ) -> Flow {
        let skipped = SKIPPED.iter().any(|skipped| name == OsStr::new(skipped));
        if skipped || depth >= self.depth_max {
            self.too_deep |= !skipped && depth >= TOOL_SEARCH_DEPTH_MAX;
            return visit(Found::ClosedDirectory { path });
        }
        match files::open_entry(directory, name, Open::Directory) {
            Ok(child) => {
                path.push('/');
                self.directory(child, path, depth + 1, visit)
            }
            Err(_) => {
                self.unreadable += 1;
                visit(Found::ClosedDirectory { path })
            }
        }
    }

    fn names(&mut self, directory: &File) -> std::io::Result<Vec<(OsString, Kind)>> {
        let listed = files::open_entry(directory, OsStr::new("."), Open::Directory)?;
        let mut names = Vec::new();
        for entry in Entries::of(listed)? {
            let (name, kind) = entry?;
            self.entries += 1;
            if self.entries > TOOL_SEARCH_ENTRIES_MAX || self.entries.is_multiple_of(1_024) && self.control.is_over() {
                self.over = true;
                break;
            }
            let kind = match kind {
                Some(kind) => kind,
                // Gone meanwhile: as if it had never been there.
                None => match files::look_at(directory, &name) {
                    Ok(entry) => entry.kind,
                    Err(_) => continue,
                },
            };
            names.push((name, kind));
        }
        Ok(names)
    }

    /// Whether something was not looked at.
    pub(super) fn is_cut(&self) -> bool {
        self.over || self.too_deep
    }

    /// What was left out, for the model.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.unreadable > 0 {
            notes.push(format!("{} directories could not be read", self.unreadable));
        }
        if self.left_out > 0 {
            notes.push(format!("{} entries are left out by ignore files: include_ignored shows them", self.left_out));
        }
        if self.too_deep {
            notes.push(format!("directories deeper than {TOOL_SEARCH_DEPTH_MAX} levels were not entered"));
        }
        if self.over {
            notes.push("the time or the entries for one search were used up: name a narrower base".to_string());
        }
        notes
    }
}
