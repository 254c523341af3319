//! The arguments of a call that rules can speak of: a command, paths, a URL.
//! Owns: reading them from the model's JSON, once a call.
//! Never: guesses. An argument that two readers could understand differently is unreadable: it matches whatever
//! restricts and nothing that allows.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::command::ShellCommand;
use super::facts::is_search;
use super::host::host_of;
use super::path::Path;

/// One argument.
#[derive(Debug)]
pub(super) enum Field<T> {
    /// The call has no such argument.
    Absent,
    /// It has one that this room will not judge.
    Unreadable,
    /// It has this one.
    Is(T),
}

/// The paths of a call.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) given: Vec<Path>,
    /// Everything below them is looked at too.
    pub(super) search: bool,
    /// A name pattern among the arguments could lead out of the base.
    pub(super) may_leave: bool,
}

/// What rules can speak of.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) command: Field<ShellCommand>,
    pub(super) paths: Field<Paths>,
    pub(super) host: Field<String>,
}

impl Arguments {
    pub(super) fn read(tool: &str, input: &RawValue, workspace: Option<&Path>) -> Self {
        let Some(members) = members(input) else {
            return Self { command: Field::Unreadable, paths: Field::Unreadable, host: Field::Unreadable };
        };
        let text = |name: &str| match find(&members, name) {
            None => Field::Absent,
            Some(value) => string(value).map_or(Field::Unreadable, Field::Is),
        };
        Self {
            command: match text("command") {
                Field::Is(command) => Field::Is(ShellCommand::read(&command)),
                Field::Absent => Field::Absent,
                Field::Unreadable => Field::Unreadable,
            },
            paths: match workspace {
                Some(workspace) => paths(tool, &members, workspace),
                None => Field::Unreadable,
            },
            host: match text("url") {
                Field::Is(url) => host_of(&url).map_or(Field::Unreadable, Field::Is),
                Field::Absent => Field::Absent,
                Field::Unreadable => Field::Unreadable,
            },
        }
    }
}

type Members<'a> = Vec<(String, &'a RawValue)>;

fn find<'a>(members: &Members<'a>, name: &str) -> Option<&'a RawValue> {
    // An argument that is null is one that was left out.
    members.iter().find(|(known, value)| known == name && value.get() != "null").map(|(_, value)| *value)
}

fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str::<Cow<'_, str>>(value.get()).ok().map(Cow::into_owned)
}

fn paths(tool: &str, members: &Members<'_>, workspace: &Path) -> Field<Paths> {
    let mut texts = Vec::new();
    for name in ["path", "base"] {
        if let Some(value) = find(members, name) {
            let Some(text) = string(value) else { return Field::Unreadable };
            texts.push(text);
        }
    }
    if let Some(hunks) = find(members, "hunks") {
        let Ok(hunks) = serde_json::from_str::<Vec<&RawValue>>(hunks.get()) else { return Field::Unreadable };
        for hunk in hunks {
            let path = self::members(hunk).and_then(|members| string(find(&members, "path")?));
            let Some(path) = path else { return Field::Unreadable };
            texts.push(path);
        }
    }
    let search = is_search(tool);
    if texts.is_empty() {
        if !search {
            return Field::Absent;
        }
        texts.push(String::new());
    }
    // What grep_search calls its pattern is an expression for lines.
    let names = if tool == "grep_search" { "glob" } else { "pattern" };
    let name_pattern = find(members, names).and_then(string).unwrap_or_default();
    let may_leave = search && (name_pattern.starts_with('/') || name_pattern.contains(".."));
    match texts.iter().map(|text| Path::given(text, workspace)).collect() {
        Some(given) => Field::Is(Paths { given, search, may_leave }),
        None => Field::Unreadable,
    }
}

/// The members of an object; `None` for what is none, and for one that says a thing twice.
fn members(value: &RawValue) -> Option<Members<'_>> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Option<Members<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut members, mut names, mut unique) = (Vec::new(), HashSet::new(), true);
            while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                unique &= names.insert(name.clone());
                members.push((name, value));
            }
            Ok(unique.then_some(members))
        }
    }
    struct Read<'a>(Option<Members<'a>>);
    impl<'de: 'a, 'a> Deserialize<'de> for Read<'a> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Object).map(Self)
        }
    }
    serde_json::from_str::<Read<'_>>(value.get()).ok()?.0
}
