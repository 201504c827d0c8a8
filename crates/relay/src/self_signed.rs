//! The `self-signed` command: a certificate that vouches for itself, for devices that insist on TLS and check nothing.
//! Not for what faces the internet; a CA's certificate is served all the same.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clock::{Clock, SystemClock, WallTime};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, SanType, date_time_ymd,
};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::check::complain;
use crate::cli::{KeyKind, SelfSigned};
use crate::exit::Exit;
use crate::output;

const DAY: Duration = Duration::from_hours(24);
/// Longest common name (`ub-common-name` of RFC 5280, appendix A.1).
const MAX_COMMON_NAME: usize = 64;
/// For its owner only, as `check` demands of a key.
const KEY_MODE: u32 = 0o600;
/// A certificate is no secret; whoever checks it must be able to read it.
const CERTIFICATE_MODE: u32 = 0o644;

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
enum SelfSignedError {
    /// One would replace the other.
    #[error("--certificate and --private-key name the same file; name two")]
    OneFile,
    /// Clients could not ask for it.
    #[error("--name {0:?} is neither a host name (letters, digits, hyphens and dots) nor an IP address")]
    BadName(String),
    /// Something stands there.
    #[error("{} is there already; name another file, or write --force to replace both files", .0.display())]
    Exists(PathBuf),
    /// The system refused.
    #[error("cannot write {} as user {}: {source}; is its directory there, and may this user write in it?", .path.display(), rustix::process::geteuid().as_raw())]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A fault of ours.
    #[error("the certificate could not be made: {0}; please report this")]
    Making(#[from] rcgen::Error),
}

impl From<&SelfSignedError> for Exit {
    fn from(error: &SelfSignedError) -> Self {
        match error {
            SelfSignedError::OneFile | SelfSignedError::BadName(_) | SelfSignedError::Exists(_) => Self::Usage,
            SelfSignedError::Unwritable { .. } => Self::Unavailable,
            SelfSignedError::Making(_) => Self::Internal,
        }
    }
}

/// Makes the certificate, writes both files, and prints what to do with them.
pub(crate) fn self_signed(options: &SelfSigned) -> Exit {
    match make(options, SystemClock::new().wall()) {
        Ok(said) => output::print(&said),
        Err(error) => {
            complain(&error.to_string());
            Exit::from(&error)
        }
    }
}

fn make(options: &SelfSigned, now: WallTime) -> Result<String, SelfSignedError> {
    let (certificate, private_key) = (absolute(&options.certificate)?, absolute(&options.private_key)?);
    if certificate == private_key {
        return Err(SelfSignedError::OneFile);
    }
    let taken = |path: &&PathBuf| !options.force && path.symlink_metadata().is_ok();
    if let Some(taken) = [&private_key, &certificate].into_iter().find(taken) {
        return Err(SelfSignedError::Exists(taken.clone()));
    }
    let names = names(&options.names)?;
    let not_after = now + DAY * options.days;
    let key = KeyPair::generate_for(match options.key {
        KeyKind::Rsa => &PKCS_RSA_SHA256,
        KeyKind::Ecdsa => &PKCS_ECDSA_P256_SHA256,
    })?;
    let made = params(&names, now, not_after)?.self_signed(&key)?;
    // A certificate without its key is of no use, a key without its certificate does no harm.
    write(&private_key, Zeroizing::new(key.serialize_pem()).as_bytes(), KEY_MODE, options.force)?;
    write(&certificate, made.pem().as_bytes(), CERTIFICATE_MODE, options.force)?;
    Ok(said(&certificate, &private_key, &names, not_after))
}

fn absolute(path: &Path) -> Result<PathBuf, SelfSignedError> {
    std::path::absolute(path).map_err(|source| SelfSignedError::Unwritable { path: path.to_owned(), source })
}

/// The names to certify: those that are asked for, else those of this machine.
fn names(asked: &[String]) -> Result<Vec<String>, SelfSignedError> {
    if asked.is_empty() {
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut names = vec![crate::hostname::valid(&machine), "localhost".to_owned()];
        names.dedup();
        return Ok(names);
    }
    let is_name = |name: &str| name.parse::<IpAddr>().is_ok() || crate::hostname::valid(name) == name;
    match asked.iter().find(|name| !is_name(name)) {
        Some(bad) => Err(SelfSignedError::BadName(bad.clone())),
        None => Ok(asked.to_vec()),
    }
}

fn params(names: &[String], now: WallTime, not_after: WallTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    for name in names {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    let common = names.iter().find(|name| name.len() <= MAX_COMMON_NAME).map_or("xoauth2-relay", String::as_str);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    let at = |time: WallTime| date_time_ymd(1970, 1, 1) + time.saturating_since(WallTime::from_unix_millis(0));
    // Clocks of devices are behind as often as not.
    params.not_before = at(now - DAY);
    params.not_after = at(not_after);
    // Whoever trusts it trusts this server, and nothing that its key might sign. Without a key usage, for some libraries
    // take a certificate that is its own issuer only if its key may sign certificates.
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// Writes a file whole or not at all, on the disk when this returns.
fn write(path: &Path, octets: &[u8], mode: u32, force: bool) -> Result<(), SelfSignedError> {
    // An absolute path of a file has a directory.
    let directory = path.parent().unwrap_or(path);
    let written = || {
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(octets)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        if force { file.persist(path) } else { file.persist_noclobber(path) }.map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    };
    written().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => SelfSignedError::Exists(path.to_owned()),
        _ => SelfSignedError::Unwritable { path: path.to_owned(), source },
    })
}

fn said(certificate: &Path, private_key: &Path, names: &[String], not_after: WallTime) -> String {
    let (shown, shown_key) = (certificate.display(), private_key.display());
    let until = not_after.rfc3339();
    let until = until.split('T').next().unwrap_or(&until);
    let mut text = format!(
        "Private key: {shown_key} (mode 0600). Certificate: {shown}, for {}, good until {until}.\n\n",
        names.join(", ")
    );
    let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a String cannot fail");
    line("In the configuration, in the [listener.NAME] that it is for:");
    line("  tls         = \"starttls\"      # or \"require-starttls\", or \"implicit\" for devices that call it SSL");
    let toml = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
    line(&format!("  certificate = {}", toml(certificate)));
    line(&format!("  private_key = {}", toml(private_key)));
    line("");
    line("The user that runs the relay must be able to read the key: give the file to that user if it is not yours.");
    line(&format!(
        "Clients that verify certificates must be given {shown} as one to trust, and must call the relay by one of these names."
    ));
    line("The certificate is no secret; the key never leaves this machine.");
    text
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::listener_certificate::Pair;

    const NOW: WallTime = WallTime::from_unix_millis(1_800_000_000_000);

    fn options(directory: &Path, names: &[&str], key: KeyKind) -> SelfSigned {
        SelfSigned {
            certificate: directory.join("tls.pem"),
            private_key: directory.join("tls.key"),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            days: 3650,
            key,
            force: false,
        }
    }

    #[test]
    fn what_is_made_can_be_served_and_says_what_was_asked_for() {
        for key in [KeyKind::Rsa, KeyKind::Ecdsa] {
            let directory = TempDir::new().unwrap();
            let options = options(directory.path(), &["relay01", "10.1.2.3", "fd00::1"], key);
            let said = make(&options, NOW).unwrap();
            assert!(said.contains("for relay01, 10.1.2.3, fd00::1, good until 2037-01-12"), "{said}");
            Pair::read(&options.certificate, &options.private_key).unwrap();
            let facts = crate::listener_certificate::Chain::read(&options.certificate).unwrap().facts().clone();
            assert_eq!(facts.names, ["relay01", "10.1.2.3", "fd00::1"]);
            assert_eq!((facts.not_before, facts.not_after), (NOW - DAY, NOW + DAY * 3650));
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&options.private_key), mode(&options.certificate)), (0o600, 0o644));
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
        }
    }

    #[test]
    fn names_are_host_names_or_addresses_and_by_default_the_machines() {
        let of_machine = names(&[]).unwrap();
        assert_eq!(of_machine.last().map(String::as_str), Some("localhost"));
        for (name, right) in [
            ("relay01.example.com", true),
            ("10.1.2.3", true),
            ("::1", true),
            ("", false),
            ("re lay", false),
            ("relay_01", false),
            ("büro", false),
            ("10.1.2.3/24", false),
        ] {
            assert_eq!(names(&[name.to_owned()]).is_ok(), right, "{name}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_to_be_a_common_name_still_counts() {
        let long = format!("{}.example.com", ["a".repeat(60), "b".repeat(60)].join("."));
        let params = params(std::slice::from_ref(&long), NOW, NOW + DAY).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("tls.pem");
        fs::write(&path, certificate).unwrap();
        let facts = crate::listener_certificate::Chain::read(&path).unwrap().facts().clone();
        assert_eq!((facts.subject.as_str(), facts.names), ("CN=xoauth2-relay", vec![long]));
    }

    #[test]
    fn nothing_is_replaced_unasked() {
        let directory = TempDir::new().unwrap();
        let mut options = options(directory.path(), &["relay01"], KeyKind::Ecdsa);
        fs::write(&options.certificate, "mine").unwrap();
        assert!(matches!(make(&options, NOW), Err(SelfSignedError::Exists(path)) if path == options.certificate));
        assert!(!options.private_key.exists(), "not half of it either");
        // Whoever came in between is not replaced.
        let error = write(&options.certificate, b"theirs", 0o644, false).unwrap_err();
        assert!(matches!(error, SelfSignedError::Exists(_)), "{error}");
        assert_eq!(fs::read_to_string(&options.certificate).unwrap(), "mine");
        options.force = true;
        make(&options, NOW).unwrap();
        Pair::read(&options.certificate, &options.private_key).unwrap();
        options.private_key.clone_from(&options.certificate);
        assert!(matches!(make(&options, NOW), Err(SelfSignedError::OneFile)));
    }
}
