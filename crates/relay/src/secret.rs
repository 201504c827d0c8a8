//! Reads secrets from where the configuration says they are. Nothing is kept here: each token request reads anew, so
//! that a rotated secret is taken up without a restart.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use token_manager::{SecretError, SecretSource};
use tracing::warn;
use zeroize::Zeroizing;

use crate::config::{SecretReference, exposure};

/// Longest secret; whatever is longer is the wrong file.
const MAX_LEN: u64 = 64 * 1024;

/// What is said of a file that is no text.
const NOT_TEXT: &str = "it is no text: a secret is plain UTF-8 without anything else, and of a certificate or key the PEM is wanted \
                        (from PFX: openssl pkcs12 -in FILE -nodes -out FILE.pem; from DER: openssl x509 -inform DER -in FILE -out FILE.pem)";

/// A place that holds a secret.
pub(crate) struct ReferencedSecret {
    /// The key of the configuration that names it.
    key: String,
    reference: SecretReference,
    /// Whether it was told that others can read or write it.
    is_exposure_told: AtomicBool,
}

impl ReferencedSecret {
    /// The secret that `key` of the configuration refers to by `reference`.
    pub(crate) fn new(key: &str, reference: SecretReference) -> Self {
        Self { key: key.to_owned(), reference, is_exposure_told: AtomicBool::new(false) }
    }

    /// Where it is, without the key that says so.
    pub(crate) fn place(&self) -> String {
        match &self.reference {
            SecretReference::File(path) => format!("file {}", path.display()),
            SecretReference::Environment(name) => format!("environment variable {name}"),
            SecretReference::SystemdCredential(name) => format!("systemd credential {name}"),
        }
    }

    /// Says once that others can read or write the file, as one may be that was put there while the relay runs. It is used all
    /// the same: mail that stands still would not make it safer. At the start the configuration refuses it.
    fn tell_exposure(&self, path: &Path) {
        let exposure = exposure(path).filter(|_| is_secret(&self.key));
        let was_told = self.is_exposure_told.swap(exposure.is_some(), Ordering::Relaxed);
        if let (Some(exposure), false) = (exposure, was_told) {
            warn!(key = self.key, exposure, "a secret is not its owner's alone");
        }
    }
}

/// Whether what `key` refers to must not be seen by others: a certificate is public.
fn is_secret(key: &str) -> bool {
    !key.ends_with(".certificate")
}

impl SecretSource for ReferencedSecret {
    fn text(&self) -> Result<Zeroizing<String>, SecretError> {
        match &self.reference {
            SecretReference::File(path) => {
                self.tell_exposure(path);
                read_file(path)
            }
            SecretReference::Environment(name) => {
                Ok(Zeroizing::new(env::var(name).map_err(|error| unreadable(error.to_string()))?))
            }
            SecretReference::SystemdCredential(name) => read_file(&credential(name)?),
        }
    }

    fn description(&self) -> String {
        format!("{} ({})", self.place(), self.key)
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let mut text = Zeroizing::new(String::new());
    // Room for all of it, so that no half stays behind in a buffer that grew.
    text.reserve(usize::try_from(fs::metadata(path)?.len().min(MAX_LEN)).unwrap_or_default() + 1);
    File::open(path)?.take(MAX_LEN + 1).read_to_string(&mut text).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => unreadable(NOT_TEXT.to_owned()),
        _ => SecretError::Unreadable(error),
    })?;
    if text.len() as u64 > MAX_LEN {
        return Err(unreadable(format!("{} is longer than any secret", path.display())));
    }
    Ok(text)
}

fn credential(name: &str) -> Result<PathBuf, SecretError> {
    let directory = env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        unreadable("$CREDENTIALS_DIRECTORY is not set; is this run by systemd with LoadCredential=?".into())
    })?;
    Ok(PathBuf::from(directory).join(name))
}

fn unreadable(text: String) -> SecretError {
    SecretError::Unreadable(std::io::Error::new(std::io::ErrorKind::NotFound, text))
}
