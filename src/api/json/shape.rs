//! From the tree to a typed value, with the place of the first mismatch.
//! Owns: the wording of shape errors and the JSON pointer to them.
//! Never: puts a value into an error; serde's own messages would.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::CowStrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::tree::Node;
use crate::api::text::{plain, quote};
use crate::limits::PROBLEM_QUOTE_BYTES_MAX;

/// The first place where the document is not what the type wants.
#[derive(Debug)]
pub(super) struct ShapeError {
    place: Option<String>,
    mismatch: Mismatch,
}

#[derive(Debug)]
enum Mismatch {
    Type { found: &'static str, expected: String },
    Value { expected: String },
    Length { expected: String },
    Variant { expected: &'static [&'static str] },
    UnknownField { name: String, expected: &'static [&'static str] },
    MissingField(&'static str),
    DuplicateField(&'static str),
    Own(String),
}

impl ShapeError {
    /// Notes the place; the innermost caller wins, since it knows best.
    fn at(mut self, path: &Path<'_>) -> Self {
        self.place.get_or_insert_with(|| path.to_string());
        self
    }
}

impl From<Mismatch> for ShapeError {
    fn from(mismatch: Mismatch) -> Self {
        Self { place: None, mismatch }
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: ", self.place.as_deref().unwrap_or("/"))?;
        match &self.mismatch {
            Mismatch::Type { found, expected } => write!(f, "expected {expected}, found {found}"),
            Mismatch::Value { expected } => write!(f, "the value is not {expected}"),
            Mismatch::Length { expected } => write!(f, "expected {expected}, found another number of them"),
            Mismatch::Variant { expected } => write!(f, "expected one of {}", expected.join(", ")),
            Mismatch::UnknownField { name, expected: [] } => {
                write!(f, "unknown field {}, expected no fields", quote(name))
            }
            Mismatch::UnknownField { name, expected } => {
                write!(f, "unknown field {}, expected one of {}", quote(name), expected.join(", "))
            }
            Mismatch::MissingField(name) => write!(f, "the field \"{name}\" is missing"),
            Mismatch::DuplicateField(name) => write!(f, "the field \"{name}\" is given twice under two names"),
            Mismatch::Own(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for ShapeError {}

/// The kind of a found value, without the value.
fn kind(unexpected: &Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "an array",
        Unexpected::Map | Unexpected::NewtypeStruct => "an object",
        _ => "another kind of value",
    }
}

impl Error for ShapeError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Mismatch::Own(text.to_string()).into()
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Mismatch::Type { found: kind(&unexpected), expected: expected.to_string() }.into()
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Mismatch::Value { expected: expected.to_string() }.into()
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Mismatch::Length { expected: expected.to_string() }.into()
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Mismatch::Variant { expected }.into()
    }

    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        Mismatch::UnknownField { name: name.to_string(), expected }.into()
    }

    fn missing_field(name: &'static str) -> Self {
        Mismatch::MissingField(name).into()
    }

    fn duplicate_field(name: &'static str) -> Self {
        Mismatch::DuplicateField(name).into()
    }
}

/// Where in the document a value stands; lives on the stack beside the recursion.
enum Path<'p> {
    Root,
    Member { parent: &'p Path<'p>, name: &'p str },
    Item { parent: &'p Path<'p>, index: usize },
}

impl Path<'_> {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member { parent, name } => {
                parent.write(f)?;
                let name = name.replace('~', "~0").replace('/', "~1");
                write!(f, "/{}", plain(&name, PROBLEM_QUOTE_BYTES_MAX / 4))
            }
            Self::Item { parent, index } => {
                parent.write(f)?;
                write!(f, "/{index}")
            }
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("/"),
            path => path.write(f),
        }
    }
}

/// Reads the tree as a `T`.
pub(super) fn read<T: DeserializeOwned>(root: Node<'_>) -> Result<T, ShapeError> {
    T::deserialize(Value { node: root, path: &Path::Root })
}

/// One node and its place.
struct Value<'de, 'p> {
    node: Node<'de>,
    path: &'p Path<'p>,
}

impl<'de> Value<'de, '_> {
    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        match self.node {
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(value),
            Node::Unsigned(value) => visitor.visit_u64(value),
            Node::Signed(value) => visitor.visit_i64(value),
            Node::Float(value) => visitor.visit_f64(value),
            Node::Text(Cow::Borrowed(value)) => visitor.visit_borrowed_str(value),
            Node::Text(Cow::Owned(value)) => visitor.visit_string(value),
            Node::List(items) => visitor.visit_seq(Items { items: items.into_iter(), index: 0, path: self.path }),
            Node::Object(members) => {
                visitor.visit_map(Members { members: members.into_iter(), next: None, path: self.path })
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self.node {
            Node::Null => "null",
            Node::Bool(_) => "a boolean",
            Node::Unsigned(_) | Node::Signed(_) | Node::Float(_) => "a number",
            Node::Text(_) => "a string",
            Node::List(_) => "an array",
            Node::Object(_) => "an object",
        }
    }
}

impl<'de> Deserializer<'de> for Value<'de, '_> {
    type Error = ShapeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        let path = self.path;
        self.visit(visitor).map_err(|error| error.at(path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ShapeError> {
        let path = self.path;
        match self.node {
            Node::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|error| error.at(path))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        let path = self.path;
        visitor.visit_newtype_struct(self).map_err(|error| error.at(path))
    }

    // A derived struct would also read itself from an array, field by field; a body must name its fields.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        match self.node {
            Node::Object(_) => self.deserialize_any(visitor),
            _ => Err(ShapeError::from(Mismatch::Type { found: self.kind(), expected: "an object".to_string() })
                .at(self.path)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        let (path, found) = (self.path, self.kind());
        let variant = match self.node {
            Node::Text(name) => Variant { name, content: None, path },
            Node::Object(mut members) if members.len() == 1 => {
                let (name, content) = members.pop().expect("one member was counted");
                Variant { name, content: Some(content), path }
            }
            Node::Object(_) => {
                let expected = "an object with one member".to_string();
                return Err(ShapeError::from(Mismatch::Length { expected }).at(path));
            }
            _ => {
                let expected = format!("one of {}", variants.join(", "));
                return Err(ShapeError::from(Mismatch::Type { found, expected }).at(path));
            }
        };
        visitor.visit_enum(variant).map_err(|error| error.at(path))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'de, 'p> {
    items: std::vec::IntoIter<Node<'de>>,
    index: usize,
    path: &'p Path<'p>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = ShapeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ShapeError> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let path = Path::Item { parent: self.path, index: self.index };
        self.index += 1;
        seed.deserialize(Value { node, path: &path }).map(Some).map_err(|error| error.at(&path))
    }
}

struct Members<'de, 'p> {
    members: std::vec::IntoIter<(Cow<'de, str>, Node<'de>)>,
    next: Option<(Cow<'de, str>, Node<'de>)>,
    path: &'p Path<'p>,
}

impl<'de> MapAccess<'de> for Members<'de, '_> {
    type Error = ShapeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ShapeError> {
        self.next = self.members.next();
        let Some((name, _)) = &self.next else { return Ok(None) };
        let name: CowStrDeserializer<'_, ShapeError> = name.clone().into_deserializer();
        // Not placed at the member: the complaint is about the object that holds it.
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ShapeError> {
        let (name, node) = self.next.take().expect("serde asks for a value after its key");
        let path = Path::Member { parent: self.path, name: &name };
        seed.deserialize(Value { node, path: &path }).map_err(|error| error.at(&path))
    }
}

/// An enum: a name, and for variants that carry something its content.
struct Variant<'de, 'p> {
    name: Cow<'de, str>,
    content: Option<Node<'de>>,
    path: &'p Path<'p>,
}

impl<'de, 'p> EnumAccess<'de> for Variant<'de, 'p> {
    type Error = ShapeError;
    type Variant = Content<'de, 'p>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'de, 'p>), ShapeError> {
        let name: CowStrDeserializer<'_, ShapeError> = self.name.clone().into_deserializer();
        let value = seed.deserialize(name)?;
        Ok((value, Content { name: self.name, content: self.content, parent: self.path }))
    }
}

struct Content<'de, 'p> {
    name: Cow<'de, str>,
    content: Option<Node<'de>>,
    parent: &'p Path<'p>,
}

impl<'de> Content<'de, '_> {
    fn with<T>(self, read: impl FnOnce(Value<'de, '_>) -> Result<T, ShapeError>) -> Result<T, ShapeError> {
        let path = Path::Member { parent: self.parent, name: &self.name };
        // A variant that needs content but came as a bare name sees null, and says what it wants instead.
        let node = self.content.unwrap_or(Node::Null);
        read(Value { node, path: &path }).map_err(|error| error.at(&path))
    }
}

impl<'de> VariantAccess<'de> for Content<'de, '_> {
    type Error = ShapeError;

    fn unit_variant(self) -> Result<(), ShapeError> {
        match &self.content {
            None | Some(Node::Null) => Ok(()),
            Some(_) => self.with(|value| {
                Err(Mismatch::Type { found: value.kind(), expected: "nothing beside the name".to_string() }.into())
            }),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ShapeError> {
        self.with(|value| seed.deserialize(value))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, ShapeError> {
        self.with(|value| value.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ShapeError> {
        self.with(|value| value.deserialize_struct("", fields, visitor))
    }
}
