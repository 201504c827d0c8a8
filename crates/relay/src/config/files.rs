//! What the files that the configuration names must be like: CA files that can be read, secrets that others cannot.
//! A file that is not there is no mistake: it may come later, and mail is held for it rather than refused.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FsWord, statfs};
use token_manager::SecretSource;

use super::identity::Guid;
use super::network::Network;
use super::reading::Reading;
use super::secret_reference::SecretReference;
use super::settings::Settings;
use super::value::Scalar;
use crate::secret::ReferencedSecret;

/// Group and others may not write: they could put another secret there.
const WRITABLE: u32 = 0o022;
/// Others may not read.
const READABLE: u32 = 0o004;
/// The file system in memory, by statfs(2): where containers are given their secrets, open to all within them.
const TMPFS: FsWord = 0x0102_1994;

/// The secrets that the configuration refers to, by key.
fn secrets(settings: &Settings) -> Vec<(String, SecretReference)> {
    let mut secrets = Vec::new();
    for (name, tenant) in &settings.tenants {
        let certificate_key = tenant.certificate_credential.as_ref().map(|credential| &credential.key);
        for (key, secret) in [
            ("client_secret", tenant.client_secret.as_ref()),
            ("federated_token", tenant.federated_token.as_ref()),
            ("certificate_credential.key", certificate_key),
        ] {
            secrets.extend(secret.map(|secret| (format!("tenant.{name}.{key}"), secret.clone())));
        }
    }
    for (name, listener) in &settings.listeners {
        let key = listener.private_key.as_ref().map(|key| SecretReference::File(key.as_path().to_owned()));
        secrets.extend(key.map(|key| (format!("listener.{name}.private_key"), key)));
    }
    secrets.extend(settings.vault.key.clone().map(|key| ("vault.key".to_owned(), key)));
    secrets
}

/// What is no mistake and worth a look. Whoever runs this may not be who runs the daemon.
pub(crate) fn doubts(settings: &Settings) -> Vec<String> {
    let mut doubts: Vec<_> = secrets(settings).into_iter().filter_map(doubt_secret).collect();
    for (name, listener) in &settings.listeners {
        let beyond = listener.address.socket().is_some_and(|address| !address.ip().is_loopback());
        if beyond && listener.networks.iter().all(Network::is_loopback) {
            doubts.push(format!(
                "listener.{name}: listens beyond this machine, but only this machine may send; name your devices' networks in \
                 listener.{name}.networks"
            ));
        }
    }
    doubts
}

fn doubt_secret((key, reference): (String, SecretReference)) -> Option<String> {
    let is_client_secret = key.ends_with(".client_secret");
    let secret = ReferencedSecret::new(reference.clone());
    let place = secret.description();
    if matches!(reference, SecretReference::SystemdCredential(_)) && std::env::var_os("CREDENTIALS_DIRECTORY").is_none()
    {
        return Some(format!("{key}: only under systemd can it be seen whether {place} is there"));
    }
    if let SecretReference::File(path) = &reference {
        if path.is_relative() {
            let text =
                "is a relative path: what it means depends on where the relay is started, and under systemd that is /";
            return Some(format!("{key}: {} {text}", path.display()));
        }
        if let Ok(metadata) = std::fs::metadata(path) {
            // Whatever else it is, reading it could take for ever.
            if !metadata.is_file() {
                return Some(format!("{key}: {place} is no regular file"));
            }
            if metadata.mode() & READABLE != 0 {
                return Some(format!(
                    "{key}: everybody who can reach {place} can read it (mode {:04o})",
                    metadata.mode() & 0o777
                ));
            }
        }
    }
    match secret.read() {
        Err(error) => Some(format!("{key}: {place} cannot be used now: {error}; mail is held until it can be")),
        Ok(value) if is_client_secret && Guid::parse(value.expose()).is_ok() => {
            Some(format!("{key}: {place} holds a GUID: is that the Secret ID? The secret's Value is wanted"))
        }
        Ok(value) if value.expose().trim() != value.expose() => {
            Some(format!("{key}: {place} starts or ends with a blank, which is taken for part of the secret"))
        }
        Ok(_) => None,
    }
}

/// Tells every file that is wrong.
pub(crate) fn check(settings: &Settings, reading: &Reading<'_>) {
    for (name, tenant) in &settings.tenants {
        for (key, file) in [("authority_ca_file", &tenant.authority_ca_file), ("smtp.ca_file", &tenant.smtp.ca_file)] {
            let Some(file) = file else { continue };
            let path = format!("tenant.{name}.{key}");
            // Whatever else it is, reading it could take for ever.
            if std::fs::metadata(file.as_path()).is_ok_and(|metadata| !metadata.is_file()) {
                reading.relation(&[&path], format!("{} is no regular file", file.as_path().display()));
            } else if let Err(error) = crate::tls::read_ca_file(file.as_path()) {
                reading.relation(&[&path], error.to_string());
            }
        }
    }
    for (key, secret) in secrets(settings) {
        if let SecretReference::File(path) = secret {
            check_secret(&key, &path, reading);
        }
    }
}

fn check_secret(key: &str, path: &Path, reading: &Reading<'_>) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let shown = path.display();
    if metadata.is_dir() {
        reading.relation(&[key], format!("{shown} is a directory; name the file that holds the secret"));
        return;
    }
    let mode = metadata.mode() & 0o777;
    let who = match (mode & WRITABLE != 0, mode & READABLE != 0 && !is_in_memory(path)) {
        (true, _) => "not only its owner can write",
        (false, true) => "everybody can read",
        (false, false) => return,
    };
    reading.relation(
        &[key],
        format!("{who} {shown} (mode {mode:04o}), which holds a secret; chmod 600 {shown}, owned by the user that runs the relay"),
    );
}

fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|statistics| statistics.f_type == TMPFS)
}
