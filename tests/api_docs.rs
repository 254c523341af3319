//! The papers and the OpenAPI document tell the route table and the problem table as they are.
//! With `KHEISH_TIDY_WRITE=1` the two tables in docs/ are written instead of compared.

mod api_check;

use std::fs;
use std::path::PathBuf;

use kheish_daemon::api::openapi;
use kheish_daemon::api::resource_schemas;
use kheish_daemon::api::routes::ROUTES;

const BEGIN: &str = "<!-- table: made by tests/api_docs.rs -->\n";
const END: &str = "<!-- end of table -->";

fn check_table(name: &str, table: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("docs/{name}: {error}"));
    let (before, rest) = text.split_once(BEGIN).unwrap_or_else(|| panic!("docs/{name} has no table"));
    let (found, after) = rest.split_once(END).unwrap_or_else(|| panic!("docs/{name}: the table has no end"));
    if std::env::var_os("KHEISH_TIDY_WRITE").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))
            .unwrap_or_else(|error| panic!("docs/{name}: {error}"));
        return;
    }
    for (line, (found, wanted)) in found.lines().zip(table.lines()).enumerate() {
        assert_eq!(
            found, wanted,
            "docs/{name}, table line {line}; next: KHEISH_TIDY_WRITE=1 cargo test --test api_docs"
        );
    }
    assert_eq!(
        found.lines().count(),
        table.lines().count(),
        "docs/{name}; next: KHEISH_TIDY_WRITE=1 cargo test --test api_docs"
    );
}

#[test]
fn the_route_table_in_the_docs_is_the_one_that_is_served() {
    check_table("http-api.md", &api_check::route_table(ROUTES));
}

#[test]
fn the_problem_codes_in_the_docs_are_the_ones_that_are_sent() {
    check_table("problem-codes.md", &api_check::problem_table());
}

#[test]
fn the_openapi_document_describes_every_route() {
    let document = openapi::document(ROUTES, resource_schemas::ALL);
    api_check::check_openapi(ROUTES, &serde_json::from_slice(&document).expect("JSON"));
}
