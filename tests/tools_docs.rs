//! docs/tools.md lists the tools as they are. With `KHEISH_TIDY_WRITE=1` its table is written instead of compared.

use std::fmt::Write;

use kheish_daemon::tools::{Behavior, Place, TOOLS};

const BEGIN: &str = "<!-- table: made by tests/tools_docs.rs -->\n";
const END: &str = "<!-- end of table -->";

fn table() -> String {
    let mut table = "| tool | place | class | default | plan | parallel | again | longest | arguments |\n".to_string();
    table += "|---|---|---|---|---|---|---|---|---|\n";
    let mark = |is: bool| if is { "yes" } else { "–" };
    for def in TOOLS {
        let schema: serde_json::Value = serde_json::from_str(def.input_schema).expect("JSON");
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
        let name = |name: &String| {
            if required.contains(&name.as_str()) { format!("**`{name}`**") } else { format!("`{name}`") }
        };
        let arguments: Vec<String> = schema["properties"].as_object().expect("an object").keys().map(name).collect();
        let place = if def.place == Place::Worker { "worker" } else { "daemon" };
        let default = if def.default_rule == Behavior::Ask { "ask" } else { "allow" };
        writeln!(
            table,
            "| `{}` | {place} | {} | {default} | {} | {} | {} | {} ms | {} |",
            def.name,
            def.class.as_str(),
            mark(def.plan_safe),
            mark(def.parallel),
            mark(def.idempotent),
            def.timeout_ms,
            arguments.join(" ")
        )
        .expect("memory");
    }
    table
}

#[test]
fn the_table_of_tools_in_the_docs_is_the_one_that_models_are_offered_from() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tools.md");
    let text = std::fs::read_to_string(path).expect("docs/tools.md");
    let (before, rest) = text.split_once(BEGIN).expect("docs/tools.md has a table");
    let (found, after) = rest.split_once(END).expect("the table has an end");
    if std::env::var_os("KHEISH_TIDY_WRITE").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", table())).expect("docs/tools.md is writable");
        return;
    }
    assert_eq!(found, table(), "next: KHEISH_TIDY_WRITE=1 cargo test --test tools_docs");
}
