//! A certificate chain and its private key as files: what is read, what is wrong with it and the remedy. It judges
//! whether the two fit together, and verifies nothing else: whom a client trusts is the client's matter.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clock::WallTime;
use rustix::io::Errno;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// Longest file, in octets; a long chain has some ten thousand.
const MAX_LEN: u64 = 1 << 20;
/// Names that a log line shows.
const NAMES_SHOWN: usize = 8;

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The certificate chain.
    Certificate,
    /// Its private key.
    PrivateKey,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::PrivateKey => "private key",
        })
    }
}

/// Why a certificate and key cannot be used. One sentence each, with the remedy; no octet of a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The system does not give it.
    #[error("cannot read the {role} {}: {source}; {}", .path.display(), reading_remedy(.source, *.user))]
    Unreadable {
        /// Which file.
        role: Role,
        /// Where.
        path: PathBuf,
        /// Who asked.
        user: u32,
        /// Why.
        source: io::Error,
    },
    /// Reading it could take for ever.
    #[error("cannot use the {role} {}: it is no regular file; name the file itself", .path.display())]
    NoFile {
        /// Which file.
        role: Role,
        /// Where.
        path: PathBuf,
    },
    /// Nothing of what it is for is in it.
    #[error("there is no {role} in {}: {}", .path.display(), content_remedy(*.content, *.role, .path))]
    Missing {
        /// Which file.
        role: Role,
        /// Where.
        path: PathBuf,
        /// What is in it.
        content: Content,
    },
    /// PEM or DER that cannot be read.
    #[error("the {role} in {} is broken: {text}; was it cut short or edited? Copy it anew", .path.display())]
    Broken {
        /// Which file.
        role: Role,
        /// Where.
        path: PathBuf,
        /// What the parser says.
        text: String,
    },
    /// Nobody is there to type its password.
    #[error(
        "the private key in {path} is encrypted, and nobody types its password at a start; `openssl pkey -in {path} -out \
         {path}.plain` decrypts it, and `chmod 600 {path}.plain` keeps it from others", path = .path.display()
    )]
    EncryptedKey {
        /// Where.
        path: PathBuf,
    },
    /// A key that TLS here does not know.
    #[error(
        "the private key in {} is of a kind that cannot be used ({text}); RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 \
         or P-521, and Ed25519 can", .path.display()
    )]
    UnsupportedKey {
        /// Where.
        path: PathBuf,
        /// What the provider says.
        text: String,
    },
    /// They are of two pairs.
    #[error(
        "the private key in {} does not belong to the certificate in {}; write the two that were made together",
        .private_key.display(), .certificate.display()
    )]
    Mismatch {
        /// Where the certificate is.
        certificate: PathBuf,
        /// Where the key is.
        private_key: PathBuf,
    },
    /// They fit, but another certificate comes first.
    #[error(
        "the certificates in {} are in the wrong order: the private key belongs to number {position}, which must come \
         first, and those that certify it below", .certificate.display()
    )]
    Order {
        /// Where the certificates are.
        certificate: PathBuf,
        /// Which of them is the key's, counted from 1.
        position: usize,
    },
}

impl CertificateError {
    /// The file that is at fault.
    pub(crate) fn role(&self) -> Role {
        match self {
            Self::Unreadable { role, .. }
            | Self::NoFile { role, .. }
            | Self::Missing { role, .. }
            | Self::Broken { role, .. } => *role,
            Self::EncryptedKey { .. } | Self::UnsupportedKey { .. } | Self::Mismatch { .. } => Role::PrivateKey,
            Self::Order { .. } => Role::Certificate,
        }
    }

    /// Whether the system did not give a file: it may next time, though nothing of the file changes.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() != io::ErrorKind::FileTooLarge)
    }

    /// Whether it is a shortage of this process or machine, which says nothing of the file.
    pub(crate) fn is_shortage(&self) -> bool {
        let Self::Unreadable { source, .. } = self else { return false };
        matches!(Errno::from_io_error(source), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
    }

    /// Whether the file holds something else than what others must not know.
    pub(crate) fn is_without_secret(&self) -> bool {
        let Self::Missing { content, .. } = self else { return false };
        !matches!(content, Content::Key | Content::Der | Content::Pkcs12)
    }
}

fn reading_remedy(error: &io::Error, user: u32) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            return "the relay has as many files and connections open as it may: raise LimitNOFILE= of its service \
                    (`ulimit -n`), or lower the listeners' max_connections"
                .to_owned();
        }
        Some(Errno::NFILE) => {
            return "this machine has as many files open as it may: find what holds them, or raise the sysctl fs.file-max"
                .to_owned();
        }
        Some(Errno::NOMEM) => return "this machine or the relay's service has no memory left".to_owned(),
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::NotFound => "write the path of the file, or make one by `xoauth2-relay self-signed`".to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!("this runs as user {user}: let that user read the file and enter the directories above it")
        }
        _ => "is it the right file?".to_owned(),
    }
}

/// What is in a file, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing.
    Empty,
    /// A certificate in PEM.
    Certificate,
    /// A private key in PEM.
    Key,
    /// A certificate request in PEM.
    Request,
    /// A public key in PEM.
    PublicKey,
    /// A certificate or key in DER.
    Der,
    /// PKCS #12.
    Pkcs12,
    /// Something else.
    Other,
}

impl Content {
    fn of(octets: &[u8]) -> Self {
        let text = String::from_utf8_lossy(octets);
        let begins = |label: &str| text.contains(&format!("-----BEGIN {label}-----"));
        if text.trim().is_empty() {
            Self::Empty
        } else if begins("CERTIFICATE") {
            Self::Certificate
        } else if text.contains("PRIVATE KEY-----") {
            Self::Key
        } else if text.contains("CERTIFICATE REQUEST-----") {
            Self::Request
        } else if text.contains("PUBLIC KEY-----") {
            Self::PublicKey
        } else if matches!(octets, [0x30, 0x82, _, _, 2, 1, 3, ..] | [0x30, 0x80, 2, 1, 3, ..]) {
            // PFX of RFC 7292 section 4: a sequence that begins with version 3.
            Self::Pkcs12
        } else if X509Certificate::from_der(octets).is_ok() || PrivateKeyDer::try_from(octets).is_ok() {
            Self::Der
        } else {
            Self::Other
        }
    }
}

/// What a file holds instead of what its role wants, and how to come by that.
fn content_remedy(content: Content, role: Role, path: &Path) -> String {
    let path = path.display();
    let text = match (content, role) {
        (Content::Empty, _) => "it is empty",
        (Content::Key, Role::Certificate) => "it holds a private key; are certificate and private_key swapped?",
        (Content::Certificate, Role::PrivateKey) => "it holds a certificate; are certificate and private_key swapped?",
        (Content::Request, Role::Certificate) => "it holds a request; name the certificate that the CA made of it",
        (Content::PublicKey, Role::PrivateKey) => "it holds a public key; name its private one",
        (Content::Der, Role::Certificate) => {
            return format!("it is DER; `openssl x509 -inform DER -in {path} -out {path}.pem` makes it PEM");
        }
        (Content::Der, Role::PrivateKey) => {
            return format!("it is DER; `openssl pkey -inform DER -in {path} -out {path}.pem` makes it PEM");
        }
        (Content::Pkcs12, Role::Certificate) => {
            return format!(
                "it is PKCS #12; `openssl pkcs12 -in {path} -nokeys -out {path}.pem` takes the chain out of it"
            );
        }
        (Content::Pkcs12, Role::PrivateKey) => {
            return format!(
                "it is PKCS #12; `openssl pkcs12 -in {path} -nocerts -noenc -out {path}.key` takes the key out of it"
            );
        }
        (_, Role::Certificate) => "in PEM it begins with -----BEGIN CERTIFICATE-----",
        (_, Role::PrivateKey) => "in PEM it begins with -----BEGIN PRIVATE KEY-----",
    };
    text.to_owned()
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Whom it names, as one line.
    pub(crate) subject: String,
    /// Names and addresses that clients may call it by; without any its common name.
    pub(crate) names: Vec<String>,
    /// When its time begins.
    pub(crate) not_before: WallTime,
    /// When its time ends.
    pub(crate) not_after: WallTime,
}

impl Facts {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let subject = certificate.subject();
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let mut names: Vec<_> = alternatives
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(one_line(name)),
                GeneralName::IPAddress(octets) => Some(address(octets)?.to_string()),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            names.extend(subject.iter_common_name().filter_map(|name| name.as_str().ok()).map(one_line));
        }
        let at = |seconds: i64| WallTime::from_unix_millis(seconds.saturating_mul(1000));
        let validity = certificate.validity();
        Self {
            subject: one_line(&subject.to_string()),
            names,
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
        }
    }

    /// The first names, for a log line.
    pub(crate) fn shown_names(&self) -> String {
        let shown: Vec<_> = self.names.iter().take(NAMES_SHOWN).map(String::as_str).collect();
        let more = self.names.len().saturating_sub(NAMES_SHOWN);
        let shown = shown.join(", ");
        if more == 0 { shown } else { format!("{shown} and {more} more") }
    }
}

/// Without what would break a log line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// An address as certificates have it (RFC 5280 section 4.2.1.6).
fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(|four| Ipv4Addr::from(four).into());
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(|sixteen| Ipv6Addr::from(sixteen).into())).ok()
}

/// A certificate chain, the server's own certificate first; not empty.
#[derive(Debug)]
pub(crate) struct Chain {
    path: PathBuf,
    certificates: Vec<CertificateDer<'static>>,
    /// The public key of each (`SubjectPublicKeyInfo`).
    public_keys: Vec<Vec<u8>>,
    facts: Facts,
}

impl Chain {
    /// Reads the chain in a PEM file.
    pub(crate) fn read(path: &Path) -> Result<Self, CertificateError> {
        Self::parse(path, &octets(Role::Certificate, path)?)
    }

    fn parse(path: &Path, octets: &[u8]) -> Result<Self, CertificateError> {
        let role = Role::Certificate;
        let broken = |text: String| CertificateError::Broken { role, path: path.to_owned(), text };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(octets).collect();
        let certificates = certificates.map_err(|error| broken(pem_fault(&error).to_owned()))?;
        let mut public_keys = Vec::new();
        let mut facts = None;
        for (at, der) in certificates.iter().enumerate() {
            let (_, certificate) = X509Certificate::from_der(der)
                .map_err(|error| broken(format!("certificate number {} is no X.509 ({error})", at + 1)))?;
            public_keys.push(certificate.public_key().raw.to_vec());
            facts.get_or_insert_with(|| Facts::of(&certificate));
        }
        let missing = || CertificateError::Missing { role, path: path.to_owned(), content: Content::of(octets) };
        Ok(Self { path: path.to_owned(), public_keys, facts: facts.ok_or_else(missing)?, certificates })
    }

    /// What the server's own certificate says.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// A private key.
#[derive(Debug)]
pub(crate) struct PrivateKey {
    path: PathBuf,
    key: Arc<dyn SigningKey>,
}

impl PrivateKey {
    /// Reads the key in a PEM file.
    pub(crate) fn read(path: &Path) -> Result<Self, CertificateError> {
        Self::parse(path, &octets(Role::PrivateKey, path)?)
    }

    fn parse(path: &Path, octets: &[u8]) -> Result<Self, CertificateError> {
        let role = Role::PrivateKey;
        // PKCS #8 (RFC 7468 section 11) and what OpenSSL wrote before (RFC 1421 section 4.6.1.1).
        for mark in [&b"-----BEGIN ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"] {
            if octets.windows(mark.len()).any(|window| window == mark) {
                return Err(CertificateError::EncryptedKey { path: path.to_owned() });
            }
        }
        let mut found = PrivateKeyDer::pem_slice_iter(octets);
        let missing = || CertificateError::Missing { role, path: path.to_owned(), content: Content::of(octets) };
        let key = found.next().ok_or_else(missing)?.map_err(|error| CertificateError::Broken {
            role,
            path: path.to_owned(),
            text: pem_fault(&error).to_owned(),
        })?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key);
        let unsupported =
            |error: rustls::Error| CertificateError::UnsupportedKey { path: path.to_owned(), text: error.to_string() };
        Ok(Self { path: path.to_owned(), key: key.map_err(unsupported)? })
    }
}

/// A chain and the key of its first certificate.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) facts: Facts,
}

impl Pair {
    /// Reads both files.
    pub(crate) fn read(certificate: &Path, private_key: &Path) -> Result<Self, CertificateError> {
        Self::new(Chain::read(certificate)?, PrivateKey::read(private_key)?)
    }

    /// Joins the two, if they belong together.
    pub(crate) fn new(chain: Chain, key: PrivateKey) -> Result<Self, CertificateError> {
        // Every key that rustls makes itself knows its public half.
        let public = key.key.public_key();
        let own = public.and_then(|public| chain.public_keys.iter().position(|other| other == public.as_ref()));
        match own {
            Some(0) => {
                Ok(Self { certified: Arc::new(CertifiedKey::new(chain.certificates, key.key)), facts: chain.facts })
            }
            Some(at) => Err(CertificateError::Order { certificate: chain.path, position: at + 1 }),
            None => Err(CertificateError::Mismatch { certificate: chain.path, private_key: key.path }),
        }
    }
}

/// The parser's own words repeat the file, which may be a key whose line ends were lost.
fn pem_fault(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "its -----END line is missing, or its line ends are",
        PemError::IllegalSectionStart { .. } => "its -----BEGIN line is not a line of its own",
        PemError::Base64Decode(_) => "between its -----BEGIN and -----END lines is something else than base64",
        _ => "it is no PEM",
    }
}

/// A file's octets, without the byte order mark of some editors.
fn octets(role: Role, path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let unreadable = |source| {
        let user = rustix::process::geteuid().as_raw();
        CertificateError::Unreadable { role, path: path.to_owned(), user, source }
    };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(CertificateError::NoFile { role, path: path.to_owned() });
    }
    let mut octets = Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut octets)).map_err(unreadable)?;
    if octets.len() as u64 > MAX_LEN {
        let text = format!("it has more than {MAX_LEN} octets");
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, text)));
    }
    if octets.starts_with(b"\xEF\xBB\xBF") {
        octets.drain(..3);
    }
    Ok(octets)
}

#[cfg(test)]
mod tests;
