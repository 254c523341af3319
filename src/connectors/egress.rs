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

/// Slack's own API, where a connector names no other one.
const SLACK_API: &str = "https://slack.com/api";
/// Telegram's.
pub const TELEGRAM_API: &str = "https://api.telegram.org";

/// The registry, as deliveries ask it.
pub struct Egress {
    registry: Registry,
    clock: Arc<dyn Clock>,
}

impl Egress {
    /// Of these connectors.
    pub fn new(registry: Registry, clock: Arc<dyn Clock>) -> Self {
        Self { registry, clock }
    }

    fn entry(&self, kind: ConnectorKind, name: &str) -> Result<Arc<Entry>, EgressError> {
        let table = self.registry.table();
        if table.hold.is_some() {
            return Err(EgressError::NotNow(
                "connectors are held; next: check the restored state, then run `kheish-daemon connectors release`"
                    .to_string(),
            ));
        }
        table.get(kind, name).cloned().ok_or_else(|| {
            let text = format!("there is no {kind} connector {name}; next: configure it and replay the delivery");
            EgressError::Refused(text)
        })
    }

    fn secret(
        &self,
        entry: &Entry,
        field: &str,
        source: Option<&SecretRef>,
    ) -> Result<Option<Arc<Secret>>, EgressError> {
        entry
            .secret(self.registry.broker(), field, source, self.clock.now_ms())
            .map(|found| found.map(|found| found.secret))
            .map_err(|error| EgressError::NotNow(format!("{} connector {}: {error}", entry.kind, entry.name)))
    }
}

fn refused<T>(what: &str, list: &str) -> Result<T, EgressError> {
    let text = format!("{what} is not among the connector's {list}; next: add it and replay the delivery");
    Err(EgressError::Refused(text))
}

impl Connectors for Egress {
    fn egress(&self, address: &Address) -> Result<ConnectorEgress, EgressError> {
        match address {
            Address::External(external) => {
                let entry = self.entry(ConnectorKind::External, &external.connector)?;
                let Settings::External(config) = &entry.settings else { unreachable!("found by kind") };
                let secret = self.secret(&entry, "shared_token", config.shared_token.as_ref())?;
                let allow_private = config.allow_private_network || config.mode == ExternalMode::ChildProcess;
                Ok(ConnectorEgress { base_url: config.base_url.clone(), allow_private, secret })
            }
            Address::Slack(slack) => {
                let entry = self.entry(ConnectorKind::Slack, &slack.connector)?;
                let Settings::Slack(config) = &entry.settings else { unreachable!("found by kind") };
                let is_allowed =
                    |list: &[String], given: &str| list.is_empty() || list.iter().any(|known| known == given);
                if !is_allowed(&config.allowed_channel_ids, &slack.channel_id) {
                    return refused("the channel", "allowed_channel_ids");
                }
                if slack.team_id.as_ref().is_some_and(|team| !is_allowed(&config.allowed_team_ids, team)) {
                    return refused("the team", "allowed_team_ids");
                }
                let of_team =
                    config.team_bot_tokens.iter().find(|token| Some(&token.team_id) == slack.team_id.as_ref());
                let secret = match of_team {
                    Some(token) => {
                        self.secret(&entry, &format!("team_bot_tokens.{}", token.team_id), Some(&token.bot_token))?
                    }
                    None => self.secret(&entry, "bot_token", config.bot_token.as_ref())?,
                };
                if secret.is_none() {
                    let text = "the connector has no bot token; next: give it one and replay the delivery".to_string();
                    return Err(EgressError::Refused(text));
                }
                let base_url = config.api_base_url.clone().unwrap_or_else(|| SLACK_API.to_string());
                Ok(ConnectorEgress { base_url, allow_private: false, secret })
            }
            Address::Telegram(telegram) => {
                let entry = self.entry(ConnectorKind::Telegram, &telegram.connector)?;
                let Settings::Telegram(config) = &entry.settings else { unreachable!("found by kind") };
                if !config.allowed_chat_ids.is_empty() && !config.allowed_chat_ids.contains(&telegram.chat_id) {
                    return refused("the chat", "allowed_chat_ids");
                }
                let secret = self.secret(&entry, "bot_token", config.bot_token.as_ref())?;
                let base_url = config.api_base_url.clone().unwrap_or_else(|| TELEGRAM_API.to_string());
                Ok(ConnectorEgress { base_url, allow_private: false, secret })
            }
            Address::Http(_) => Err(EgressError::Refused("an HTTP address goes through no connector".to_string())),
        }
    }
}
