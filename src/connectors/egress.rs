//! Connectors as the way out of deliveries.
//! Owns: which connector may be used for which place, and the credential that goes along.
//! May touch: the registry, and through it the broker.
//! Never: lets a place that the operator's lists exclude be written to.

use std::sync::Arc;

use super::config::{ExternalMode, SecretRef, Settings};
use super::registry::{Entry, Registry};
use crate::clock::Clock;
use crate::core::ConnectorKind;
use crate::delivery::{Address, ConnectorEgress, Connectors, EgressError};
use crate::secret::Secret;

/// Where Slack's API is.
const SLACK_API: &str = "https://slack.com/api";
/// Where Telegram's API is.
const TELEGRAM_API: &str = "https://api.telegram.org";

/// The connectors in force, for senders.
pub struct WayOut {
    registry: Registry,
    clock: Arc<dyn Clock>,
}

impl WayOut {
    /// Through the connectors of `registry`.
    pub fn new(registry: Registry, clock: Arc<dyn Clock>) -> Self {
        Self { registry, clock }
    }

    fn secret(
        &self,
        entry: &Entry,
        field: &str,
        source: Option<&SecretRef>,
    ) -> Result<Option<Arc<Secret>>, EgressError> {
        let found = entry.secret(self.registry.broker(), field, source, self.clock.now_ms());
        found.map(|found| found.map(|found| found.secret)).map_err(|error| EgressError::NotNow(error.to_string()))
    }
}

fn refused<T>(text: &str) -> Result<T, EgressError> {
    Err(EgressError::Refused(text.to_string()))
}

impl Connectors for WayOut {
    fn egress(&self, address: &Address) -> Result<ConnectorEgress, EgressError> {
        let (kind, name) = match address {
            Address::Http(_) => return refused("an HTTP address goes through no connector"),
            Address::External(external) => (ConnectorKind::External, &external.connector),
            Address::Slack(slack) => (ConnectorKind::Slack, &slack.connector),
            Address::Telegram(telegram) => (ConnectorKind::Telegram, &telegram.connector),
        };
        let table = self.registry.table();
        if table.hold.is_some() {
            return Err(EgressError::NotNow("connectors are held; next: kheish-daemon connectors release".to_string()));
        }
        let Some(entry) = table.get(kind, name) else {
            return refused("no connector of this kind has this name; next: configure it and replay the delivery");
        };
        match (&entry.settings, address) {
            (Settings::External(config), _) => Ok(ConnectorEgress {
                base_url: config.base_url.clone(),
                allow_private: config.allow_private_network || config.mode == ExternalMode::ChildProcess,
                secret: self.secret(entry, "shared_token", config.shared_token.as_ref())?,
            }),
            (Settings::Slack(config), Address::Slack(place)) => {
                let listed = &config.allowed_channel_ids;
                if !listed.is_empty() && !listed.contains(&place.channel_id) {
                    return refused("the connector may not write to this channel; next: see its allowed_channel_ids");
                }
                let team = place.team_id.as_ref();
                let own = team.and_then(|id| config.team_bot_tokens.iter().find(|token| token.team_id == *id));
                let secret = match own {
                    Some(own) => {
                        self.secret(entry, &format!("team_bot_tokens.{}", own.team_id), Some(&own.bot_token))?
                    }
                    None => self.secret(entry, "bot_token", config.bot_token.as_ref())?,
                };
                if secret.is_none() {
                    return refused("the connector has no bot token; next: give it one and replay the delivery");
                }
                let base_url = config.api_base_url.clone().unwrap_or_else(|| SLACK_API.to_string());
                Ok(ConnectorEgress { base_url, allow_private: false, secret })
            }
            (Settings::Telegram(config), Address::Telegram(place)) => {
                let listed = &config.allowed_chat_ids;
                if !listed.is_empty() && !listed.contains(&place.chat_id) {
                    return refused("the connector may not write to this chat; next: see its allowed_chat_ids");
                }
                let secret = self.secret(entry, "bot_token", config.bot_token.as_ref())?;
                let base_url = config.api_base_url.clone().unwrap_or_else(|| TELEGRAM_API.to_string());
                Ok(ConnectorEgress { base_url, allow_private: false, secret })
            }
            _ => refused("the connector is of another kind"),
        }
    }
}
