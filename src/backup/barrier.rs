//! The daemon's part of a backup: it seals the journal and keeps two writers still while a command opens their files.
//! Owns: the one barrier that is open, and its limit.
//! May touch: the core, the broker and the audit writer, through their handles.
//! Never: takes a path; stays closed when the command that opened it is gone.

use std::fmt;
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use crate::audit::control_plane::ControlPlaneAudit;
use crate::broker::{BrokerError, BrokerHandle};
use crate::commit::{CommandError, CoreHandle};
use crate::hex::to_hex;
use crate::journal::Cut;
use crate::limits::{BACKUP_PAUSE_MS_MAX, BACKUP_SETTLE_MS_MAX};
use crate::pause::Pause;

/// The barrier of a running daemon.
pub struct Barrier {
    core: CoreHandle,
    broker: BrokerHandle,
    audit: ControlPlaneAudit,
    standing: Mutex<Option<Standing>>,
}

struct Standing {
    id: String,
    until: Instant,
    audit: Pause,
    broker: Pause,
}

/// What a backup begins with.
#[derive(Debug, Clone)]
pub struct Opened {
    /// By which it is closed.
    pub id: String,
    /// How far the journal reaches.
    pub cut: Cut,
}

/// Why no barrier was opened.
#[derive(Debug)]
pub enum BarrierError {
    /// Another one is open, or being opened.
    InProgress,
    /// The audit writer has not written what it was given.
    Audit,
    /// The broker did not pause.
    Broker(BrokerError),
    /// The journal could not be sealed.
    Core(CommandError),
    /// The system gave no random bytes.
    NoRandom,
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProgress => write!(
                f,
                "another backup is being begun; next: try again in {} seconds",
                BACKUP_PAUSE_MS_MAX.div_ceil(1_000)
            ),
            Self::Audit => write!(
                f,
                "the audit file was not written within {BACKUP_SETTLE_MS_MAX} ms; next: see audit in GET /v1/status and check \
                 the disk"
            ),
            Self::Broker(error) => error.fmt(f),
            Self::Core(error) => error.fmt(f),
            Self::NoRandom => {
                write!(f, "the system gave no random bytes; next: check that /dev/urandom and getrandom(2) work")
            }
        }
    }
}

impl std::error::Error for BarrierError {}

impl Barrier {
    /// A barrier that is not there.
    pub fn new(core: CoreHandle, broker: BrokerHandle, audit: ControlPlaneAudit) -> Self {
        Self { core, broker, audit, standing: Mutex::new(None) }
    }

    /// Keeps audit writer and broker still, in this order, for at most [`BACKUP_PAUSE_MS_MAX`], and seals the journal behind
    /// them: every lease that a sealed record names is in the broker's files, and the acts that the audit file lacks are in the
    /// journal, from which a start makes them up.
    ///
    /// # Errors
    /// One is open, or one of the three did not do its part; nothing stands still then.
    pub fn open(&self) -> Result<Opened, BarrierError> {
        let mut standing = match self.standing.try_lock() {
            Ok(standing) => standing,
            Err(TryLockError::WouldBlock) => return Err(BarrierError::InProgress),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        if standing.as_ref().is_some_and(|standing| Instant::now() < standing.until) {
            return Err(BarrierError::InProgress);
        }
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| BarrierError::NoRandom)?;
        let (limit, settle) = (Duration::from_millis(BACKUP_PAUSE_MS_MAX), Duration::from_millis(BACKUP_SETTLE_MS_MAX));
        let audit = self.audit.pause(limit, settle).map_err(|_| BarrierError::Audit)?;
        let broker = self.broker.pause(limit).map_err(BarrierError::Broker)?;
        let cut = self.core.cut().map_err(BarrierError::Core)?;
        let id = to_hex(&random);
        *standing = Some(Standing { id: id.clone(), until: Instant::now() + limit, audit, broker });
        log::info!("a backup begins at record {}", cut.seq);
        Ok(Opened { id, cut })
    }

    /// Lets them go on; whether both stood still until now. `None` when no such barrier is open.
    pub fn close(&self, id: &str) -> Option<bool> {
        let mut standing = self.standing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if standing.as_ref().is_none_or(|standing| standing.id != id) {
            return None;
        }
        let Standing { audit, broker, .. } = standing.take()?;
        // Both are ended, whatever the first one says.
        let stood = [broker.end(), audit.end()];
        Some(stood.into_iter().all(|stood| stood))
    }
}
