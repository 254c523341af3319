//! What the guard says to a host, without a connection.
//! Owns: the answer that doctors and settings show before anything is sent there.
//! May touch: the system's resolver, unless the host is refused before its name is looked up.
//! Never: connects.

use std::net::IpAddr;
use std::time::Duration;

use super::cancel::Cancel;
use super::client::Net;
use super::egress::{Destination, Refusal};
use super::error::NetError;
use super::host::Host;
use super::ranges::{AddressClass, classify};

/// A host as the guard sees it now. Its addresses may be others when a request is made; that request is judged anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Addresses with their classes, in the resolver's order; empty when the name was not looked up.
    pub addresses: Vec<(IpAddr, AddressClass)>,
    /// Why a request would be refused.
    pub refusal: Option<Refusal>,
}

impl Net {
    /// Judges `destination` as a request would be judged, waiting at most `limit_ms` for the look-up.
    ///
    /// # Errors
    /// The name could not be looked up: [`NetError::Resolve`], [`NetError::ResolverBusy`], [`NetError::Timeout`] or
    /// [`NetError::Cancelled`].
    pub fn examine(&self, destination: &Destination, limit_ms: u64, cancel: &Cancel) -> Result<Examined, NetError> {
        if let Err(refusal) = self.egress().check_host(destination) {
            let written = match &destination.host {
                Host::Address(address) => vec![(*address, classify(*address))],
                Host::Name(_) => Vec::new(),
            };
            return Ok(Examined { addresses: written, refusal: Some(refusal) });
        }
        let found = self.look_up(destination, Duration::from_millis(limit_ms), cancel)?;
        let check = |address: &IpAddr| self.egress().check_address(destination, *address).err();
        let refusal = found.iter().find_map(check);
        Ok(Examined { addresses: found.into_iter().map(|address| (address, classify(address))).collect(), refusal })
    }
}
