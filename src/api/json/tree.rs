//! JSON text as a tree that borrows from the body.
//! Owns: the bounds on depth and number of values, and the refusal of repeated members.
//! Never: copies a string that holds no escape; a body of one large string costs its own bytes only.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::api::text::quote;
use crate::limits::{JSON_DEPTH_MAX, JSON_VALUES_MAX};

/// One JSON value.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

/// Why bytes are no acceptable JSON document.
#[derive(Debug)]
pub(super) enum Defect {
    Encoding { byte: usize },
    Syntax { line: usize, column: usize },
    Eof { line: usize, column: usize },
    Depth { line: usize, column: usize },
    Values { line: usize, column: usize },
    Repeated { name: String, line: usize, column: usize },
}

impl Defect {
    /// Whether the bytes are JSON, but not in the shape that any route reads.
    pub(super) fn is_shape(&self) -> bool {
        matches!(self, Self::Repeated { .. })
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding { byte } => write!(f, "the body is not UTF-8, from byte {byte} on"),
            Self::Syntax { line, column } => write!(f, "not valid JSON at line {line} column {column}"),
            Self::Eof { line, column } => {
                write!(f, "the JSON document ends too early, at line {line} column {column}")
            }
            Self::Depth { line, column } => {
                write!(f, "nested deeper than {JSON_DEPTH_MAX} levels at line {line} column {column}")
            }
            Self::Values { line, column } => {
                write!(f, "more than {JSON_VALUES_MAX} values at line {line} column {column}")
            }
            Self::Repeated { name, line, column } => write!(
                f,
                "the member {} appears twice in one object, the second time at line {line} column {column}",
                quote(name)
            ),
        }
    }
}

/// Reads one document; nothing but blanks may follow it.
pub(super) fn read(body: &[u8]) -> Result<Node<'_>, Defect> {
    let text = std::str::from_utf8(body).map_err(|error| Defect::Encoding { byte: error.valid_up_to() })?;
    let bounds = Bounds { values: Cell::new(0), breach: RefCell::new(None) };
    let mut parser = serde_json::Deserializer::from_str(text);
    let read = Seed { bounds: &bounds, depth: 0 }.deserialize(&mut parser).and_then(|node| parser.end().map(|()| node));
    read.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        match (bounds.breach.into_inner(), error.is_eof()) {
            (Some(Breach::Depth), _) => Defect::Depth { line, column },
            (Some(Breach::Values), _) => Defect::Values { line, column },
            (Some(Breach::Repeated(name)), _) => Defect::Repeated { name, line, column },
            (None, true) => Defect::Eof { line, column },
            (None, false) => Defect::Syntax { line, column },
        }
    })
}

/// What was breached; kept beside the parser's error, whose text is not read back.
enum Breach {
    Depth,
    Values,
    Repeated(String),
}

struct Bounds {
    values: Cell<usize>,
    breach: RefCell<Option<Breach>>,
}

impl Bounds {
    fn refuse<E: Error>(&self, breach: Breach) -> E {
        self.breach.replace(Some(breach));
        E::custom("refused by our own bounds")
    }
}

#[derive(Clone, Copy)]
struct Seed<'b> {
    bounds: &'b Bounds,
    depth: usize,
}

impl Seed<'_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        if self.depth == JSON_DEPTH_MAX {
            return Err(self.bounds.refuse(Breach::Depth));
        }
        Ok(Self { bounds: self.bounds, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        let values = self.bounds.values.get() + 1;
        if values > JSON_VALUES_MAX {
            return Err(self.bounds.refuse(Breach::Values));
        }
        self.bounds.values.set(values);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(Node::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node<'de>, E> {
        Ok(Node::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(value.to_string())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node<'de>, A::Error> {
        let inner = self.inner()?;
        let mut object: Vec<(Cow<'de, str>, Node<'de>)> = Vec::new();
        let mut names = HashSet::new();
        while let Some(name) = members.next_key_seed(Name)? {
            // Most objects are small: comparing a few names beats hashing each.
            let repeated = match object.len() {
                0..SMALL_OBJECT_MEMBERS => object.iter().any(|(known, _)| *known == name),
                SMALL_OBJECT_MEMBERS => {
                    names.extend(object.iter().map(|(known, _)| known.clone()));
                    !names.insert(name.clone())
                }
                _ => !names.insert(name.clone()),
            };
            if repeated {
                return Err(self.bounds.refuse(Breach::Repeated(name.into_owned())));
            }
            object.push((name, members.next_value_seed(inner)?));
        }
        Ok(Node::Object(object))
    }
}

/// Objects below this size are searched for repeats one by one.
const SMALL_OBJECT_MEMBERS: usize = 16;

/// A member's name, borrowed when it holds no escape.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_string()))
    }
}
