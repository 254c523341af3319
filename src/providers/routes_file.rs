//! The routes file as written: TOML with positions, nothing judged but shape.
//! Owns: the list of keys, their types, and where in the file each value stands.
//! Never: repeats a value or an unknown key in a message; either may be a misplaced secret.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use crate::limits::ROUTES_MAX;

use super::routes::{Diagnostic, Severity};

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub place: Place,
}

/// Line and column, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Flag,
    Number,
    /// A list of texts.
    Texts,
}

const TOP_KEYS: [(&str, Kind); 2] = [("version", Kind::Number), ("default_route", Kind::Text)];

const ROUTE_KEYS: [(&str, Kind); 31] = [
    ("driver", Kind::Text),
    ("default_model", Kind::Text),
    ("model_support", Kind::Text),
    ("auth_ref", Kind::Text),
    ("api_key", Kind::Text),
    ("api_key_env", Kind::Text),
    ("base_url", Kind::Text),
    ("organization", Kind::Text),
    ("organization_env", Kind::Text),
    ("project", Kind::Text),
    ("project_env", Kind::Text),
    ("openai_auth_source", Kind::Text),
    ("openai_auth_file", Kind::Text),
    ("anthropic_auth_source", Kind::Text),
    ("anthropic_credentials_file", Kind::Text),
    ("anthropic_version", Kind::Text),
    ("anthropic_beta_headers", Kind::Texts),
    ("multimodal_input", Kind::Flag),
    ("native_web_search", Kind::Flag),
    ("image_generation", Kind::Flag),
    ("image_edit", Kind::Flag),
    ("audio_generation", Kind::Flag),
    ("transcription", Kind::Flag),
    ("connect_timeout_ms", Kind::Number),
    ("first_byte_timeout_ms", Kind::Number),
    ("idle_timeout_ms", Kind::Number),
    ("total_timeout_ms", Kind::Number),
    ("context_window_tokens", Kind::Number),
    ("max_concurrency", Kind::Number),
    ("failover", Kind::Text),
    ("ca_file", Kind::Text),
];

/// One table with its values sorted by type; texts are wiped when dropped.
#[derive(Debug, Default)]
pub(super) struct RawTable {
    texts: BTreeMap<&'static str, At<Zeroizing<String>>>,
    flags: BTreeMap<&'static str, At<bool>>,
    numbers: BTreeMap<&'static str, At<u64>>,
    lists: BTreeMap<&'static str, At<Vec<Zeroizing<String>>>>,
}

impl RawTable {
    pub(super) fn text(&self, key: &str) -> Option<At<&str>> {
        self.texts.get(key).map(|at| At { value: at.value.as_str(), place: at.place })
    }

    pub(super) fn flag(&self, key: &str) -> Option<At<bool>> {
        self.flags.get(key).map(|at| At { value: at.value, place: at.place })
    }

    pub(super) fn texts(&self, key: &str) -> Option<At<Vec<&str>>> {
        let list = self.lists.get(key)?;
        Some(At { value: list.value.iter().map(|text| text.as_str()).collect(), place: list.place })
    }

    pub(super) fn number(&self, key: &str) -> Option<At<u64>> {
        self.numbers.get(key).map(|at| At { value: at.value, place: at.place })
    }
}

/// The file as written.
#[derive(Debug, Default)]
pub(super) struct RawRoutes {
    pub top: RawTable,
    pub routes: Vec<(At<String>, RawTable)>,
    /// Faults of shape found on the way.
    pub faults: Vec<Diagnostic>,
}

impl RawRoutes {
    /// Reads `text`. A syntax error ends the reading; faults of shape are collected.
    pub(super) fn parse(text: &str) -> Self {
        let mut raw = Self::default();
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let place = place(text, error.span().unwrap_or(0..0));
                let message = "this is not valid TOML; next: check quotes, brackets and doubled keys on this line";
                raw.fault("toml_syntax", None, place, message.to_string());
                return raw;
            }
        };
        for (key, value) in table.get_ref() {
            let at = place(text, key.span());
            if key.get_ref() == "routes" {
                raw.read_routes(text, value.get_ref(), at);
            } else {
                let mut top = std::mem::take(&mut raw.top);
                raw.read_value(&mut top, &TOP_KEYS, key.get_ref(), at, value.get_ref(), None);
                raw.top = top;
            }
        }
        raw
    }

    fn read_routes(&mut self, text: &str, value: &DeValue<'_>, at: Place) {
        let DeValue::Table(routes) = value else {
            let message = "`routes` must be a table of tables; next: write [routes.<id>] headings";
            return self.fault("wrong_type", None, at, message.to_string());
        };
        for (id, value) in routes {
            let at = place(text, id.span());
            let DeValue::Table(fields) = value.get_ref() else {
                let message = "a route must be a table; next: write it under a [routes.<id>] heading";
                self.fault("wrong_type", None, at, message.to_string());
                continue;
            };
            if self.routes.len() == ROUTES_MAX {
                let message = format!("over {ROUTES_MAX} routes; next: remove routes that are not used");
                return self.fault("too_many_routes", None, at, message);
            }
            let mut table = RawTable::default();
            for (key, value) in fields {
                let at = place(text, key.span());
                self.read_value(&mut table, &ROUTE_KEYS, key.get_ref(), at, value.get_ref(), Some(id.get_ref()));
            }
            self.routes.push((At { value: id.get_ref().to_string(), place: at }, table));
        }
    }

    fn read_value(
        &mut self,
        table: &mut RawTable,
        keys: &[(&'static str, Kind)],
        key: &str,
        at: Place,
        value: &DeValue<'_>,
        route: Option<&str>,
    ) {
        let Some((key, kind)) = keys.iter().find(|(name, _)| *name == key) else {
            let message = match nearest(key, keys.iter().map(|(name, _)| *name)) {
                Some(name) => format!("unknown key; next: did you mean `{name}`?"),
                None => "unknown key; next: remove it, docs/operators/routes.md lists the keys".to_string(),
            };
            return self.fault("unknown_key", route, at, message);
        };
        let wanted = match (kind, value) {
            (Kind::Text, DeValue::String(text)) => {
                table.texts.insert(key, At { value: Zeroizing::new(text.to_string()), place: at });
                return;
            }
            (Kind::Flag, DeValue::Boolean(flag)) => {
                table.flags.insert(key, At { value: *flag, place: at });
                return;
            }
            (Kind::Number, DeValue::Integer(number)) => {
                if let Ok(value) = u64::from_str_radix(number.as_str(), number.radix()) {
                    table.numbers.insert(key, At { value, place: at });
                    return;
                }
                "a whole number that is not negative"
            }
            (Kind::Texts, DeValue::Array(items)) => {
                let text = |item: &toml::Spanned<DeValue<'_>>| match item.get_ref() {
                    DeValue::String(text) => Some(Zeroizing::new(text.to_string())),
                    _ => None,
                };
                if let Some(texts) = items.iter().map(text).collect() {
                    table.lists.insert(key, At { value: texts, place: at });
                    return;
                }
                "a list of texts in quotes"
            }
            (Kind::Text, _) => "a text in quotes",
            (Kind::Texts, _) => "a list of texts in quotes, as [\"one\", \"two\"]",
            (Kind::Flag, _) => "true or false",
            (Kind::Number, _) => "a whole number without quotes",
        };
        self.fault("wrong_type", route, at, format!("`{key}` has the wrong type; next: give it {wanted}"));
    }

    fn fault(&mut self, code: &'static str, route: Option<&str>, at: Place, message: String) {
        self.faults.push(Diagnostic::new(Severity::Error, code, route, Some(at), message));
    }
}

fn place(text: &str, span: Range<usize>) -> Place {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let before = &text[..start];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// The known name that `key` was probably meant to be: at most two letters away, and no further than a third.
pub(super) fn nearest<'k>(key: &str, names: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let folded = key.to_ascii_lowercase().replace('-', "_");
    let (distance, name) = names.map(|name| (edit_distance(&folded, name), name)).min()?;
    (distance <= 2 && distance * 3 <= name.len()).then_some(name)
}

fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    // A key this long is no typing error, and the work stays small.
    for (i, a) in from.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()] + from.chars().count().saturating_sub(64)
}
