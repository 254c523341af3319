//! docs/limits.md as a function of src/limits.rs.
//! Owns: the reading of the constants, their values and reasons, and the table made of them.
//! Never: decides a bound.

use std::collections::BTreeMap;

/// The table stands between these two lines; everything else in docs/limits.md is written by hand.
pub const TABLE_BEGIN: &str = "<!-- table: made from src/limits.rs by `make limits` -->";
/// See [`TABLE_BEGIN`].
pub const TABLE_END: &str = "<!-- end of table -->";

/// One bound as written in src/limits.rs.
#[derive(Debug, PartialEq, Eq)]
pub struct Bound {
    /// The section heading above it.
    pub section: String,
    /// Its name.
    pub name: String,
    /// Its value: evaluated when it is whole-number arithmetic, else as written.
    pub value: Value,
    /// Its doc comment in one line.
    pub reason: String,
}

/// A bound's value.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    /// Whole-number arithmetic, evaluated.
    Number(u128),
    /// Anything else, as written.
    Text(String),
}

/// Reads all `pub const` items with their sections and reasons.
///
/// # Errors
/// A bound without a doc comment.
pub fn parse(text: &str) -> Result<Vec<Bound>, String> {
    let mut bounds: Vec<Bound> = Vec::new();
    let mut numbers: BTreeMap<String, u128> = BTreeMap::new();
    let (mut section, mut reason) = (String::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("// --- ") {
            section = heading.trim_end_matches(['-', ' ']).to_string();
        } else if let Some(doc) = line.strip_prefix("///") {
            reason.push(doc.trim().to_string());
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            let mut item = rest.to_string();
            while !item.trim_end().ends_with(';') {
                item.push(' ');
                item.push_str(lines.next().ok_or("a constant without its end")?.trim());
            }
            let (name, rest) = item.split_once(':').ok_or("a constant without a type")?;
            let (_, written) = rest.split_once('=').ok_or("a constant without a value")?;
            let written = written.trim().trim_end_matches(';').trim();
            if reason.is_empty() {
                return Err(format!("src/limits.rs: {name} has no reason; next: add a `///` line above it"));
            }
            let value = match evaluate(written, &numbers) {
                Some(number) => {
                    numbers.insert(name.to_string(), number);
                    Value::Number(number)
                }
                None => Value::Text(written.to_string()),
            };
            let reason_text = std::mem::take(&mut reason).join(" ");
            bounds.push(Bound { section: section.clone(), name: name.to_string(), value, reason: reason_text });
        } else if !line.trim_start().starts_with('#') && !line.starts_with("//") {
            reason.clear();
        }
    }
    Ok(bounds)
}

/// The table for docs/limits.md.
pub fn table(bounds: &[Bound]) -> String {
    let mut out = String::new();
    let mut section = None;
    for bound in bounds {
        if section != Some(&bound.section) {
            section = Some(&bound.section);
            let heading = if bound.section.is_empty() { "general" } else { &bound.section };
            out.push_str(&format!(
                "\n## {heading}\n\n| bound | value | why, and what happens at it |\n|---|---|---|\n"
            ));
        }
        let reason = bound.reason.replace("[`", "`").replace("`]", "`").replace('|', "\\|");
        out.push_str(&format!("| `{}` | {} | {reason} |\n", bound.name, show(&bound.name, &bound.value)));
    }
    out.push('\n');
    out
}

/// Puts `table` between the two marks of `docs`.
///
/// # Errors
/// A mark is missing.
pub fn with_table(docs: &str, table: &str) -> Result<String, String> {
    let (before, rest) =
        docs.split_once(TABLE_BEGIN).ok_or("docs/limits.md: the mark that begins the table is gone")?;
    let (_, after) = rest.split_once(TABLE_END).ok_or("docs/limits.md: the mark that ends the table is gone")?;
    Ok(format!("{before}{TABLE_BEGIN}\n{table}{TABLE_END}{after}"))
}

/// What differs between the docs and the table that they should hold.
pub fn differences(docs: &str, bounds: &[Bound]) -> Vec<String> {
    let expected = match with_table(docs, &table(bounds)) {
        Ok(expected) => expected,
        Err(error) => return vec![error],
    };
    let rows =
        |text: &str| -> Vec<String> { text.lines().filter(|line| line.starts_with('|')).map(String::from).collect() };
    let (have, want) = (rows(docs), rows(&expected));
    let mut found: Vec<String> =
        want.iter().filter(|row| !have.contains(row)).map(|row| format!("docs/limits.md lacks: {row}")).collect();
    found
        .extend(have.iter().filter(|row| !want.contains(row)).map(|row| format!("docs/limits.md has too much: {row}")));
    if found.is_empty() && docs != expected {
        found.push("docs/limits.md: the table's order or headings differ".to_string());
    }
    found
}

fn show(name: &str, value: &Value) -> String {
    let number = match value {
        Value::Number(number) => *number,
        Value::Text(text) => return format!("`{text}`"),
    };
    let digits = with_separators(number);
    if name.contains("BYTES") {
        for (unit, size) in [("GiB", 1u128 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if number >= size && number.is_multiple_of(size) {
                return format!("{} {unit}", with_separators(number / size));
            }
        }
        return format!("{digits} bytes");
    }
    for (suffix, unit) in [("_MS", "ms"), ("_SECONDS", "s"), ("_S", "s")] {
        if name.ends_with(suffix) || name.contains(&format!("{suffix}_")) {
            return format!("{digits} {unit}");
        }
    }
    digits
}

fn with_separators(number: u128) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Evaluates `+ - * / <<`, parentheses, casts, literals and names of earlier constants.
fn evaluate(text: &str, names: &BTreeMap<String, u128>) -> Option<u128> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, names };
    let value = parser.shift()?;
    (parser.at == tokens.len()).then_some(value)
}

fn tokens(text: &str) -> Option<Vec<String>> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        let mut token = c.to_string();
        if c.is_alphanumeric() || c == '_' {
            while let Some(next) = chars.next_if(|next| next.is_alphanumeric() || *next == '_') {
                token.push(next);
            }
        } else if c == '<' {
            token.push(chars.next_if_eq(&'<')?);
        } else if !"+-*/()".contains(c) {
            return None;
        }
        tokens.push(token);
    }
    Some(tokens)
}

struct Parser<'a> {
    tokens: &'a [String],
    at: usize,
    names: &'a BTreeMap<String, u128>,
}

impl Parser<'_> {
    fn take(&mut self, any_of: &[&str]) -> Option<String> {
        let token = self.tokens.get(self.at).filter(|token| any_of.contains(&token.as_str()))?;
        self.at += 1;
        Some(token.clone())
    }

    fn shift(&mut self) -> Option<u128> {
        let mut value = self.sum()?;
        while self.take(&["<<"]).is_some() {
            value = value.checked_shl(u32::try_from(self.sum()?).ok()?)?;
        }
        Some(value)
    }

    fn sum(&mut self) -> Option<u128> {
        let mut value = self.product()?;
        while let Some(operator) = self.take(&["+", "-"]) {
            let right = self.product()?;
            value = if operator == "+" { value.checked_add(right)? } else { value.checked_sub(right)? };
        }
        Some(value)
    }

    fn product(&mut self) -> Option<u128> {
        let mut value = self.cast()?;
        while let Some(operator) = self.take(&["*", "/"]) {
            let right = self.cast()?;
            value = if operator == "*" { value.checked_mul(right)? } else { value.checked_div(right)? };
        }
        Some(value)
    }

    fn cast(&mut self) -> Option<u128> {
        let value = self.atom()?;
        while self.take(&["as"]).is_some() {
            self.take(&["u8", "u16", "u32", "u64", "u128", "usize", "i32", "i64"])?;
        }
        Some(value)
    }

    fn atom(&mut self) -> Option<u128> {
        if self.take(&["("]).is_some() {
            let value = self.shift()?;
            return self.take(&[")"]).map(|_| value);
        }
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        if let Some(value) = self.names.get(token) {
            return Some(*value);
        }
        let digits = token.replace('_', "");
        let digits = ["usize", "u128", "u64", "u32", "u16", "u8"]
            .iter()
            .fold(digits.as_str(), |digits, suffix| digits.strip_suffix(suffix).unwrap_or(digits));
        digits.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "//! Bounds.\n\n// --- http ----\n\n/// Body [`X`]; more is\n/// refused | 413.\npub const BODY_BYTES_MAX: \
                          usize = 24 * 1024 * 1024;\n/// Half of it.\npub const HALF_BYTES_MAX: u64 =\n    (BODY_BYTES_MAX as \
                          u64 + 1) / 2;\nconst _: () = assert!(true);\n\n// --- waits ---\n/// A wait.\npub const WAIT_MS: u64 \
                          = 2_000;\n/// A name.\npub const NAME: &str = \"x\";\n";

    #[test]
    fn values_units_sections_and_reasons_reach_the_table() {
        let table = table(&parse(LIMITS).expect("well-formed sample"));
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `") || line.starts_with('#')).collect();
        assert_eq!(
            rows,
            [
                "## http",
                "| `BODY_BYTES_MAX` | 24 MiB | Body `X`; more is refused \\| 413. |",
                "| `HALF_BYTES_MAX` | 12 MiB | Half of it. |",
                "## waits",
                "| `WAIT_MS` | 2,000 ms | A wait. |",
                "| `NAME` | `\"x\"` | A name. |",
            ]
        );
    }

    #[test]
    fn arithmetic_is_that_of_rust() {
        let names = BTreeMap::from([("A".to_string(), 7u128)]);
        for (text, value) in [
            ("2 + 3 * 4", Some(14)),
            ("(2 + 3) * 4", Some(20)),
            ("1 << 2 + 1", Some(8)),
            ("A as u64 * 1_000u64", Some(7000)),
            ("B", None),
            ("f(1)", None),
            ("\"a\"", None),
        ] {
            assert_eq!(evaluate(text, &names), value, "{text}");
        }
    }

    #[test]
    fn a_bound_without_a_reason_is_refused() {
        assert!(parse("pub const A_MAX: u8 = 1;\n").is_err());
        assert!(parse("/// Of another thing.\nconst _: () = ();\n\npub const A_MAX: u8 = 1;\n").is_err());
    }

    #[test]
    fn a_changed_missing_or_left_over_row_is_named() {
        let bounds = parse(LIMITS).expect("well-formed sample");
        let empty = format!("# Limits\n{TABLE_BEGIN}\n{TABLE_END}\n");
        let docs = with_table(&empty, &table(&bounds)).expect("both marks");
        assert_eq!(differences(&docs, &bounds), Vec::<String>::new());
        assert_eq!(differences(&empty, &bounds).len(), 8, "two heads with their rules, four rows");
        assert_eq!(differences(&docs.replace("2,000", "3,000"), &bounds).len(), 2);
        assert_eq!(differences(&docs.replace("| `NAME`", "| `OTHER`"), &bounds).len(), 2);
        assert_eq!(differences("# Limits\n", &bounds).len(), 1);
    }
}
