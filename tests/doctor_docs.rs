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
