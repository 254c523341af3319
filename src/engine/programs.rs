//! The programs that a command names, as they are now.
//! Owns: what an approval of a command is bound to besides its words.
//! May touch: files of the workspace and of the system, for reading.
//! Never: claims to know all that a command will run. A program that another one starts is not named by the command.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::hex::to_hex;
use crate::limits::{PROGRAM_BYTES_MAX, PROGRAMS_PER_CALL_MAX};
use crate::permissions::command_words;
use crate::sys::files::{Open, open_entry};
use crate::tools::Workspace;
use crate::tools::process::{PATH, SHELLS};

#[derive(Deserialize)]
struct Input {
    command: String,
    #[serde(default)]
    workdir: String,
}

/// Every program that a call of `bash` names, with what it is now: one line each. Another text for the same call means that
/// one of them has been replaced, has appeared or has gone. Empty for arguments that are no command.
///
/// A word is a program when it names a regular file that may be executed or begins with `#!`; data that a command reads is
/// not bound, since it may grow while somebody thinks.
pub(super) fn of(input: &RawValue, workspace: &str) -> String {
    let Ok(Input { command, workdir }) = serde_json::from_str(input.get()) else { return String::new() };
    let place = Workspace::open(Path::new(workspace)).ok();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let shell = SHELLS.iter().find(|shell| Path::new(shell).exists());
    for word in shell.iter().map(|shell| shell.to_string()).chain(command_words(&command)) {
        if found.len() >= PROGRAMS_PER_CALL_MAX {
            break;
        }
        if !found.contains_key(&word)
            && let Some(now) = program(&word, &workdir, place.as_ref())
        {
            found.insert(word, now);
        }
    }
    found.into_iter().map(|(word, now)| format!("{word} {now}\n")).collect()
}

/// What the program that `word` names is now, if it names one.
fn program(word: &str, workdir: &str, workspace: Option<&Workspace>) -> Option<String> {
    let beneath = |workspace: &Workspace| {
        let path = if workdir.is_empty() || word.starts_with('/') { word.into() } else { format!("{workdir}/{word}") };
        match workspace.regular_file(&path) {
            Ok((file, _)) => identity(file),
            // A link out of it, as to an interpreter.
            Err(_) => system(&std::fs::canonicalize(workspace.path().join(path)).ok()?),
        }
    };
    workspace.and_then(beneath).or_else(|| {
        if word.contains('/') {
            return system(Path::new(word)).filter(|_| word.starts_with('/'));
        }
        PATH.split(':').find_map(|directory| system(&PathBuf::from(directory).join(word)))
    })
}

/// The same for a path of the system. It is looked at before it is opened, and opening it never blocks.
fn system(path: &Path) -> Option<String> {
    let path = std::fs::canonicalize(path).ok()?;
    let metadata = path.metadata().ok().filter(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)?;
    let (directory, name) = (path.parent()?, path.file_name()?);
    let file = File::open(directory).and_then(|directory| open_entry(&directory, name, Open::Any));
    match file {
        Ok(file) => identity(file),
        // One that can be run and not read is told by its inode.
        Err(_) => Some(stamp(&metadata)),
    }
}

/// The digest of a program's content; of a very large one its size and times. `None` for a file that is none.
fn identity(file: File) -> Option<String> {
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut file = file;
    let mut start = [0; 2];
    let is_script = file.read(&mut start).is_ok_and(|count| start[..count] == *b"#!");
    if !is_script && metadata.mode() & 0o111 == 0 {
        return None;
    }
    if metadata.len() > PROGRAM_BYTES_MAX {
        return Some(stamp(&metadata));
    }
    let mut context = Context::new(&SHA256);
    context.update(&start[..(metadata.len() as usize).min(2)]);
    let mut buffer = vec![0; 64 * 1024];
    let mut rest = file.take(PROGRAM_BYTES_MAX);
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => return Some(to_hex(context.finish().as_ref())),
            Ok(count) => context.update(&buffer[..count]),
            Err(_) => return Some(stamp(&metadata)),
        }
    }
}

fn stamp(metadata: &std::fs::Metadata) -> String {
    format!("{} {} {}.{}", metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::state_root::scratch::Scratch;

    fn raw(command: &str, workdir: &str) -> Box<RawValue> {
        let input = serde_json::json!({"command": command, "workdir": workdir});
        RawValue::from_string(input.to_string()).unwrap()
    }

    #[test]
    fn a_program_is_told_from_its_replacement_and_data_is_not_looked_at() {
        let scratch = Scratch::new("programs");
        let workspace = scratch.path().join("w");
        fs::create_dir_all(workspace.join("sub")).unwrap();
        let write = |name: &str, text: &str| fs::write(workspace.join(name), text).unwrap();
        write("deploy.sh", "#!/bin/sh\necho one\n");
        write("sub/run", "binary one");
        write("log.txt", "a line\n");
        fs::set_permissions(workspace.join("sub/run"), fs::Permissions::from_mode(0o755)).unwrap();
        let of = |command: &str, workdir: &str| of(&raw(command, workdir), workspace.to_str().unwrap());
        let names =
            |text: String| text.lines().map(|line| line.split(' ').next().unwrap().to_string()).collect::<Vec<_>>();
        let shell = SHELLS.iter().find(|shell| Path::new(shell).exists()).unwrap().to_string();
        assert_eq!(names(of("cat log.txt > out.txt", "")), [shell.clone(), "cat".to_string()]);
        assert_eq!(names(of("true && sh 'deploy.sh' prod", "")), [&shell, "deploy.sh", "sh", "true"]);
        assert_eq!(names(of("./run", "sub")), ["./run", &shell]);
        assert_eq!(names(of("run", "")), std::slice::from_ref(&shell), "no program of that name there");

        let before = [of("sh deploy.sh", ""), of("./run", "sub"), of("cat log.txt", "")];
        write("log.txt", "a line\nanother\n");
        write("deploy.sh", "#!/bin/sh\necho two\n");
        write("sub/run", "binary two");
        let after = [of("sh deploy.sh", ""), of("./run", "sub"), of("cat log.txt", "")];
        assert!(before[0] != after[0] && before[1] != after[1], "{before:?} {after:?}");
        assert_eq!(before[2], after[2], "data may grow while somebody thinks");

        // What a link leads to is what runs, wherever that is.
        symlink("/bin/true", workspace.join("tool")).unwrap();
        let linked = of("./tool", "");
        fs::remove_file(workspace.join("tool")).unwrap();
        symlink("/bin/false", workspace.join("tool")).unwrap();
        assert_ne!(of("./tool", ""), linked);
        // A program that takes the place of one of the system is another program.
        let listed = of("ls", "");
        assert_ne!(listed, String::new());
        assert_eq!(super::of(&RawValue::from_string("[1]".to_string()).unwrap(), "/"), "");
    }

    #[test]
    fn however_many_and_however_large_they_are_it_is_bounded() {
        let scratch = Scratch::new("programs");
        let workspace = scratch.path();
        let names: Vec<String> = (0..3 * PROGRAMS_PER_CALL_MAX).map(|n| format!("p{n}")).collect();
        for name in &names {
            fs::write(workspace.join(name), "#!x").unwrap();
        }
        let found = of(&raw(&names.join(" "), ""), workspace.to_str().unwrap());
        assert_eq!(found.lines().count(), PROGRAMS_PER_CALL_MAX);
        let large = fs::File::create(workspace.join("large")).unwrap();
        large.set_len(PROGRAM_BYTES_MAX + 1).unwrap();
        large.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
        let before = of(&raw("./large", ""), workspace.to_str().unwrap());
        large.set_len(PROGRAM_BYTES_MAX + 2).unwrap();
        assert_ne!(of(&raw("./large", ""), workspace.to_str().unwrap()), before);
        let fifo = std::process::Command::new("mkfifo").arg(workspace.join("pipe")).status();
        if fifo.is_ok_and(|status| status.success()) {
            assert_eq!(of(&raw("./pipe", ""), workspace.to_str().unwrap()).lines().count(), 1, "it never blocks");
        }
    }
}
