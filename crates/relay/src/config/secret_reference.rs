//! Where a secret is, as the configuration says it; never the secret.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::place::FilePath;
use super::reading::Table;
#[cfg(test)]
use super::sample::Chance;
use super::schema::Shape;
use super::value::{Scalar, Value, Wrong};

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretReference {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A credential that systemd puts under `$CREDENTIALS_DIRECTORY`.
    SystemdCredential(String),
}

/// The keys of a reference; exactly one of them stands in it.
pub(crate) const FORMS: [&str; 3] = ["file", "env", "systemd_credential"];

/// How a reference is written.
pub(crate) const ALLOWED: &str = "{ file = \"...\" }, { env = \"NAME\" } or { systemd_credential = \"name\" }";

/// The name of an environment variable or of a credential.
struct Handle(String);

impl Scalar for Handle {
    fn allowed() -> String {
        "the name of a variable or credential (letters, digits, \"_\", \"-\" and \".\")".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let right = |octet: u8| octet.is_ascii_alphanumeric() || b"_-.".contains(&octet);
        let right = !text.is_empty() && text.len() <= 64 && !text.starts_with('.') && text.bytes().all(right);
        // It may be the secret itself.
        right.then(|| Self(text.to_owned())).ok_or(Wrong::Unrepeatable)
    }

    fn json(&self) -> Json {
        Json::from(self.0.as_str())
    }

    #[cfg(test)]
    fn sample(_: &mut Chance) -> Json {
        Json::from("NAME")
    }
}

/// The path of the file that holds the secret.
struct SecretFile(PathBuf);

impl Scalar for SecretFile {
    fn allowed() -> String {
        "the path of a file such as \"/etc/xoauth2-relay/contoso.secret\"; what stands here looks like the secret itself and is \
         not repeated: it belongs into that file, alone"
            .to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        // Secrets of Entra are 40 characters with a tilde among them; a path of ours has neither without a slash.
        let looks_secret = !text.contains('/') && (text.contains('~') || text.len() >= 32);
        if looks_secret {
            return Err(Wrong::Unrepeatable);
        }
        match FilePath::parse(text) {
            Ok(path) => Ok(Self(path.as_path().to_owned())),
            Err(_) => Err(Wrong::Because("is empty; write the path of the file that holds the secret".to_owned())),
        }
    }

    fn json(&self) -> Json {
        Json::String(self.0.display().to_string())
    }

    #[cfg(test)]
    fn sample(_: &mut Chance) -> Json {
        Json::from("/run/secrets/one")
    }
}

impl Value for SecretReference {
    fn shape() -> Shape {
        Shape::Secret
    }

    fn read(table: &mut Table<'_>, key: &str) -> Option<Self> {
        if !table.is_table(key) {
            // The value is not repeated: it may well be the secret.
            table.reject(key, format!("a secret never stands in the configuration itself, but alone in a file of mode 600; write {ALLOWED}"));
            return None;
        }
        let mut reference = table.inner(key)?;
        let count = FORMS.iter().filter(|form| reference.has(form)).count();
        let [file, variable, credential] = FORMS;
        let file = SecretFile::read(&mut reference, file).map(|SecretFile(path)| Self::File(path));
        let variable = Handle::read(&mut reference, variable).map(|Handle(name)| Self::Environment(name));
        let credential = Handle::read(&mut reference, credential).map(|Handle(name)| Self::SystemdCredential(name));
        if count != 1 {
            table.mistake(key, format!("must be exactly one of {ALLOWED}"));
        }
        reference.finish_names(&FORMS);
        let given = file.or(variable).or(credential);
        if given.is_none() {
            table.mark_wrong(key);
        }
        given
    }

    fn json(&self) -> Json {
        match self {
            Self::File(path) => json!({ "file": path.display().to_string() }),
            Self::Environment(name) => json!({ "env": name }),
            Self::SystemdCredential(name) => json!({ "systemd_credential": name }),
        }
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        match chance.below(3) {
            0 => json!({ "file": "/run/secrets/one" }),
            1 => json!({ "env": "SECRET" }),
            _ => json!({ "systemd_credential": "secret-1" }),
        }
    }
}
