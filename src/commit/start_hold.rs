//! `serve --hold`: everything is held before anything is begun.
//! Owns: the commands that hold, handed over before the core's first pass.
//! May touch: the core.
//! Never: ends a hold.

use crossbeam_channel::{Receiver, bounded};

use super::handle::{CommandError, CoreHandle};
use crate::core::{Command, ConnectorCommand, Decision, DeliveryCommand, STARTED_HELD};

/// Holds that the core has been asked for.
pub struct StartHold(Vec<Receiver<Result<Decision, CommandError>>>);

impl StartHold {
    /// Asks for a hold of runs, deliveries and, where there are any, connectors. Before the core's thread is started they are in
    /// its first batch, so that nothing is resumed ahead of them.
    pub fn begin(core: &CoreHandle, has_connectors: bool) -> Self {
        let reason = Some(STARTED_HELD.to_string());
        let mut commands = vec![
            Command::SetHold { held: true, reason: reason.clone() },
            Command::Delivery(Box::new(DeliveryCommand::SetHold { held: true, reason: reason.clone() })),
        ];
        if has_connectors || core.connectors().iter().next().is_some() {
            commands.push(Command::Connector(Box::new(ConnectorCommand::Hold { held: true, reason })));
        }
        let submit = |command| {
            let (reply, outcome) = bounded(1);
            core.submit(command, None, Box::new(move |result| drop(reply.try_send(result))));
            outcome
        };
        Self(commands.into_iter().map(submit).collect())
    }

    /// Waits until they are durable.
    ///
    /// # Errors
    /// One of them is not.
    pub fn wait(self) -> Result<(), CommandError> {
        self.0.into_iter().try_for_each(|outcome| outcome.recv().unwrap_or(Err(CommandError::Stopping)).map(drop))
    }
}
