//! Settings of debug capture, from the environment.
//! Owns: names, defaults and ceilings.
//! Never: falls back to a default for a value that cannot be read.

use std::ffi::OsString;
use std::fmt;

use super::key::CaptureKey;
use crate::broker::MasterKey;
use crate::credential;
use crate::limits::{
    DEBUG_ARTIFACT_BYTES_DEFAULT, DEBUG_ARTIFACT_BYTES_MAX, DEBUG_ARTIFACT_BYTES_MIN, DEBUG_GC_INTERVAL_MS_DEFAULT,
    DEBUG_GC_INTERVAL_MS_MIN, DEBUG_RUN_ARTIFACTS_DEFAULT, DEBUG_RUN_ARTIFACTS_MAX, DEBUG_RUN_BYTES_DEFAULT,
    DEBUG_STORE_BYTES_DEFAULT, DEBUG_TTL_MS_DEFAULT,
};

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureLimits {
    /// Bytes of one artifact's body.
    pub artifact_bytes_max: u64,
    /// Bytes of all artifacts of one run; the oldest go first, never the newest.
    pub run_bytes_max: u64,
    /// Artifacts of one run; the same.
    pub run_artifacts_max: u64,
    /// Bytes of all artifacts; whole runs go, the oldest first, never one that is active or held.
    pub store_bytes_max: u64,
    /// Age at which artifacts of ended runs are removed; 0 is never.
    pub ttl_ms: u64,
    /// Time between two looks for old artifacts.
    pub gc_interval_ms: u64,
}

impl Default for CaptureLimits {
    fn default() -> Self {
        Self {
            artifact_bytes_max: DEBUG_ARTIFACT_BYTES_DEFAULT,
            run_bytes_max: DEBUG_RUN_BYTES_DEFAULT,
            run_artifacts_max: DEBUG_RUN_ARTIFACTS_DEFAULT,
            store_bytes_max: DEBUG_STORE_BYTES_DEFAULT,
            ttl_ms: DEBUG_TTL_MS_DEFAULT,
            gc_interval_ms: DEBUG_GC_INTERVAL_MS_DEFAULT,
        }
    }
}

/// Settings of debug capture.
#[derive(Debug, Default)]
pub struct CaptureConfig {
    /// Bounds.
    pub limits: CaptureLimits,
    /// Encrypts bodies, if given.
    pub key: Option<CaptureKey>,
}

/// A setting that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum CaptureConfigError {
    /// A number.
    Number {
        /// The variable.
        variable: &'static str,
        /// Its smallest value.
        min: u64,
        /// Its largest value.
        max: u64,
    },
    /// The key.
    Key(String),
    /// Encryption with the auth store's key was asked for, and there is none.
    NoMasterKey,
    /// `KHEISH_DEBUG_CAPTURE_ENCRYPT` has another value.
    Encrypt,
}

const KEY: &str = "KHEISH_DEBUG_CAPTURE_KEY";
const KEY_FILE: &str = "KHEISH_DEBUG_CAPTURE_KEY_FILE";
const ENCRYPT: &str = "KHEISH_DEBUG_CAPTURE_ENCRYPT";

impl fmt::Display for CaptureConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { variable, min, max } => {
                write!(f, "{variable} is no number between {min} and {max}; next: correct or unset it")
            }
            Self::Key(cause) => f.write_str(cause),
            Self::NoMasterKey => write!(
                f,
                "{ENCRYPT} asks for the auth store's key and there is none; next: set KHEISH_AUTH_STORE_MASTER_KEY_FILE, \
                 or {KEY_FILE} instead"
            ),
            Self::Encrypt => write!(f, "{ENCRYPT} is neither auth-store nor off; next: correct or unset it"),
        }
    }
}

impl std::error::Error for CaptureConfigError {}

impl CaptureConfig {
    /// The settings that the environment names. `master_key` is the auth store's, for those who encrypt with it.
    ///
    /// # Errors
    /// A variable cannot be used; an empty one counts as unset.
    pub fn from_environment(master_key: Option<&MasterKey>) -> Result<Self, CaptureConfigError> {
        Self::from_variables(|name| std::env::var_os(name), master_key)
    }

    /// As [`CaptureConfig::from_environment`], with the variables given.
    ///
    /// # Errors
    /// As there.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
        master_key: Option<&MasterKey>,
    ) -> Result<Self, CaptureConfigError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let number = |name: &'static str, default: u64, min: u64, max: u64| match get(name) {
            None => Ok(default),
            Some(text) => text
                .to_str()
                .and_then(|text| text.trim().parse().ok())
                .filter(|number| (min..=max).contains(number))
                .ok_or(CaptureConfigError::Number { variable: name, min, max }),
        };
        let limits = CaptureLimits {
            artifact_bytes_max: number(
                "KHEISH_DEBUG_MAX_ARTIFACT_BYTES",
                DEBUG_ARTIFACT_BYTES_DEFAULT,
                DEBUG_ARTIFACT_BYTES_MIN,
                DEBUG_ARTIFACT_BYTES_MAX,
            )?,
            run_bytes_max: number("KHEISH_DEBUG_MAX_RUN_BYTES", DEBUG_RUN_BYTES_DEFAULT, 1, u64::MAX)?,
            run_artifacts_max: number(
                "KHEISH_DEBUG_MAX_ARTIFACTS_PER_RUN",
                DEBUG_RUN_ARTIFACTS_DEFAULT,
                1,
                DEBUG_RUN_ARTIFACTS_MAX,
            )?,
            store_bytes_max: number("KHEISH_DEBUG_MAX_STORE_BYTES", DEBUG_STORE_BYTES_DEFAULT, 1, u64::MAX)?,
            ttl_ms: number("KHEISH_DEBUG_TTL_MS", DEBUG_TTL_MS_DEFAULT, 0, u64::MAX)?,
            gc_interval_ms: number(
                "KHEISH_DEBUG_GC_INTERVAL_MS",
                DEBUG_GC_INTERVAL_MS_DEFAULT,
                DEBUG_GC_INTERVAL_MS_MIN,
                u64::MAX,
            )?,
        };
        let encrypt = get(ENCRYPT).map(|text| text.to_string_lossy().trim().to_string());
        let named = |error: crate::broker::MasterKeyError| {
            // The auth store's key has the same forms and its own variables.
            let text = error.to_string();
            CaptureConfigError::Key(text.replace("KHEISH_AUTH_STORE_MASTER_KEY", KEY))
        };
        let key = match (get(KEY), get(KEY_FILE), encrypt.as_deref()) {
            (Some(_), Some(_), _) => {
                return Err(CaptureConfigError::Key(format!("{KEY} and {KEY_FILE} are both set; next: unset one")));
            }
            (Some(text), None, _) => Some(MasterKey::parse(text.as_encoded_bytes(), KEY).map_err(named)?),
            (None, Some(path), _) => {
                let path =
                    credential::file(&path).map_err(|error| CaptureConfigError::Key(format!("{KEY_FILE}: {error}")))?;
                Some(MasterKey::from_file(&path).map_err(named)?)
            }
            (None, None, None | Some("off")) => None,
            (None, None, Some("auth-store")) => {
                let key = CaptureKey::new(master_key.ok_or(CaptureConfigError::NoMasterKey)?);
                return Ok(Self { limits, key: Some(key) });
            }
            (None, None, Some(_)) => return Err(CaptureConfigError::Encrypt),
        };
        Ok(Self { limits, key: key.as_ref().map(CaptureKey::new) })
    }
}
