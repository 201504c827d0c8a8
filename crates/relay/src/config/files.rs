//! What the files that the configuration names must be like: CA files that can be read, certificates of listeners that go
//! with their keys, secrets that others cannot read. A secret that is not there is no mistake: it may come later, and mail
//! is held for it rather than refused. A listener without its certificate could take none.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clock::{Clock, SystemClock, WallTime};
use rustix::fs::{FsWord, statfs};
use token_manager::{Nearness, SecretSource, SigningCertificate};

use super::identity::Guid;
use super::network::Network;
use super::reading::Reading;
use super::secret_reference::SecretReference;
use super::settings::{CertificateCredential, Encryption, Listener, Settings};
use super::value::Scalar;
use crate::listener_certificate::{self, CertificateError, Chain, Pair, PrivateKey, Role};
use crate::secret::ReferencedSecret;

/// Group and others may not write: they could put another secret there.
const WRITABLE: u32 = 0o022;
/// Others may not read.
const READABLE: u32 = 0o004;
/// The file system in memory, by statfs(2): where containers are given their secrets, open to all within them.
const TMPFS: FsWord = 0x0102_1994;

/// The key of a tenant's private key.
const CERTIFICATE_KEY: &str = "certificate_credential.key";

/// The secrets that the configuration refers to, by key.
fn secrets(settings: &Settings) -> Vec<(String, SecretReference)> {
    let mut secrets = Vec::new();
    for (name, tenant) in &settings.tenants {
        let certificate_key = tenant.certificate_credential.as_ref().map(|credential| &credential.key);
        for (key, secret) in [
            ("client_secret", tenant.client_secret.as_ref()),
            ("federated_token", tenant.federated_token.as_ref()),
            (CERTIFICATE_KEY, certificate_key),
        ] {
            secrets.extend(secret.map(|secret| (format!("tenant.{name}.{key}"), secret.clone())));
        }
    }
    secrets.extend(settings.vault.key.clone().map(|key| ("vault.key".to_owned(), key)));
    secrets
}

/// What is no mistake and worth a look. Whoever runs this may not be who runs the daemon.
pub(crate) fn doubts(settings: &Settings) -> Vec<String> {
    let mut doubts: Vec<_> = secrets(settings).into_iter().filter_map(doubt_secret).collect();
    for (name, tenant) in &settings.tenants {
        doubts.extend(tenant.certificate_credential.as_ref().and_then(|given| doubt_credential(name, given)));
    }
    for (name, listener) in &settings.listeners {
        let beyond = listener.address.socket().is_some_and(|address| !address.ip().is_loopback());
        if beyond && listener.networks.iter().all(Network::is_loopback) {
            doubts.push(format!(
                "listener.{name}: listens beyond this machine, but only this machine may send; name your devices' networks in \
                 listener.{name}.networks"
            ));
        }
        doubts.extend(doubt_certificate(name, listener));
    }
    doubts
}

fn doubt_certificate(name: &str, listener: &Listener) -> Vec<String> {
    let mut doubts = Vec::new();
    if let Some(private_key) = &listener.private_key {
        let (key, path) = (format!("listener.{name}.private_key"), private_key.as_path());
        doubts.extend(doubt_file(&key, &format!("file {}", path.display()), path));
    }
    if let Some(certificate) = &listener.certificate {
        let (key, path) = (format!("listener.{name}.certificate"), certificate.as_path());
        doubts.extend(doubt_relative(&key, path));
        let dates = Chain::read(path)
            .ok()
            .and_then(|chain| listener_certificate::doubt(chain.facts(), SystemClock::new().wall()));
        doubts.extend(dates.map(|text| format!("{key}: {text}")));
    }
    doubts
}

fn doubt_secret((key, reference): (String, SecretReference)) -> Option<String> {
    let is_client_secret = key.ends_with(".client_secret");
    let secret = ReferencedSecret::new(&key, reference.clone());
    let place = secret.place();
    if matches!(reference, SecretReference::SystemdCredential(_)) && std::env::var_os("CREDENTIALS_DIRECTORY").is_none()
    {
        return Some(format!("{key}: only under systemd can it be seen whether {place} is there"));
    }
    if let SecretReference::File(path) = &reference {
        let doubt = doubt_file(&key, &place, path);
        if doubt.is_some() {
            return doubt;
        }
    }
    // A certificate's key is looked at with its certificate.
    if key.ends_with(CERTIFICATE_KEY) {
        return None;
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

/// What the tenant `name` would prove itself with, as the relay would read it.
fn doubt_credential(name: &str, given: &CertificateCredential) -> Option<String> {
    let key = format!("tenant.{name}.certificate_credential");
    let only_under_systemd = matches!(given.key, SecretReference::SystemdCredential(_))
        && std::env::var_os("CREDENTIALS_DIRECTORY").is_none();
    // Whatever else it is, reading it could take for ever.
    let is_odd = |path: &Path| std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    let is_odd_key = matches!(&given.key, SecretReference::File(path) if is_odd(path));
    if only_under_systemd || is_odd_key {
        return None;
    }
    if is_odd(given.certificate.as_path()) {
        return Some(format!("{key}.certificate: {} is no regular file", given.certificate.as_path().display()));
    }
    let certificate = SecretReference::File(given.certificate.as_path().to_owned());
    let certificate = ReferencedSecret::new(&format!("{key}.certificate"), certificate);
    let private_key = ReferencedSecret::new(&format!("tenant.{name}.{CERTIFICATE_KEY}"), given.key.clone());
    let read = |place: &ReferencedSecret| place.text().map_err(|error| (place.description(), error.to_string()));
    let pair = read(&certificate).and_then(|certificate| Ok((certificate, read(&private_key)?)));
    let (place, error) = match pair {
        Err(wrong) => wrong,
        Ok((pem, key_pem)) => match SigningCertificate::from_pem(&pem, &key_pem) {
            Ok(pair) => return doubt_end(&key, pair.not_after()),
            Err(error) => {
                let place = format!("{} with the key from {}", certificate.description(), private_key.description());
                (place, error.to_string())
            }
        },
    };
    Some(format!("{key}: {place} cannot be used now: {error}; mail is held until it can be"))
}

/// That it ends within a month, or has ended.
fn doubt_end(key: &str, ends_at: WallTime) -> Option<String> {
    let what = match Nearness::of(ends_at, SystemClock::new().wall())? {
        Nearness::Over => "expired",
        Nearness::Day | Nearness::Week | Nearness::Month => "expires",
    };
    Some(format!("{key}: the certificate {what} at {ends_at}"))
}

fn doubt_relative(key: &str, path: &Path) -> Option<String> {
    let text = "is a relative path: what it means depends on where the relay is started, and under systemd that is /";
    path.is_relative().then(|| format!("{key}: {} {text}", path.display()))
}

/// What can be doubted of the file of a secret without reading it.
fn doubt_file(key: &str, place: &str, path: &Path) -> Option<String> {
    let relative = doubt_relative(key, path);
    if relative.is_some() {
        return relative;
    }
    let metadata = std::fs::metadata(path).ok()?;
    // Whatever else it is, reading it could take for ever.
    if !metadata.is_file() {
        return Some(format!("{key}: {place} is no regular file"));
    }
    let mode = metadata.mode() & 0o777;
    (mode & READABLE != 0).then(|| format!("{key}: everybody who can reach {place} can read it (mode {mode:04o})"))
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
    for (name, listener) in &settings.listeners {
        check_certificate(name, listener, reading);
    }
    for (key, secret) in secrets(settings) {
        if let SecretReference::File(path) = secret {
            check_secret(&key, &path, reading);
        }
    }
}

/// Both files of a listener, each by itself and then together. That one is missing, or not wanted, is `relations`' matter.
fn check_certificate(name: &str, listener: &Listener, reading: &Reading<'_>) {
    let (Some(certificate), Some(private_key)) = (&listener.certificate, &listener.private_key) else { return };
    if listener.tls == Encryption::None {
        return;
    }
    let key_of = |role| match role {
        Role::Certificate => format!("listener.{name}.certificate"),
        Role::PrivateKey => format!("listener.{name}.private_key"),
    };
    let tell = |error: &CertificateError| reading.relation(&[&key_of(error.role())], error.to_string());
    let read = (Chain::read(certificate.as_path()), PrivateKey::read(private_key.as_path()));
    // Of a file without a key, as when the two are swapped, it would be the wrong advice.
    if !matches!(&read.1, Err(error) if error.is_without_secret()) {
        check_mode(&key_of(Role::PrivateKey), private_key.as_path(), reading);
    }
    let errors = match read {
        (Ok(chain), Ok(key)) => [Pair::new(chain, key).err(), None],
        (chain, key) => [chain.err(), key.err()],
    };
    errors.iter().flatten().for_each(tell);
}

fn check_secret(key: &str, path: &Path, reading: &Reading<'_>) {
    if path.is_dir() {
        reading.relation(&[key], format!("{} is a directory; name the file that holds the secret", path.display()));
    } else {
        check_mode(key, path, reading);
    }
}

fn check_mode(key: &str, path: &Path, reading: &Reading<'_>) {
    if let Some(text) = exposure(path) {
        reading.relation(&[key], text);
    }
}

/// What `check` says of the rights of a file that holds a secret, when it is not its owner's alone. Nothing of one that is
/// not there, nor of a directory.
pub(crate) fn exposure(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok().filter(|metadata| !metadata.is_dir())?;
    let shown = path.display();
    let mode = metadata.mode() & 0o777;
    let who = match (mode & WRITABLE != 0, mode & READABLE != 0 && !is_in_memory(path)) {
        (true, _) => "not only its owner can write",
        (false, true) => "everybody can read",
        (false, false) => return None,
    };
    Some(format!(
        "{who} {shown} (mode {mode:04o}), which holds a secret; chmod 600 {shown}, owned by the user that runs the relay"
    ))
}

fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|statistics| statistics.f_type == TMPFS)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn rights_of_a_key_are_told_of_a_key_alone() {
        let directory = tempfile::TempDir::new().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["relay01".to_owned()]).unwrap();
        for (name, text) in
            [("tls.pem", made.cert.pem()), ("tls.key", made.signing_key.serialize_pem()), ("empty", String::new())]
        {
            std::fs::write(directory.path().join(name), text).unwrap();
            // By its group: wrong whatever the file system, and whatever the umask.
            std::fs::set_permissions(directory.path().join(name), Permissions::from_mode(0o620)).unwrap();
        }
        let said = |certificate: &str, key: &str| {
            let (certificate, key) = (directory.path().join(certificate), directory.path().join(key));
            let text = format!(
                "[tenant.contoso]\ntenant_id = \"11111111-2222-3333-4444-555555555555\"\n\
                 client_id = \"66666666-7777-8888-9999-000000000000\"\nclient_secret = {{ file = \"/nonexistent/secret\" }}\n\
                 [mailbox.scanner]\naddress = \"scanner@contoso.com\"\n\
                 [listener.lan]\ntls = \"starttls\"\ncertificate = {certificate:?}\nprivate_key = {key:?}\n"
            );
            let path = directory.path().join("relay.toml");
            std::fs::write(&path, text).unwrap();
            crate::config::load(&path, std::iter::empty()).map(drop).unwrap_err().to_string()
        };
        for (certificate, key, rights, rest) in [
            ("tls.pem", "tls.key", true, None),
            ("tls.key", "tls.pem", false, Some("are certificate and private_key swapped?")),
            ("tls.pem", "empty", false, Some("it is empty")),
        ] {
            let said = said(certificate, key);
            assert_eq!(said.contains("which holds a secret; chmod 600"), rights, "{certificate} {key}: {said}");
            assert_eq!(said.contains("there is no "), rest.is_some(), "{said}");
            assert!(said.contains(rest.unwrap_or_default()), "{said}");
        }
    }
}
