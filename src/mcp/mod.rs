//! MCP servers: outside tools for the runs of this daemon.
//! Owns: their configuration, their connections and processes, and what is made of their answers.
//! May touch: child processes of this same binary; the network through `net`; secrets through the broker's leases;
//! durable records through the core.
//! Never: believes what a server says of itself, its tools or its results; lets one server hold up another.
//!
//! Each configured server has one thread, which connects it, reads what it says by itself and connects it anew. Calls run on
//! the caller's thread: over HTTP wholly, and to a child process by waiting for what that server's thread reads.

mod asking;
pub mod boot;
pub mod catalog;
mod catalogue;
pub mod config;
pub mod config_file;
mod content;
mod credential;
pub mod discovery;
mod error;
pub mod form;
mod headers;
mod http;
mod inbox;
mod link;
pub mod login;
mod message;
mod rate;
mod record;
mod room;
mod server;
mod session;
mod stderr;
mod stdio;
mod view;
pub mod worker;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use config::{ConfigError, ServerConfig};
pub use error::McpError;
pub use server::Switch;
pub use view::{ServerView, Snapshot, Stats, ToolView};

use asking::Desk;
use credential::Vault;
use record::{Chain, Recorder};
use room::Errand;
use server::{Server, World};

use crate::broker::{BrokerHandle, SecretReference, SlotId};
use crate::clock::Clock;
use crate::commit::CoreHandle;
use crate::limits::{MCP_OPERATOR_CALL_MS_MAX, MCP_READY_GRACE_MS, MCP_TOOL_TIMEOUT_S_DEFAULT};
use crate::net::{Cancel, Net};
use crate::sandbox::Sandbox;
use crate::secret::Secret;
use crate::tools::ToolOutput;
use crate::worker::Worker;

/// What the room is made of.
pub struct Parts {
    /// The servers.
    pub servers: Vec<ServerConfig>,
    /// The file that they come from.
    pub config_path: Option<PathBuf>,
    /// The profiles that some come from.
    pub profiles: Vec<String>,
    /// What an operator has decided about servers, by name; all others are used.
    pub switches: Vec<(String, Switch)>,
    /// Credentials.
    pub broker: BrokerHandle,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Durable state.
    pub core: CoreHandle,
    /// The way out.
    pub net: Net,
    /// What child processes shut themselves in with.
    pub sandbox: Sandbox,
    /// The workspace, canonical.
    pub workspace: PathBuf,
}

struct Inner {
    servers: Vec<Arc<Server>>,
    config_path: Option<PathBuf>,
    profiles: Vec<String>,
    stop: Cancel,
    desk: Arc<Desk>,
}

/// Access to the servers. Cheap to clone.
#[derive(Clone)]
pub struct Mcp(Arc<Inner>);

impl Mcp {
    /// Starts a thread for each server and waits for the required ones.
    ///
    /// # Errors
    /// No thread or descriptor is left. That a required server cannot be connected is told by [`Mcp::require`].
    pub fn start(parts: Parts) -> io::Result<(Self, Vec<Worker>)> {
        let stop = Cancel::new();
        let desk = Desk::new(parts.core.clone(), stop.clone());
        let world = World {
            vault: Vault { broker: parts.broker, clock: parts.clock },
            recorder: Arc::new(Recorder::new(parts.core)),
            net: parts.net,
            sandbox: parts.sandbox,
            workspace: parts.workspace,
            stop: stop.clone(),
        };
        let switch = |name: &str| {
            parts.switches.iter().find(|(known, _)| known == name).map_or(Switch::On, |(_, switch)| *switch)
        };
        let servers = parts.servers.into_iter().map(|config| {
            let switch = switch(&config.name);
            Server::new(config, switch).map(Arc::new)
        });
        let servers = servers.collect::<io::Result<Vec<_>>>()?;
        let mcp =
            Self(Arc::new(Inner { servers, config_path: parts.config_path, profiles: parts.profiles, stop, desk }));
        let thread = |(index, server): (usize, &Arc<Server>)| {
            let (server, world) = (server.clone(), world.clone());
            Worker::spawn(format!("mcp-{}", index + 1), move || server.run(&world))
        };
        let mut threads = mcp.0.servers.iter().enumerate().map(thread).collect::<io::Result<Vec<_>>>();
        if let Ok(started) = &mut threads
            && mcp.is_configured()
        {
            let desk = mcp.0.desk.clone();
            match Worker::spawn("mcp-asks", move || desk.watch()) {
                Ok(watch) => started.push(watch),
                Err(error) => threads = Err(error),
            }
        }
        if threads.is_err() {
            mcp.stop();
        }
        Ok((mcp, threads?))
    }

    /// Waits for the servers without which the daemon is not to start.
    ///
    /// # Errors
    /// The first one that could not be connected in its time.
    pub fn require(&self) -> Result<(), McpError> {
        for server in self.servers().filter(|server| server.config.required && server.known().switch == Switch::On) {
            server.ready(server.config.startup_ms + MCP_READY_GRACE_MS, &self.0.stop)?;
        }
        Ok(())
    }

    /// Secrets of the configuration that came from the environment: what is shown anywhere is to be without them.
    pub fn environment_secrets(servers: &[ServerConfig]) -> Vec<Arc<Secret>> {
        servers.iter().filter_map(ServerConfig::environment_secret).collect()
    }

    /// Ends all connections and processes. The threads end soon after.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    fn desk(&self) -> &Arc<Desk> {
        &self.0.desk
    }

    /// The servers that were not removed.
    fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.0.servers.iter().filter(|server| server.known().switch != Switch::Removed)
    }

    fn server(&self, name: &str) -> Option<Arc<Server>> {
        self.servers().find(|server| server.config.name == name).cloned()
    }

    fn known_server(&self, name: &str) -> Result<Arc<Server>, McpError> {
        self.server(name).ok_or_else(|| McpError::UnknownServer { server: name.chars().take(64).collect() })
    }

    /// Whether there is a server with this name.
    pub fn has_server(&self, name: &str) -> bool {
        self.server(name).is_some()
    }

    /// Whether there is any server, removed or not.
    pub fn is_configured(&self) -> bool {
        !self.0.servers.is_empty()
    }

    /// All servers, as the runtime view shows them.
    pub fn snapshot(&self) -> Snapshot {
        let mut tool_names: Vec<String> = self
            .servers()
            .filter_map(|server| server.known().connection)
            .flat_map(|connection| {
                connection.catalogue.tools.iter().map(|t| t.offered.name.clone()).collect::<Vec<_>>()
            })
            .collect();
        tool_names.sort();
        Snapshot {
            config_path: self.0.config_path.as_ref().map(|path| path.display().to_string()),
            selected_profiles: self.0.profiles.clone(),
            tool_names,
            servers: self.servers().map(|server| ServerView::of(server)).collect(),
        }
    }

    /// Figures for the status.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for server in self.servers() {
            let known = server.known();
            stats.configured_count += 1;
            match (known.switch, known.connection) {
                (Switch::On, Some(connection)) => {
                    stats.connected_count += 1;
                    stats.tool_count += connection.catalogue.tools.len();
                }
                (Switch::On, None) => stats.failed_count += usize::from(known.error.is_some()),
                (Switch::Off | Switch::Removed, _) => stats.disabled_count += 1,
            }
        }
        stats
    }

    /// One server.
    ///
    /// # Errors
    /// There is none.
    pub fn view(&self, name: &str) -> Result<ServerView, McpError> {
        self.known_server(name).map(|server| ServerView::of(&server))
    }

    /// Tools of one server, or of all.
    ///
    /// # Errors
    /// There is no such server.
    pub fn tools(&self, name: Option<&str>) -> Result<Vec<ToolView>, McpError> {
        match name {
            Some(name) => Ok(view::tools(&*self.known_server(name)?)),
            None => Ok(self.servers().flat_map(|server| view::tools(server)).collect()),
        }
    }

    /// What an operator decides about a server.
    ///
    /// # Errors
    /// There is no such server.
    pub fn set_switch(&self, name: &str, switch: Switch) -> Result<(), McpError> {
        self.known_server(name).map(|server| server.set_switch(switch))
    }

    /// Connects a server anew, and waits for it, no longer than for an operator's call.
    ///
    /// # Errors
    /// It cannot be connected.
    pub fn reconnect(&self, name: &str) -> Result<(), McpError> {
        let server = self.known_server(name)?;
        server.reconnect();
        let limit_ms = (server.config.startup_ms + MCP_READY_GRACE_MS).min(MCP_OPERATOR_CALL_MS_MAX);
        server.ready(limit_ms, &self.0.stop).map(drop)
    }

    /// An operator's own call of a tool, by the name that the server or the one that models know.
    ///
    /// # Errors
    /// There is no result. A tool that fails is one.
    pub fn call(
        &self,
        server: &str,
        tool: &str,
        arguments: Value,
        limit_ms: Option<u64>,
    ) -> Result<ToolOutput, McpError> {
        let server = self.known_server(server)?;
        let limit_ms = limit_ms.unwrap_or(server.config.tool_ms).min(server.config.tool_ms);
        let until = Instant::now() + Duration::from_millis(limit_ms.max(1));
        let errand =
            Errand { chain: Chain::Daemon, session: None, until, cancel: &self.0.stop, asker: None, confined: false };
        let connection = server.ready(limit_ms, &self.0.stop)?;
        let tool = match connection.catalogue.offered(tool) {
            Some(offered) => offered.name.clone(),
            None => tool.to_string(),
        };
        self.call_tool(&server, &tool, arguments, &errand)
    }

    /// Slots that servers name: they must not be deleted under them. One that is switched off names none.
    pub fn references(&self) -> Vec<SecretReference> {
        let mut named: BTreeMap<&SlotId, Vec<&str>> = BTreeMap::new();
        for server in self.servers().filter(|server| server.known().switch == Switch::On) {
            for slot in server.config.slots() {
                named.entry(slot).or_default().push(&server.config.name);
            }
        }
        let told = |(slot, servers): (&SlotId, Vec<&str>)| {
            SecretReference::yielding(slot.as_str(), format!("one or more MCP servers ({})", servers.join(", ")))
        };
        named.into_iter().map(told).collect()
    }

    /// Time that a call has when nothing is said, in milliseconds.
    pub const fn call_ms_default() -> u64 {
        MCP_TOOL_TIMEOUT_S_DEFAULT * 1_000
    }
}
