//! The webhook sidecar: `kheish-daemon connector webhook`, the same as `connectors/python/run_connector.py webhook`.
//! Owns: its server, and its calls of the daemon and of callbacks.
//! May touch: the network of this host; its own environment, once.
//! Never: is part of the daemon's process; passes a webhook on that its route has not proven.

mod adapter;
mod routes;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use adapter::Adapter;

use crate::http::{Bind, Edge, EdgeConfig};
use crate::limits::SIDECAR_STOP_MS;
use crate::net::{BaseUrl, Host, Net, NetConfig};
use crate::secret::Secret;
use routes::Routes;

/// Why the sidecar did not start. The text holds no secret.
#[derive(Debug)]
pub struct SidecarError(String);

impl fmt::Display for SidecarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SidecarError {}

fn failed(text: impl fmt::Display) -> SidecarError {
    SidecarError(text.to_string())
}

const PREFIX: &str = "KHEISH_EXTERNAL_CONNECTOR_";

/// Serves until `wait_for_stop` returns, then finishes what it has in hand.
///
/// # Errors
/// A variable is missing or malformed, a credential was not given, or the port is taken.
pub fn run(environment: &BTreeMap<String, String>, wait_for_stop: impl FnOnce()) -> Result<(), SidecarError> {
    let optional = |name: &str| environment.get(&format!("{PREFIX}{name}")).filter(|text| !text.is_empty()).cloned();
    let required = |name: &str| {
        optional(name)
            .ok_or_else(|| failed(format!("{PREFIX}{name} is not set; next: have the daemon start this connector")))
    };
    let secret = |text: String| Secret::new(text.into_bytes());
    let name = required("NAME")?;
    let base_url = required("BASE_URL")?;
    let daemon = BaseUrl::parse(&required("DAEMON_BASE_URL")?).map_err(failed)?;
    let net = Net::new(&NetConfig { resolver_threads: 1, ..NetConfig::default() }).map_err(failed)?;
    let credential_token = optional("CREDENTIAL_TOKEN").map(secret);
    let keys: Vec<String> = match optional("CREDENTIAL_KEYS_JSON") {
        None => Vec::new(),
        Some(keys) => {
            serde_json::from_str(&keys).map_err(|_| failed(format!("{PREFIX}CREDENTIAL_KEYS_JSON is no list")))?
        }
    };
    let mut routes_text = environment.get("WEBHOOK_ROUTES_JSON").cloned().map(secret);
    for key in keys {
        let value = adapter::fetch_credential(&net, &daemon, &name, &key, credential_token.as_ref()).map_err(failed)?;
        if key == "WEBHOOK_ROUTES_JSON" {
            routes_text = Some(value);
        }
    }
    let session_mode = environment.get("WEBHOOK_SESSION_MODE").map_or("per_delivery", String::as_str);
    let routes = Routes::parse(routes_text.as_ref(), session_mode).map_err(failed)?;
    let adapter = Arc::new(Adapter::new(adapter::Parts {
        name,
        instance_id: optional("INSTANCE_ID"),
        token: optional("SHARED_TOKEN").map(secret),
        capture: optional("DELIVERY_CAPTURE_PATH").map(Into::into),
        routes,
        daemon,
        net,
    }));
    let address = own_address(&base_url);
    let address = address.ok_or_else(|| failed(format!("{PREFIX}BASE_URL is not http://127.0.0.1:<port>")))?;
    let edge = Edge::start(EdgeConfig::new(Bind::Tcp(address)), adapter.clone()).map_err(failed)?;
    wait_for_stop();
    adapter.drain();
    if !edge.drain(Duration::from_millis(SIDECAR_STOP_MS)) {
        log::warn!("some requests were still in hand at the end of the drain time");
    }
    adapter.cancel();
    edge.stop().map_err(failed)
}

/// Where the sidecar listens: at an address of this host, which its daemon calls.
fn own_address(base_url: &str) -> Option<SocketAddr> {
    let url = BaseUrl::parse(base_url).ok().filter(|url| !url.is_https())?;
    let target = url.target("");
    let (host, port) = target.host_and_port()?;
    let ip = match host {
        Host::Address(ip) => *ip,
        Host::Name(_) if host.is_localhost() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Host::Name(_) => return None,
    };
    Some(SocketAddr::new(ip, port))
}
