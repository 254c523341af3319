//! The house rules as tests: dependencies, module headers, forbidden calls, documented bounds.
//! Each rule function stands in `tests/tidy/` beside the sample that it must catch.

#[path = "tidy/limits.rs"]
mod limits;
#[path = "tidy/packages.rs"]
mod packages;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn assert_none(broken: Vec<String>) {
    assert!(broken.is_empty(), "{} rule(s) broken:\n{}\n", broken.len(), broken.join("\n"));
}

#[test]
fn every_source_file_keeps_the_house_rules() {
    let sources = ["src", "tests"].iter().flat_map(|folder| source::read_sources(&root(), folder));
    assert_none(sources.flat_map(|source| rules::check(&source)).collect());
}

#[test]
fn no_file_names_a_place_that_only_one_machine_has() {
    let mut broken = Vec::new();
    for path in source::files_below(&root()) {
        let path_text = source::relative(&root(), &path);
        if let Ok(text) = std::fs::read_to_string(&path) {
            broken.extend(rules::machine_places(&path_text, &text));
        }
    }
    assert_none(broken);
}

#[test]
fn locked_packages_are_the_allowed_ones_and_few() {
    let allowed = packages::parse_allowed(&read("tests/data/tidy/allowed-packages.txt")).expect("a well-formed list");
    let lock = packages::parse_lock(&read("Cargo.lock"), env!("CARGO_PKG_NAME"));
    assert_none(packages::check_lock(&lock, &allowed));
}

#[test]
fn the_allowed_list_tells_truly_what_linux_compiles() {
    let allowed = packages::parse_allowed(&read("tests/data/tidy/allowed-packages.txt")).expect("a well-formed list");
    let lock = packages::parse_lock(&read("Cargo.lock"), env!("CARGO_PKG_NAME"));
    let linked = cargo_tree(&root(), "normal,no-proc-macro");
    let any = cargo_tree(&root(), "normal,build,dev");
    assert_none(packages::check_tree(&lock, &allowed, &linked, &any));
}

#[test]
fn every_dependency_has_its_reason_in_the_docs() {
    let allowed = packages::parse_allowed(&read("tests/data/tidy/allowed-packages.txt")).expect("a well-formed list");
    assert_none(packages::check_docs(&allowed, &read("docs/dependencies.md")));
}

#[test]
fn documents_cite_only_tests_and_files_that_exist() {
    let has_test = |file: &str, test: &str| {
        let text = std::fs::read_to_string(root().join(format!("tests/{file}.rs"))).unwrap_or_default();
        text.contains(&format!("fn {test}("))
    };
    let mut broken = Vec::new();
    for path in source::files_below(&root()) {
        let path_text = source::relative(&root(), &path);
        if path_text.ends_with(".md") {
            broken.extend(rules::cited(&path_text, &read(&path_text), has_test, |cited| root().join(cited).exists()));
        }
    }
    assert_none(broken);
}

/// With `KHEISH_TIDY_WRITE=1` (`make limits`) the table is written instead of compared.
#[test]
fn every_bound_is_in_the_docs_with_its_value_and_reason() {
    // The rooms' own files follow the common one, each once.
    let mut rooms: Vec<String> = std::fs::read_dir(root().join("src/limits"))
        .expect("src/limits")
        .map(|entry| entry.expect("an entry").path().display().to_string())
        .collect();
    rooms.sort();
    let text: String = std::iter::once(read("src/limits.rs")).chain(rooms.iter().map(|path| read(path))).collect();
    let bounds = limits::parse(&text).unwrap_or_else(|error| panic!("{error}"));
    let docs = read("docs/limits.md");
    if std::env::var_os("KHEISH_TIDY_WRITE").is_some() {
        let docs = limits::with_table(&docs, &limits::table(&bounds)).unwrap_or_else(|error| panic!("{error}"));
        std::fs::write(root().join("docs/limits.md"), docs).expect("docs/limits.md is writable");
        return;
    }
    let mut broken = limits::differences(&docs, &bounds);
    if !broken.is_empty() {
        broken.push("next: run `make limits` and commit docs/limits.md".to_string());
    }
    assert_none(broken);
}

fn cargo_tree(root: &Path, edges: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--target",
            "x86_64-unknown-linux-gnu",
            "--prefix",
            "none",
            "-e",
            edges,
        ])
        .current_dir(root)
        .output()
        .expect("cargo is there, since it started this test");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
