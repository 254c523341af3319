//! Which hosts may be reached, for what, decided on addresses.
//! Owns: the operator's egress settings, and the two looks at each request: at its host before anything is looked up,
//! and at every address before it is dialled.
//! Never: looks a name up, connects, or lets a setting open an address that nobody may reach.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::host::Host;
use super::ranges::{AddressClass, Block, Reach, classify};
use crate::limits::EGRESS_ALLOW_MAX;

/// What a request is for. It decides which private addresses are in reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A model provider, by a base URL of the routes file.
    Provider,
    /// A page that a model asked for.
    Web,
    /// An HTTP hook.
    Hook,
    /// An MCP server.
    Mcp,
    /// A connector or a delivery.
    Connector,
    /// An authorization server.
    OAuth,
    /// The command line's own request, to the address that its user typed. The daemon makes none.
    CommandLine,
}

impl Purpose {
    /// Those that the daemon has.
    pub const ALL: [Self; 6] = [Self::Provider, Self::Web, Self::Hook, Self::Mcp, Self::Connector, Self::OAuth];

    /// As settings and records spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Web => "web",
            Self::Hook => "hook",
            Self::Mcp => "mcp",
            Self::Connector => "connector",
            Self::OAuth => "oauth",
            Self::CommandLine => "command_line",
        }
    }

    /// Reads the setting's word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a request goes and on whose word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// What for.
    pub purpose: Purpose,
    /// Which host.
    pub host: Host,
    /// Which port.
    pub port: u16,
    /// The destination's own setting opens private networks and this host (`allow_private_network`).
    pub allow_private: bool,
}

/// Why a request is not made. Nothing was sent, and no connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The host is, or has, an address of this class.
    Address(AddressClass),
    /// The host's spelling has more than one meaning.
    Spelling,
    /// The host is not on the operator's list.
    NotListed,
    /// The host is not on the operator's list, and the daemon is cut off from all others.
    AirGapped,
    /// The daemon makes no requests of this purpose.
    Purpose,
}

impl Refusal {
    /// Stable word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Address(class) => class.as_str(),
            Self::Spelling => "ambiguous_host",
            Self::NotListed => "not_listed",
            Self::AirGapped => "air_gapped",
            Self::Purpose => "purpose",
        }
    }

    /// What was found, and what to do about it; no address of an inner network is told.
    pub(super) fn explain(self, purpose: Purpose) -> String {
        match self {
            Self::Address(class) => match class.reach() {
                Reach::PrivateNetwork | Reach::ThisHost if purpose == Purpose::Web => format!(
                    "it has an address of class {class}; next: use a public address, or start the daemon with \
                     --egress-allow-private web (and for this host --egress-allow with the address and port)"
                ),
                Reach::PrivateNetwork | Reach::ThisHost => format!(
                    "it has an address of class {class}; next: use a public address, or start the daemon with \
                     --egress-allow-private {purpose}"
                ),
                Reach::Internet | Reach::Never => {
                    format!("it has an address of class {class}, which is never reached; next: use another host")
                }
            },
            Self::Spelling => {
                "its spelling has more than one meaning; next: write a name in ASCII letters, or an address \
                               in its plain form"
                    .to_string()
            }
            Self::NotListed => {
                "it is not on the list; next: add it with --egress-allow, or use a host that is".to_string()
            }
            Self::AirGapped => {
                "the daemon is air-gapped; next: add the host with --egress-allow, or use a local one".to_string()
            }
            Self::Purpose => "the daemon makes no such requests; next: report this as a defect".to_string(),
        }
    }
}

/// A line of the operator's list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    Name(String),
    Below(String),
    Block(Block),
}

impl Listed {
    fn parse(text: &str) -> Option<Self> {
        // A bare IPv6 address or block has colons of its own.
        let bare = |block: Block| Self { hosts: Hosts::Block(block), port: None };
        if let Some(block) = Block::parse(text) {
            return Some(bare(block));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some(_) if text.ends_with(']') => (text, None),
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (text, None),
        };
        let hosts = match host.strip_prefix("*.") {
            Some(suffix) => match Host::parse(suffix)? {
                Host::Name(name) => Hosts::Below(name),
                Host::Address(_) => return None,
            },
            None => match Host::parse(host) {
                Some(Host::Name(name)) => Hosts::Name(name),
                Some(Host::Address(address)) => Hosts::Block(Block::parse(&address.to_string())?),
                // A block with a port: 10.0.0.0/8:443 or [fd00::/8]:443.
                None => {
                    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                    Hosts::Block(Block::parse(inner)?)
                }
            },
        };
        Some(Self { hosts, port })
    }

    fn names(&self, destination: &Destination) -> bool {
        let is_host = match (&self.hosts, &destination.host) {
            (Hosts::Name(name), Host::Name(host)) => name == host,
            (Hosts::Below(apex), Host::Name(host)) => host.strip_suffix(apex.as_str()).is_some_and(|rest| {
                // At least one letter and the dot.
                rest.len() > 1 && rest.ends_with('.')
            }),
            (Hosts::Block(block), Host::Address(address)) => block.contains(*address),
            _ => false,
        };
        is_host && self.port.is_none_or(|port| port == destination.port)
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Name(name) => f.write_str(name)?,
            Hosts::Below(apex) => write!(f, "*.{apex}")?,
            Hosts::Block(block) if block.is_v6() && self.port.is_some() => write!(f, "[{block}]")?,
            Hosts::Block(block) => block.fmt(f)?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_plain && *port != 0)
}

/// A setting that cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressSettingError {
    /// The flag.
    pub flag: &'static str,
    /// What is wrong.
    pub cause: String,
    /// What to write instead.
    pub next: &'static str,
}

/// The operator's word on outbound connections. The default: no list, private networks for providers only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    listed: Vec<Listed>,
    private: Vec<Purpose>,
    air_gapped: bool,
    /// Of the command line, whose user types the address.
    unguarded: bool,
}

/// The settings as status shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EgressView {
    /// `open`, `listed` or `air_gapped`.
    pub mode: &'static str,
    /// The operator's list.
    pub allow: Vec<String>,
    /// Purposes for which private networks are open.
    pub private_networks: Vec<&'static str>,
}

impl EgressPolicy {
    /// From `--egress-allow`, `--egress-allow-private` and `--air-gapped`.
    ///
    /// # Errors
    /// A value cannot hold.
    pub fn new(allow: &[String], allow_private: &[String], air_gapped: bool) -> Result<Self, EgressSettingError> {
        let error = |cause: String| EgressSettingError {
            flag: "--egress-allow",
            cause,
            next: "write a host name, *.suffix, address or block, each with :port where only that port is meant",
        };
        if allow.len() > EGRESS_ALLOW_MAX {
            return Err(error(format!("{} hosts, at most {EGRESS_ALLOW_MAX}", allow.len())));
        }
        let parse = |text: &String| Listed::parse(text.trim()).ok_or_else(|| error(format!("{text:?} is no host")));
        let listed = allow.iter().map(parse).collect::<Result<_, _>>()?;
        let purpose = |text: &String| {
            Purpose::parse(text).ok_or_else(|| EgressSettingError {
                flag: "--egress-allow-private",
                cause: format!("{text:?} is no purpose"),
                next: "use provider, web, hook, mcp, connector or oauth",
            })
        };
        let private = allow_private.iter().map(purpose).collect::<Result<_, _>>()?;
        Ok(Self { listed, private, air_gapped, unguarded: false })
    }

    /// Of the command line: its user types the address, and nothing else is reached.
    pub fn command_line() -> Self {
        Self { unguarded: true, ..Self::default() }
    }

    /// Whether only some hosts can be reached. Then nothing may have the network that passes by the guard.
    pub fn is_restrictive(&self) -> bool {
        self.air_gapped || !self.listed.is_empty()
    }

    /// Whether the daemon is cut off from every host that is not listed.
    pub fn is_air_gapped(&self) -> bool {
        self.air_gapped
    }

    /// Whether the operator has listed any host.
    pub fn has_list(&self) -> bool {
        !self.listed.is_empty()
    }

    /// Whether private networks are open for `purpose` as a whole.
    pub fn opens_private(&self, purpose: Purpose) -> bool {
        purpose == Purpose::Provider || self.private.contains(&purpose)
    }

    /// The settings, for status.
    pub fn view(&self) -> EgressView {
        EgressView {
            mode: match (self.air_gapped, self.listed.is_empty()) {
                (true, _) => "air_gapped",
                (false, false) => "listed",
                (false, true) => "open",
            },
            allow: self.listed.iter().map(ToString::to_string).collect(),
            private_networks: Purpose::ALL
                .into_iter()
                .filter(|purpose| self.opens_private(*purpose))
                .map(Purpose::as_str)
                .collect(),
        }
    }

    /// Looks at a host before its name is looked up; an address that is written out is judged at once.
    ///
    /// # Errors
    /// The request must not be made, and the name not be looked up.
    pub fn check_host(&self, destination: &Destination) -> Result<(), Refusal> {
        if self.unguarded {
            return Ok(());
        }
        if destination.purpose == Purpose::CommandLine {
            return Err(Refusal::Purpose);
        }
        let is_listed = || self.listed.iter().any(|listed| listed.names(destination));
        match &destination.host {
            Host::Address(address) => {
                self.check_address(destination, *address)?;
                if classify(*address) == AddressClass::Loopback || is_listed() {
                    return Ok(());
                }
            }
            host if host.is_localhost() => {
                // A name has no place on a list of addresses, so only purposes with a free way pass.
                return self.check_address(destination, IpAddr::from([127, 0, 0, 1]));
            }
            Host::Name(_) if is_listed() => return Ok(()),
            Host::Name(_) => {}
        }
        match (self.air_gapped, self.listed.is_empty()) {
            (true, _) => Err(Refusal::AirGapped),
            (false, false) => Err(Refusal::NotListed),
            (false, true) => Ok(()),
        }
    }

    /// Looks at one address of a host that passed [`EgressPolicy::check_host`]. Every address must pass: a name that
    /// has one in a forbidden range gets no connection at all.
    ///
    /// # Errors
    /// The address is out of reach for this purpose.
    pub fn check_address(&self, destination: &Destination, address: IpAddr) -> Result<(), Refusal> {
        if self.unguarded {
            return Ok(());
        }
        let class = classify(address);
        let Destination { purpose, allow_private, .. } = destination;
        let opened = self.opens_private(*purpose) || (*allow_private && *purpose != Purpose::Web);
        let is_reached = match class.reach() {
            Reach::Internet => true,
            Reach::PrivateNetwork => opened,
            Reach::ThisHost => match purpose {
                // Written as this host, not by a name that leads here.
                Purpose::Mcp | Purpose::OAuth => {
                    opened || destination.host.is_localhost() || destination.host == Host::Address(address)
                }
                // A model's own request to this host needs its exact address on the list too: the control plane and
                // everything else without a lock listens here.
                Purpose::Web => opened && destination.host == Host::Address(address) && self.lists(destination),
                _ => opened,
            },
            Reach::Never => false,
        };
        if is_reached { Ok(()) } else { Err(Refusal::Address(class)) }
    }

    fn lists(&self, destination: &Destination) -> bool {
        self.listed.iter().any(|listed| listed.names(destination))
    }
}

#[cfg(test)]
mod tests;
