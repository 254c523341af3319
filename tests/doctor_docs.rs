//! docs/operators/doctor.md tells the table of codes as it is. With `KHEISH_TIDY_WRITE=1` it is written instead of compared.
//! Owns: the comparison. Never: lets a code go without its line.

use std::fs;
use std::path::PathBuf;

use kheish_daemon::doctor::codes;

const BEGIN: &str = "<!-- table: made from src/doctor/codes.rs by tests/doctor_docs.rs -->\n";
const END: &str = "<!-- end of table -->";

#[test]
fn the_codes_in_the_docs_are_the_ones_that_are_found() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/operators/doctor.md");
    let text = fs::read_to_string(&path).expect("the page is part of the repository");
    let (before, rest) = text.split_once(BEGIN).expect("the page has the table");
    let (found, after) = rest.split_once(END).expect("the table has an end");
    let wanted = codes::markdown();
    if std::env::var_os("KHEISH_TIDY_WRITE").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).expect("the page is writable");
        return;
    }
    assert_eq!(found, wanted, "next: KHEISH_TIDY_WRITE=1 cargo test --test doctor_docs");
}

/// The sources that find something.
fn sources() -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut text = String::new();
    for directory in ["doctor", "cli"] {
        for entry in fs::read_dir(root.join(directory)).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_file() && name != "codes.rs" && (directory == "doctor" || name.starts_with("doctor")) {
                text.push_str(&fs::read_to_string(&path).expect("a source"));
            }
        }
    }
    text
}

/// A code that nothing finds would promise a check that nobody makes; one that is not in the table would end the command.
#[test]
fn every_code_of_the_table_is_found_somewhere_and_no_other_is() {
    let sources = sources();
    for row in codes::CODES {
        assert!(sources.contains(&format!("\"{}\"", row.code)), "nothing finds {}", row.code);
    }
    let calls = ["add(", "add_with("].iter().flat_map(|call| sources.split(call).skip(1));
    let mut seen = 0;
    for call in calls {
        let Some(code) = call.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) else { continue };
        seen += 1;
        assert!(codes::find(code).is_some(), "{code} is not in the table");
    }
    assert!(seen > 60, "{seen} calls");
}
