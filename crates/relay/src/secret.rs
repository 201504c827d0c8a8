//! Reads secrets from where the configuration says they are. Nothing is kept here: each token request reads anew, so
//! that a rotated secret is taken up without a restart.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use token_manager::{SecretError, SecretSource};
use zeroize::Zeroizing;

use crate::config::SecretReference;

/// Longest secret; whatever is longer is the wrong file.
const MAX_LEN: u64 = 64 * 1024;

/// A place that holds a secret.
pub(crate) struct ReferencedSecret(SecretReference);

impl ReferencedSecret {
    /// The secret that `reference` names.
    pub(crate) fn new(reference: SecretReference) -> Self {
        Self(reference)
    }
}

impl SecretSource for ReferencedSecret {
    fn text(&self) -> Result<Zeroizing<String>, SecretError> {
        match &self.0 {
            SecretReference::File(path) => read_file(path),
            SecretReference::Environment(name) => {
                Ok(Zeroizing::new(env::var(name).map_err(|error| unreadable(error.to_string()))?))
            }
            SecretReference::SystemdCredential(name) => read_file(&credential(name)?),
        }
    }

    fn description(&self) -> String {
        match &self.0 {
            SecretReference::File(path) => format!("file {}", path.display()),
            SecretReference::Environment(name) => format!("environment variable {name}"),
            SecretReference::SystemdCredential(name) => format!("systemd credential {name}"),
        }
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?.take(MAX_LEN + 1).read_to_string(&mut text)?;
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
