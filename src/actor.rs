//! Who is behind a change: the caller that a journal line names.
//! Owns: the caller's parts and their one spelling in JSON.
//! Never: holds a token; its fingerprint tells tokens apart and confirms no guess.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::hex::{parse_hex, to_hex};
use crate::limits::{ACTOR_JSON_BYTES_MAX, HTTP_REQUEST_ID_BYTES_MAX};

/// What the caller's token let it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorRole {
    /// Everything.
    Admin,
    /// Reads of the read-only class.
    ReadOnly,
}

/// An API caller. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Actor(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    role: ActorRole,
    token: Option<[u8; 4]>,
    peer: Option<SocketAddr>,
    request_id: Box<str>,
}

/// The JSON form; members that do not apply are left out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    role: ActorRole,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    request_id: std::borrow::Cow<'a, str>,
}

impl Actor {
    /// A caller. `token` is the token's fingerprint, absent while authentication is off; `peer` is absent for the Unix
    /// socket.
    ///
    /// # Panics
    /// `request_id` is not 1 to 64 bytes of `[A-Za-z0-9._-]`, which the edge makes sure of.
    pub fn new(role: ActorRole, token: Option<[u8; 4]>, peer: Option<SocketAddr>, request_id: &str) -> Self {
        assert!(is_request_id(request_id), "{request_id:?} is no request id");
        Self(Arc::new(Parts { role, token, peer, request_id: request_id.into() }))
    }

    /// The caller's role.
    pub fn role(&self) -> ActorRole {
        self.0.role
    }

    /// Fingerprint of the caller's token, 8 hex digits.
    pub fn token(&self) -> Option<String> {
        self.0.token.map(|token| to_hex(&token))
    }

    /// Address of the TCP peer.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// The request.
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    fn form(&self) -> Form<'_> {
        let Parts { role, token, peer, request_id } = &*self.0;
        let token = token.map(|token| to_hex(&token).into());
        Form { role: *role, token, peer: *peer, request_id: (&**request_id).into() }
    }

    /// Appends the caller as one compact JSON object, whose spelling is the only one.
    pub fn write_json(&self, buffer: &mut Vec<u8>) {
        serde_json::to_writer(buffer, &self.form()).expect("strings go into memory without failing");
    }

    /// Reads the object at the beginning of `bytes`; the caller and the object's length. `None` when there is none in
    /// the one spelling.
    pub fn read_json(bytes: &[u8]) -> Option<(Self, usize)> {
        // No member can hold a brace.
        let length = 1 + bytes.iter().take(ACTOR_JSON_BYTES_MAX).position(|byte| *byte == b'}')?;
        let object = &bytes[..length];
        let Form { role, token, peer, request_id } = serde_json::from_slice(object).ok()?;
        let token = match token {
            None => None,
            Some(token) => Some(parse_hex(token.as_bytes())?.try_into().ok()?),
        };
        if !is_request_id(&request_id) {
            return None;
        }
        let actor = Self::new(role, token, peer, &request_id);
        let mut spelled = Vec::with_capacity(length);
        actor.write_json(&mut spelled);
        (spelled == object).then_some((actor, length))
    }
}

fn is_request_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=HTTP_REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(legal)
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.form().serialize(serializer)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut json = Vec::new();
        self.write_json(&mut json);
        write!(f, "Actor({})", String::from_utf8_lossy(&json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_one_spelling_and_every_other_is_refused() {
        let full = Actor::new(ActorRole::Admin, Some([0x2d, 0x71, 0x16, 0x42]), "127.0.0.1:9".parse().ok(), "r-1");
        let spelled = r#"{"role":"admin","token":"2d711642","peer":"127.0.0.1:9","request_id":"r-1"}"#;
        let bare = Actor::new(ActorRole::ReadOnly, None, None, "a.b_c-9");
        for (actor, json) in [(full, spelled), (bare, r#"{"role":"read_only","request_id":"a.b_c-9"}"#)] {
            let mut bytes = Vec::new();
            actor.write_json(&mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), json);
            assert_eq!(Actor::read_json(format!("{json},\"body\":{{}}").as_bytes()), Some((actor, json.len())));
        }
        for other in [
            "",
            "{",
            "{}",
            r#"{"role":"admin"}"#,
            r#"{"role":"root","request_id":"r"}"#,
            r#"{"role":"admin","request_id":""}"#,
            r#"{"role":"admin","request_id":"a b"}"#,
            r#"{"role":"admin", "request_id":"r"}"#,
            r#"{"request_id":"r","role":"admin"}"#,
            r#"{"role":"admin","token":"2D711642","request_id":"r"}"#,
            r#"{"role":"admin","token":"2d7116","request_id":"r"}"#,
            r#"{"role":"admin","token":null,"request_id":"r"}"#,
            r#"{"role":"admin","peer":"localhost:1","request_id":"r"}"#,
            r#"{"role":"admin","peer":"[0:0::1]:1","request_id":"r"}"#,
            r#"{"role":"admin","request_id":"r","more":1}"#,
        ] {
            assert_eq!(Actor::read_json(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_longest_caller_fits_its_bound() {
        let peer = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".parse().ok();
        let longest = Actor::new(ActorRole::ReadOnly, Some([0xff; 4]), peer, &"x".repeat(HTTP_REQUEST_ID_BYTES_MAX));
        let mut bytes = Vec::new();
        longest.write_json(&mut bytes);
        let length = bytes.len();
        assert_eq!(Actor::read_json(&bytes), Some((longest, length)));
    }
}
