//! Which certificate authorities are trusted.
//! Owns: the choice between `--ca-file`, the host's bundle and the bundled set, and the sentence that names it.
//! May touch: CA files, read-only, once at start.
//! Never: falls back silently: a CA file that was named, or a host bundle that is there, must be usable.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use crate::limits::CA_FILE_BYTES_MAX;

/// Where Linux distributions keep the bundle of trusted CAs. The first one that exists is used.
const HOST_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why the trust roots could not be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootsError {
    /// The file cannot be read.
    Unreadable {
        /// The CA file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// The file is longer than any CA bundle.
    TooLarge {
        /// The CA file.
        path: PathBuf,
    },
    /// The file holds something that is no PEM certificate.
    Malformed {
        /// The CA file.
        path: PathBuf,
        /// Which certificate, counted from 1.
        certificate: usize,
    },
    /// The file holds no certificate at all.
    Empty {
        /// The CA file.
        path: PathBuf,
    },
}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = "next: repair it, or name a usable PEM file with --ca-file";
        match self {
            Self::Unreadable { path, reason } => write!(f, "cannot read CA file {}: {reason}; {next}", path.display()),
            Self::TooLarge { path } => {
                write!(f, "CA file {} is over {CA_FILE_BYTES_MAX} bytes; {next}", path.display())
            }
            Self::Malformed { path, certificate } => {
                write!(f, "CA file {}: certificate {certificate} is not valid PEM; {next}", path.display())
            }
            Self::Empty { path } => write!(f, "CA file {} holds no certificate; {next}", path.display()),
        }
    }
}

impl std::error::Error for RootsError {}

/// The certificate authorities in use.
#[derive(Debug, Clone)]
pub struct Roots {
    certs: RootCerts,
    source: String,
}

impl Roots {
    /// Takes `ca_file` when given, else the host's bundle when there is one, else the set bundled at build time.
    ///
    /// # Errors
    /// The chosen file cannot be used.
    pub fn resolve(ca_file: Option<&Path>) -> Result<Self, RootsError> {
        Self::resolve_among(ca_file, &HOST_BUNDLES.map(Path::new))
    }

    fn resolve_among(ca_file: Option<&Path>, bundles: &[&Path]) -> Result<Self, RootsError> {
        let (path, kind) = match (ca_file, bundles.iter().find(|path| path.exists())) {
            (Some(path), _) => (path, "--ca-file"),
            (None, Some(path)) => (*path, "host bundle"),
            (None, None) => {
                return Ok(Self { certs: RootCerts::WebPki, source: "bundled Mozilla set".to_string() });
            }
        };
        let certificates = read_certificates(path)?;
        let source = format!("{kind} {} ({} certificates)", path.display(), certificates.len());
        Ok(Self { certs: certificates.into(), source })
    }

    /// One sentence for the status view: kind, path and number of certificates.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn certs(&self) -> RootCerts {
        self.certs.clone()
    }
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RootsError> {
    let unreadable = |error: std::io::Error| RootsError::Unreadable { path: path.into(), reason: error.to_string() };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(CA_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > CA_FILE_BYTES_MAX {
        return Err(RootsError::TooLarge { path: path.into() });
    }
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        let malformed = RootsError::Malformed { path: path.into(), certificate: certificates.len() + 1 };
        match item {
            Ok(PemItem::Certificate(certificate)) if is_der_sequence(certificate.der()) => {
                certificates.push(certificate);
            }
            Ok(PemItem::Certificate(_)) | Err(_) => return Err(malformed),
            // A key beside its certificate is of no use here and of no harm.
            Ok(_) => {}
        }
    }
    if certificates.is_empty() { Err(RootsError::Empty { path: path.into() }) } else { Ok(certificates) }
}

/// Whether `der` is one ASN.1 sequence that fills it exactly. The TLS layer skips what it cannot parse, so
/// that a damaged file would trust nobody without a word; this catches truncation and plain text.
fn is_der_sequence(der: &[u8]) -> bool {
    let (header, length) = match der {
        [0x30, short @ 0..=0x7f, ..] => (2, *short as usize),
        [0x30, 0x81, length, ..] => (3, *length as usize),
        [0x30, 0x82, high, low, ..] => (4, usize::from(*high) << 8 | usize::from(*low)),
        _ => return false,
    };
    length > 0 && der.len() == header + length
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in a directory of its own, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kheish-roots-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("scratch directory");
            Self(path)
        }

        fn file(&self, name: &str, content: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, content).expect("scratch file");
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).expect("scratch directory is ours");
        }
    }

    // Base64 of the DER sequences 30 01 00 and (one byte short) 30 02 00.
    const WHOLE: &str = "-----BEGIN CERTIFICATE-----\nMAEA\n-----END CERTIFICATE-----\n";
    const SHORT: &str = "-----BEGIN CERTIFICATE-----\nMAIA\n-----END CERTIFICATE-----\n";

    #[test]
    fn a_named_ca_file_wins_then_the_first_host_bundle_then_the_bundled_set() {
        let scratch = Scratch::new("order");
        let named = scratch.file("named.pem", WHOLE);
        let second = scratch.file("second.pem", &WHOLE.repeat(2));
        let missing = scratch.0.join("missing.pem");
        let bundles = [missing.as_path(), second.as_path()];
        let source =
            |ca_file, bundles: &[&Path]| Roots::resolve_among(ca_file, bundles).map(|roots| roots.source().to_string());
        let text = format!("--ca-file {} (1 certificates)", named.display());
        assert_eq!(source(Some(named.as_path()), &bundles), Ok(text));
        let text = format!("host bundle {} (2 certificates)", second.display());
        assert_eq!(source(None, &bundles), Ok(text));
        assert_eq!(source(None, &bundles[..1]), Ok("bundled Mozilla set".to_string()));
    }

    #[test]
    fn a_ca_file_that_cannot_be_used_is_an_error_and_never_another_set_of_roots() {
        let scratch = Scratch::new("bad");
        let resolve = |path: &Path| Roots::resolve_among(None, &[path]).map(|roots| roots.source().to_string());
        let empty = scratch.file("empty.pem", "");
        assert_eq!(resolve(&empty), Err(RootsError::Empty { path: empty.clone() }));
        let text = scratch.file("text.pem", "not a certificate\n");
        assert_eq!(resolve(&text), Err(RootsError::Empty { path: text.clone() }));
        let torn = scratch.file("torn.pem", &format!("{WHOLE}{SHORT}"));
        assert_eq!(resolve(&torn), Err(RootsError::Malformed { path: torn.clone(), certificate: 2 }));
        let cut = scratch.file("cut.pem", &format!("{WHOLE}-----BEGIN CERTIFICATE-----\nMAEA\n"));
        assert_eq!(resolve(&cut), Err(RootsError::Malformed { path: cut.clone(), certificate: 2 }));
        let large = scratch.file("large.pem", &"x".repeat(CA_FILE_BYTES_MAX + 1));
        assert_eq!(resolve(&large), Err(RootsError::TooLarge { path: large.clone() }));
        let missing = scratch.0.join("missing.pem");
        let error = Roots::resolve_among(Some(&missing), &[]).map(|_| ()).expect_err("missing file");
        assert!(matches!(error, RootsError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("; next: "), "{error}");
    }
}
