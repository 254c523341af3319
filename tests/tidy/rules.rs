//! The house rules over source text, one function each.
//! Owns: what is forbidden where, and the sample that each rule must catch.
//! Never: reads a file.

use crate::source::{Source, is_word_at, line_of};

/// One broken rule: `path:line: what is wrong; next: what to do`.
pub type Violation = String;

/// A file longer than this no longer fits in one sitting.
const LINES_MAX: usize = 800;

/// Text that only some files may contain.
struct Ban {
    /// The text; letters at its ends must not continue a name.
    text: &'static str,
    /// Path prefixes in which it is allowed.
    allowed_in: &'static [&'static str],
    /// Whether `#[cfg(test)]` code and `tests/` are bound by it as well.
    binds_tests: bool,
    /// What to do instead.
    next: &'static str,
}

const BANS: &[Ban] = &[
    Ban { text: "unbounded(", allowed_in: &[], binds_tests: true, next: "use a bounded channel with a named maximum" },
    Ban {
        text: "unbounded::<",
        allowed_in: &[],
        binds_tests: true,
        next: "use a bounded channel with a named maximum",
    },
    Ban { text: "mpsc::channel", allowed_in: &[], binds_tests: true, next: "use crossbeam_channel::bounded" },
    Ban {
        text: "thread::sleep",
        allowed_in: &[],
        binds_tests: true,
        next: "wait on the event, or on a channel with a deadline",
    },
    Ban { text: "dbg!", allowed_in: &[], binds_tests: true, next: "remove it" },
    Ban { text: "todo!", allowed_in: &[], binds_tests: true, next: "write it, or return an error that says so" },
    Ban {
        text: "unimplemented!",
        allowed_in: &[],
        binds_tests: true,
        next: "write it, or return an error that says so",
    },
    Ban {
        text: "unsafe",
        allowed_in: &["src/sys.rs", "src/sys/"],
        binds_tests: true,
        next: "put the system call into src/sys.rs",
    },
    Ban {
        text: "libc::",
        allowed_in: &["src/sys.rs", "src/sys/"],
        binds_tests: true,
        next: "put the system call into src/sys.rs",
    },
    Ban { text: "thread::spawn", allowed_in: &["src/worker.rs"], binds_tests: false, next: "use worker::Worker" },
    Ban { text: "thread::scope", allowed_in: &["src/worker.rs"], binds_tests: false, next: "use worker::Worker" },
    Ban { text: "thread::Builder", allowed_in: &["src/worker.rs"], binds_tests: false, next: "use worker::Worker" },
    Ban {
        text: ".unwrap()",
        allowed_in: &[],
        binds_tests: false,
        next: "handle it, or name the invariant with expect",
    },
    Ban { text: "ureq::", allowed_in: &["src/net"], binds_tests: false, next: "send it through src/net" },
    Ban { text: "TcpStream::connect", allowed_in: SOCKET_ROOMS, binds_tests: false, next: "send it through src/net" },
    Ban { text: "UnixStream::connect", allowed_in: SOCKET_ROOMS, binds_tests: false, next: "send it through src/net" },
    Ban { text: "TcpListener::bind", allowed_in: SOCKET_ROOMS, binds_tests: false, next: "listen in src/http" },
    Ban { text: "UnixListener::bind", allowed_in: SOCKET_ROOMS, binds_tests: false, next: "listen in src/http" },
    Ban { text: "UdpSocket", allowed_in: &["src/net"], binds_tests: false, next: "send it through src/net" },
    Ban { text: "to_socket_addrs", allowed_in: SOCKET_ROOMS, binds_tests: false, next: "resolve names in src/net" },
];

const SOCKET_ROOMS: &[&str] = &["src/net", "src/http", "src/scripted"];

/// The core is handed time and results; it never fetches them.
const CORE_BANS: &[&str] = &["time", "thread", "fs", "net", "env", "process"];

/// Names that come in by `use std::thread::{…}` and would dodge the bans above.
const THREAD_NAMES: &[(&str, bool)] = &[("sleep", true), ("spawn", false), ("scope", false), ("Builder", false)];

/// Every rule over one source file.
pub fn check(source: &Source) -> Vec<Violation> {
    let mut broken = Vec::new();
    broken.extend(header(source));
    broken.extend(length(source));
    broken.extend(banned_text(source));
    broken.extend(thread_imports(source));
    broken.extend(core_is_pure(source));
    broken.extend(cli_does_not_know_the_core(source));
    broken.extend(bounds_live_in_limits(source));
    broken
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/")
}

fn text_positions<'a>(code: &'a str, text: &'a str) -> impl Iterator<Item = usize> + 'a {
    let starts_as_name = text.starts_with(|c: char| c.is_alphanumeric());
    let ends_as_name = text.ends_with(|c: char| c.is_alphanumeric());
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(text).map(|(at, _)| at).filter(move |at| {
        !(starts_as_name && code[..*at].chars().next_back().is_some_and(part_of_name)
            || ends_as_name && code[at + text.len()..].chars().next().is_some_and(part_of_name))
    })
}

fn banned_text(source: &Source) -> Vec<Violation> {
    let mut broken = Vec::new();
    for ban in BANS {
        if ban.allowed_in.iter().any(|prefix| source.path.starts_with(prefix))
            || is_test_file(&source.path) && !ban.binds_tests
        {
            continue;
        }
        let code = if ban.binds_tests { &source.code } else { &source.shipped };
        for at in text_positions(code, ban.text) {
            broken.push(format!("{}:{}: {}; next: {}", source.path, line_of(code, at), ban.text, ban.next));
        }
    }
    broken
}

fn thread_imports(source: &Source) -> Vec<Violation> {
    let mut broken = Vec::new();
    if source.path == "src/worker.rs" {
        return broken;
    }
    for (at, opening) in source.code.match_indices("std::thread::{") {
        let group = source.code[at + opening.len()..].split('}').next().unwrap_or_default();
        for (name, binds_tests) in THREAD_NAMES {
            let in_tests = is_test_file(&source.path) || source.shipped.get(at..at + 1) != source.code.get(at..at + 1);
            if (*binds_tests || !in_tests)
                && (0..group.len()).any(|start| group.is_char_boundary(start) && is_word_at(group, start, name))
            {
                broken.push(format!(
                    "{}:{}: imports std::thread::{name}; next: use worker::Worker, or wait on the event",
                    source.path,
                    line_of(&source.code, at)
                ));
            }
        }
    }
    broken
}

/// Every file under src/ says what it owns and what it never does.
fn header(source: &Source) -> Vec<Violation> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let header: Vec<&str> = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
    let says = |word: &str| header.iter().any(|line| line.trim_start_matches("//!").trim_start().starts_with(word));
    let first = header.first().map(|line| line.trim_start_matches("//!").trim()).unwrap_or_default();
    let mut broken = Vec::new();
    if first.is_empty() || first.starts_with("Owns:") {
        broken.push(format!("{}:1: no header; next: start with `//! <what it is>`", source.path));
    }
    for word in ["Owns:", "Never:"] {
        if !says(word) {
            broken.push(format!("{}:1: the header has no `{word}` line; next: add `//! {word} …`", source.path));
        }
    }
    broken
}

fn length(source: &Source) -> Vec<Violation> {
    let lines = source.text.lines().count();
    // The list of bounds is looked up by its headings, not read in one sitting.
    if lines <= LINES_MAX || source.path == "src/limits.rs" {
        return Vec::new();
    }
    vec![format!("{}:{lines}: more than {LINES_MAX} lines; next: split it by who owns which state", source.path)]
}

fn core_is_pure(source: &Source) -> Vec<Violation> {
    if !source.path.starts_with("src/core") {
        return Vec::new();
    }
    let code = &source.shipped;
    let mut found: Vec<(usize, String)> = Vec::new();
    for name in CORE_BANS {
        found.extend(text_positions(code, &format!("std::{name}")).map(|at| (at, format!("std::{name}"))));
    }
    for (at, opening) in code.match_indices("std::{") {
        let group = code[at + opening.len()..].split(';').next().unwrap_or_default();
        for part in group.split(['{', ',', '}']) {
            let first = part.trim().split("::").next().unwrap_or_default();
            if CORE_BANS.contains(&first) {
                found.push((at, format!("std::{{{first}}}")));
            }
        }
    }
    for text in ["Instant::now", "SystemTime::now", "crate::clock", "crate::sys", "crate::worker"] {
        found.extend(text_positions(code, text).map(|at| (at, text.to_string())));
    }
    found
        .into_iter()
        .map(|(at, what)| {
            format!("{}:{}: {what} in the core; next: have it handed in as data", source.path, line_of(code, at))
        })
        .collect()
}

fn cli_does_not_know_the_core(source: &Source) -> Vec<Violation> {
    if !source.path.starts_with("src/cli") {
        return Vec::new();
    }
    text_positions(&source.shipped, "crate::core")
        .map(|at| {
            format!(
                "{}:{}: crate::core in the cli; next: use the wire types",
                source.path,
                line_of(&source.shipped, at)
            )
        })
        .collect()
}

/// A constant that names a maximum belongs where docs/limits.md is made from.
fn bounds_live_in_limits(source: &Source) -> Vec<Violation> {
    // sys.rs mirrors kernel structures; the size of an array handed to one call is no bound of the daemon.
    if !source.path.starts_with("src/")
        || ["src/limits.rs", "src/sys.rs"].contains(&source.path.as_str())
        || source.path.starts_with("src/limits/")
        || source.path.starts_with("src/sys/")
    {
        return Vec::new();
    }
    let code = &source.shipped;
    let mut broken = Vec::new();
    for at in text_positions(code, "const ").collect::<Vec<_>>() {
        let name = code[at + "const ".len()..].split(':').next().unwrap_or_default().trim();
        let is_name = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if is_name && (name.ends_with("_MAX") || name.contains("_MAX_")) {
            broken.push(format!(
                "{}:{}: {name} is a bound; next: move it to src/limits.rs with its reason",
                source.path,
                line_of(code, at)
            ));
        }
    }
    broken
}

/// Places of one machine and hosts of package registries, which a clone elsewhere cannot reach.
pub fn machine_places(path: &str, text: &str) -> Vec<Violation> {
    // Written in halves so that this file does not break its own rule.
    let places: Vec<String> = [
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("/ho", "me/"),
        ("/Us", "ers/"),
        ("crates", ".io"),
        ("deb.deb", "ian.org"),
        ("pypi", ".org"),
        ("npmjs", ".org"),
        ("npmjs", ".com"),
        ("proxy.gol", "ang.org"),
    ]
    .iter()
    .map(|(head, tail)| format!("{head}{tail}"))
    .collect();
    let mut broken = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if path == "Cargo.lock" && line.starts_with("source = ") {
            continue;
        }
        for place in &places {
            let found = line.match_indices(place.as_str()).any(|(at, _)| {
                let continues_a_path = line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.{}$".contains(c));
                !place.starts_with('/') || !continues_a_path
            });
            if found {
                broken.push(format!("{path}:{}: names {place}; next: say it without the place", number + 1));
            }
        }
    }
    broken
}

/// Every `file::test` and every `docs/…` or `tests/…` path that a document names in backticks exists. `has_test` and
/// `has_file` tell what there is.
pub fn cited(
    path: &str,
    text: &str,
    has_test: impl Fn(&str, &str) -> bool,
    has_file: impl Fn(&str) -> bool,
) -> Vec<Violation> {
    let mut broken = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let plain = |text: &str| {
                !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            };
            let missing = match quoted.split_once("::") {
                Some((file, test)) if plain(file) && plain(test) && test.contains('_') => !has_test(file, test),
                _ => {
                    let is_path =
                        ["docs/", "tests/", "scripts/", "deploy/"].iter().any(|folder| quoted.starts_with(folder));
                    is_path && !quoted.contains([' ', '*', '<', '…']) && !has_file(quoted)
                }
            };
            if missing {
                broken.push(format!("{path}:{}: {quoted} does not exist; next: correct or remove it", number + 1));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "//! A sample.\n//! Owns: nothing.\n//! Never: ships.\n";

    fn broken_by(path: &str, code: &str) -> Vec<Violation> {
        check(&Source::from_text(path, &format!("{HEADER}{code}")))
    }

    #[test]
    fn every_ban_catches_its_sample() {
        for ban in BANS {
            let sample = format!("fn f() {{ {}x; }}\n", if ban.text == "unsafe" { "unsafe " } else { ban.text });
            let sample =
                if ban.text.ends_with(|c: char| c.is_alphanumeric()) { sample.replace("x;", " x;") } else { sample };
            let broken = broken_by("src/sample.rs", &sample);
            assert_eq!(broken.len(), 1, "{}: {broken:?}", ban.text);
            assert!(broken[0].starts_with(&format!("src/sample.rs:4: {}; next: ", ban.text)), "{broken:?}");
            for prefix in ban.allowed_in {
                let allowed = if prefix.ends_with(".rs") {
                    (*prefix).to_string()
                } else {
                    format!("{}/sample.rs", prefix.trim_end_matches('/'))
                };
                assert_eq!(broken_by(&allowed, &sample), Vec::<Violation>::new(), "{} in {prefix}", ban.text);
            }
            let in_tests = broken_by("tests/sample.rs", &sample);
            assert_eq!(in_tests.is_empty(), !ban.binds_tests, "{}: {in_tests:?}", ban.text);
            let in_test_module = broken_by("src/sample.rs", &format!("#[cfg(test)]\nmod tests {{ {sample} }}\n"));
            assert_eq!(in_test_module.is_empty(), !ban.binds_tests, "{}: {in_test_module:?}", ban.text);
            let commented =
                broken_by("src/sample.rs", &format!("// {}\nconst A: &str = \"{}\";\n", ban.text, ban.text));
            assert_eq!(commented, Vec::<Violation>::new(), "{} in a comment or a text", ban.text);
        }
    }

    #[test]
    fn a_longer_name_is_not_the_banned_one() {
        assert_eq!(
            broken_by("src/sample.rs", "#![deny(unsafe_code)]\nfn bounded() { x.unwrap_or(1); }"),
            Vec::<Violation>::new()
        );
    }

    #[test]
    fn an_import_list_does_not_dodge_the_thread_rules() {
        let use_sleep = "use std::thread::{JoinHandle, sleep};\n";
        assert_eq!(broken_by("src/sample.rs", use_sleep).len(), 1);
        assert_eq!(broken_by("tests/sample.rs", use_sleep).len(), 1);
        let use_builder = "use std::thread::{Builder, JoinHandle};\n";
        assert_eq!(broken_by("src/sample.rs", use_builder).len(), 1);
        assert_eq!(broken_by("src/worker.rs", use_builder), Vec::<Violation>::new());
        assert_eq!(broken_by("tests/sample.rs", use_builder), Vec::<Violation>::new());
    }

    #[test]
    fn a_file_without_its_header_is_named() {
        let header = |text: &str| check(&Source::from_text("src/sample/mod.rs", text)).len();
        assert_eq!(header("fn f() {}\n"), 3);
        assert_eq!(header("//! A sample.\nfn f() {}\n"), 2);
        assert_eq!(header("//! A sample.\n//! Owns: x.\nfn f() {}\n"), 1);
        assert_eq!(header("//! Owns: x.\n//! Never: y.\nfn f() {}\n"), 1);
        assert_eq!(header(HEADER), 0);
    }

    #[test]
    fn a_file_of_801_lines_is_named() {
        let lines = |count: usize| check(&Source::from_text("tests/sample.rs", &"\n".repeat(count))).len();
        assert_eq!((lines(800), lines(801)), (0, 1));
    }

    #[test]
    fn the_core_is_refused_clock_thread_file_and_socket() {
        for code in [
            "use std::time::Instant;\n",
            "use std::{collections::BTreeMap, fs};\n",
            "use std::{collections::BTreeMap, time::{Duration}};\n",
            "fn f() { std::net::lookup(); }\n",
            "fn f() { std::thread::yield_now(); }\n",
            "fn f(clock: &dyn crate::clock::Clock) {}\n",
        ] {
            assert_eq!(broken_by("src/core/runs.rs", code).len(), 1, "{code}");
            assert_eq!(broken_by("src/engine/runs.rs", code), Vec::<Violation>::new(), "{code}");
        }
        assert_eq!(broken_by("src/core/runs.rs", "use std::collections::BTreeMap;\n"), Vec::<Violation>::new());
    }

    #[test]
    fn the_cli_is_refused_the_core() {
        assert_eq!(broken_by("src/cli/runs.rs", "use crate::core::Run;\n").len(), 1);
        assert_eq!(broken_by("src/api/runs.rs", "use crate::core::Run;\n"), Vec::<Violation>::new());
    }

    #[test]
    fn a_bound_outside_limits_is_named() {
        assert_eq!(broken_by("src/broker/mod.rs", "const QUEUE_MAX: usize = 3;\n").len(), 1);
        assert_eq!(broken_by("src/broker/mod.rs", "pub const NAME_MAX_BYTES: usize = 3;\n").len(), 1);
        assert_eq!(broken_by("src/limits.rs", "pub const QUEUE_MAX: usize = 3;\n"), Vec::<Violation>::new());
        assert_eq!(broken_by("src/broker/mod.rs", "const fn widest_MAX() -> u8 { 1 }\n"), Vec::<Violation>::new());
    }

    #[test]
    fn a_place_of_one_machine_is_named() {
        let host = ["crates", ".io"].concat();
        let path = ["/ro", "ot/.cargo"].concat();
        assert_eq!(machine_places("docs/a.md", &format!("from {host}\n")).len(), 1);
        assert_eq!(machine_places("docs/a.md", &format!("in {path}\n")).len(), 1);
        assert_eq!(machine_places("docs/a.md", &format!("in /proc/1{path}\n")), Vec::<Violation>::new());
        assert_eq!(
            machine_places("Cargo.lock", &format!("source = \"registry+https://{host}\"\n")),
            Vec::<Violation>::new()
        );
        assert_eq!(machine_places("docs/a.md", &format!("source = \"registry+https://{host}\"\n")).len(), 1);
    }

    #[test]
    fn a_document_that_cites_what_is_not_there_is_named() {
        let check = |text: &str| {
            let has_test = |file: &str, test: &str| (file, test) == ("simulation", "nothing_is_lost");
            cited("README.md", text, has_test, |path| path == "docs/limits.md").len()
        };
        assert_eq!(
            check("see `docs/limits.md` and `simulation::nothing_is_lost`, `tests/root_*.rs`, `worker::Worker`"),
            0
        );
        assert_eq!(check("see `docs/limit.md`"), 1);
        assert_eq!(check("see `simulation::nothing_was_lost`"), 1);
    }
}
