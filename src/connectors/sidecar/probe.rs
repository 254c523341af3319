//! Looks at sidecars: `GET /manifest` and `GET /health`.
//! Owns: the thread that may wait for a sidecar, so that the supervisor need not.
//! May touch: the network, on this host.
//! Never: looks at two sidecars at once, or for longer than its bound.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use serde::Deserialize;

use crate::limits::{SIDECAR_ANSWER_BYTES_MAX, SIDECAR_LOOK_MS_MAX};
use crate::net::{Auth, BaseUrl, Cancel, Method, Net, Purpose, Request, Timeouts};
use crate::secret::Secret;
use crate::sys::EventFd;

/// A look that is to be taken.
pub(super) struct Look {
    pub(super) name: String,
    pub(super) generation: u64,
    pub(super) base_url: String,
    pub(super) token: Option<Arc<Secret>>,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// It answers.
    Up { instance_id: String, status: String, detail: Option<String> },
    /// It does not, or not yet.
    Down(String),
    /// It never will: it speaks another version.
    Foreign(String),
}

/// A look that was taken.
pub(super) struct Looked {
    pub(super) name: String,
    pub(super) generation: u64,
    pub(super) seen: Seen,
}

#[derive(Deserialize)]
struct Manifest {
    protocol_version: u64,
    instance_id: String,
}

#[derive(Deserialize)]
struct Health {
    protocol_version: u64,
    instance_id: String,
    status: String,
    #[serde(default)]
    detail: Option<String>,
}

/// The thread: takes looks until the last sender is gone.
pub(super) fn run(net: &Net, looks: &Receiver<Look>, results: &Sender<Looked>, wake: &EventFd, cancel: &Cancel) {
    for look in looks {
        let seen = take(net, &look, cancel);
        let looked = Looked { name: look.name, generation: look.generation, seen };
        if results.send(looked).is_err() {
            return;
        }
        wake.wake();
    }
}

fn take(net: &Net, look: &Look, cancel: &Cancel) -> Seen {
    let manifest: Manifest = match ask(net, look, "/manifest", cancel) {
        Ok(manifest) => manifest,
        Err(cause) => return Seen::Down(cause),
    };
    if manifest.protocol_version != 1 {
        return Seen::Foreign(format!("its manifest is of version {}, not 1", manifest.protocol_version));
    }
    let health: Health = match ask(net, look, "/health", cancel) {
        Ok(health) => health,
        Err(cause) => return Seen::Down(cause),
    };
    if health.protocol_version != 1 || health.instance_id != manifest.instance_id {
        return Seen::Down("its manifest and its health are those of two processes".to_string());
    }
    Seen::Up { instance_id: manifest.instance_id, status: health.status, detail: health.detail }
}

fn ask<T: serde::de::DeserializeOwned>(net: &Net, look: &Look, path: &str, cancel: &Cancel) -> Result<T, String> {
    let base = BaseUrl::parse(&look.base_url).map_err(|error| error.to_string())?;
    let target = base.target(path);
    let request = Request {
        method: Method::Get,
        target: &target,
        purpose: Purpose::Connector,
        allow_private: true,
        headers: &[],
        auth: look.token.as_ref().map(|token| Auth::bearer(Secret::new(token.expose().to_vec()))),
        body: None,
        timeouts: Timeouts {
            connect_ms: SIDECAR_LOOK_MS_MAX,
            first_byte_ms: SIDECAR_LOOK_MS_MAX,
            idle_ms: SIDECAR_LOOK_MS_MAX,
            total_ms: Some(SIDECAR_LOOK_MS_MAX),
        },
        body_bytes_max: SIDECAR_ANSWER_BYTES_MAX,
    };
    let mut response = net.send(request, cancel).map_err(|error| format!("{path}: {error}"))?;
    if response.status != 200 {
        return Err(format!("{path}: status {}", response.status));
    }
    let body = response.body.read_to_end().map_err(|error| format!("{path}: {error}"))?;
    serde_json::from_slice(&body).map_err(|_| format!("{path}: no answer of a sidecar"))
}
