//! Lists as tables, for people.
//! Owns: columns, their widths, and short forms of cells.
//! Never: is the only way to a value; every table has its JSON.

use serde_json::Value;

use super::json_text::{Document, terminal_safe};
use crate::limits::CLI_TABLE_CELL_CHARS_MAX;
use crate::logging::rfc3339_seconds;

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Where its value stands in an item; the first of several that is there.
    pub pointers: &'static [&'static str],
    /// How the value reads.
    pub form: Form,
}

/// How a value reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As text.
    Text,
    /// Milliseconds since 1970 as a date.
    Time,
}

/// A column of text.
pub const fn text(title: &'static str, pointers: &'static [&'static str]) -> Column {
    Column { title, pointers, form: Form::Text }
}

/// A column of dates.
pub const fn time(title: &'static str, pointers: &'static [&'static str]) -> Column {
    Column { title, pointers, form: Form::Time }
}

/// The table of a list answer, either a bare array or a page; `None` when it is neither.
pub fn render(document: &Document, columns: &[Column]) -> Option<String> {
    let value: Value = serde_json::from_str(document.as_str()).ok()?;
    let (items, page) = match &value {
        Value::Array(items) => (items, None),
        Value::Object(page) => (page.get("items")?.as_array()?, page.get("pagination")),
        _ => return None,
    };
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| columns.iter().map(|column| cell(item, column)).collect()).collect();
    let mut out = String::new();
    if rows.is_empty() {
        out.push_str("(none)\n");
    } else {
        let titles: Vec<String> = columns.iter().map(|column| column.title.to_string()).collect();
        let widths: Vec<usize> = (0..columns.len())
            .map(|at| std::iter::once(&titles).chain(&rows).map(|row| row[at].chars().count()).max().unwrap_or(0))
            .collect();
        std::iter::once(&titles).chain(&rows).for_each(|row| push_row(&mut out, row, &widths));
    }
    if let Some(cursor) = page.and_then(|page| page.get("next_cursor")).and_then(Value::as_str) {
        let total = page.and_then(|page| page.get("total_count")).and_then(Value::as_u64).unwrap_or(0);
        out.push_str(&terminal_safe(&format!("{} of {total}; more: --cursor {cursor}\n", rows.len())));
    }
    Some(out)
}

fn push_row(out: &mut String, row: &[String], widths: &[usize]) {
    let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    out.push_str(cells.join("  ").trim_end());
    out.push('\n');
}

fn cell(item: &Value, column: &Column) -> String {
    let value = column.pointers.iter().find_map(|pointer| item.pointer(pointer)).unwrap_or(&Value::Null);
    let text = match (value, column.form) {
        (Value::Null, _) => "-".to_string(),
        (value, Form::Time) => value.as_u64().map_or_else(|| "-".to_string(), rfc3339_seconds),
        (Value::String(text), Form::Text) => text.clone(),
        (Value::Array(items), Form::Text) => items.len().to_string(),
        (value, Form::Text) => value.to_string(),
    };
    shorten(&terminal_safe(&text).replace(['\n', '\t'], " "))
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= CLI_TABLE_CELL_CHARS_MAX {
        return text.to_string();
    }
    text.chars().take(CLI_TABLE_CELL_CHARS_MAX - 1).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        text("RUN", &["/run_id"]),
        time("SUBMITTED", &["/submitted_at_ms"]),
        text("MODEL", &["/request/model", "/model"]),
    ];

    fn check(json: &str, expected: &str) {
        let document = Document::parse(json.as_bytes().to_vec()).expect("well-formed");
        assert_eq!(render(&document, COLUMNS).as_deref(), Some(expected));
    }

    #[test]
    fn arrays_and_pages_become_aligned_columns() {
        check(
            r#"[{"run_id":"run-1","submitted_at_ms":0,"request":{"model":"m"}},{"run_id":"run-1000","model":"n"}]"#,
            "RUN       SUBMITTED             MODEL\nrun-1     1970-01-01T00:00:00Z  m\nrun-1000  -                     n\n",
        );
        check(
            r#"{"items":[{"run_id":"a"}],"pagination":{"total_count":7,"has_more":true,"next_cursor":"Yw"}}"#,
            "RUN  SUBMITTED  MODEL\na    -          -\n1 of 7; more: --cursor Yw\n",
        );
        check("[]", "(none)\n");
    }

    #[test]
    fn a_cell_can_neither_steer_the_terminal_nor_break_its_line() {
        check(
            r#"[{"run_id":"a\u001b[2J\nb","model":"0123456789012345678901234567890123456789012345678901234567890"}]"#,
            "RUN           SUBMITTED  MODEL\na\\u{1b}[2J b  -          01234567890123456789012345678901234567890123456…\n",
        );
    }

    #[test]
    fn what_is_no_list_has_no_table() {
        let document = Document::parse(b"{\"a\":1}".to_vec()).expect("well-formed");
        assert_eq!(render(&document, COLUMNS), None);
    }
}
