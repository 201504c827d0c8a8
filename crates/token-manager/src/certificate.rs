//! The certificate by which an application signs its assertions, with its private key, both out of PEM.
//!
//! It says what is wrong with either and what to do, what the certificate says of itself, and signs. It opens no file,
//! judges no date and trusts no issuer: Entra ID knows the certificate because it was uploaded to the app registration.

use std::fmt::{self, Write};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clock::WallTime;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::asn1_rs::{Any, Oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_KEY_TYPE_DSA, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_RSASSAPSS, OID_SIG_ED448,
    OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::AlgorithmIdentifier;
use zeroize::Zeroizing;

const CERTIFICATE: &str = "certificate";
const PRIVATE_KEY: &str = "private key";

const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const BEGIN_KEY: [&str; 3] =
    ["-----BEGIN PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN EC PRIVATE KEY-----"];
/// PKCS #8 (RFC 7468 section 11), and what OpenSSL wrote before (RFC 1421 section 4.6.1.1).
const ENCRYPTED: [&str; 2] = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];

/// What Microsoft's documents and tools make; fewer bits are not safe.
const FEWEST_BITS: usize = 2048;
/// What the library takes.
const MOST_BITS: usize = 8192;
const LONGEST_SUBJECT: usize = 200;

const MAKE_ONE: &str = "make one by `openssl req -x509 -newkey rsa:2048 -noenc -days 365 -subj /CN=xoauth2-relay -keyout \
                        FILE.key -out FILE.pem` and upload FILE.pem to the app registration";

/// Why a certificate and its key cannot be used. One sentence each, with the remedy; nothing of what was read. `FILE`
/// stands for the path, which only the caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// Nothing of what it is for is in it.
    #[error("there is no {part} in it: {remedy}")]
    Missing {
        /// `certificate` or `private key`.
        part: &'static str,
        /// What is there instead, and what to do.
        remedy: &'static str,
    },
    /// Nobody is there to type its password.
    #[error(
        "the private key is encrypted, and nobody types its password at a start; `openssl pkey -in FILE -out FILE.plain` \
         decrypts it, and `chmod 600 FILE.plain` keeps it from others"
    )]
    Encrypted,
    /// PS256 and RS256, all that Entra ID takes, are RSA (facts 4.3).
    #[error("the {part} is of {kind}, but Entra ID takes assertions that are signed by RSA alone; {}", MAKE_ONE)]
    NotRsa {
        /// `certificate` or `private key`.
        part: &'static str,
        /// What it is, as in `an EC key`.
        kind: &'static str,
    },
    /// Too short to be safe, or longer than the library takes.
    #[error("the RSA key of the {part} has {bits} bits, and {} to {} are wanted; {}", FEWEST_BITS, MOST_BITS, MAKE_ONE)]
    Size {
        /// `certificate` or `private key`.
        part: &'static str,
        /// How long the modulus is.
        bits: usize,
    },
    /// They are of two pairs.
    #[error("the private key does not belong to the certificate; name the two that were made together")]
    Mismatch,
    /// They fit, but another certificate comes first.
    #[error(
        "the certificates are in the wrong order: the private key belongs to number {position}, which must come first, and \
         those that certify it below"
    )]
    Order {
        /// Which of them is the key's, counted from 1.
        position: usize,
    },
    /// PEM or DER that cannot be read.
    #[error("the {part} is broken: {fault}; was it cut short or edited? Copy it anew")]
    Broken {
        /// `certificate` or `private key`.
        part: &'static str,
        /// What is wrong.
        fault: &'static str,
    },
}

/// How an assertion is signed (RFC 7518 section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PSS with SHA-256 and a salt of 32 octets, what Microsoft documents today.
    #[default]
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, what it documented before.
    Rs256,
}

impl Algorithm {
    /// The `alg` of the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }

    fn encoding(self) -> &'static dyn RsaEncoding {
        match self {
            Self::Ps256 => &RSA_PSS_SHA256,
            Self::Rs256 => &RSA_PKCS1_SHA256,
        }
    }
}

/// An application's certificate with its RSA key of 2048 to 8192 bits; the two belong together.
///
/// The key lives in the memory of AWS-LC, which wipes it when this is dropped; its DER is wiped as soon as it was read.
/// What the PEM reader keeps of the text while it reads is the library's, and is freed unwiped.
pub struct SigningCertificate {
    der: CertificateDer<'static>,
    key: rsa::KeyPair,
    subject: String,
    not_before: WallTime,
    not_after: WallTime,
}

impl SigningCertificate {
    /// Reads both. `certificate` may hold a chain, the application's own certificate first; `key` is PKCS #8 or
    /// PKCS #1. Text around the PEM, CRLF and a byte order mark do no harm, and both arguments may be one text with
    /// both in it. Fails as [`BadCertificate`] says; dates are no reason.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, BadCertificate> {
        let der = own_certificate(certificate)?;
        let parsed = parse(&der)?;
        check_kind(CERTIFICATE, &parsed.public_key().algorithm.algorithm)?;
        let (_, public) = RSAPublicKey::from_der(public_key(&parsed))
            .map_err(|_| broken(CERTIFICATE, "its RSA key cannot be read"))?;
        check_size(CERTIFICATE, public.modulus)?;
        let key = private_key(key)?;
        if public_key(&parsed) != key.public_key().as_ref() {
            return Err(position(certificate, &key)
                .map_or(BadCertificate::Mismatch, |position| BadCertificate::Order { position }));
        }
        let at = |seconds: i64| WallTime::from_unix_millis(seconds.saturating_mul(1000));
        let subject = shown(&parsed.subject().to_string());
        let validity = parsed.validity();
        let (not_before, not_after) = (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()));
        Ok(Self { der, key, subject, not_before, not_after })
    }

    /// Whom it names, in one line of at most 200 characters, for logs.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When its time begins.
    pub fn not_before(&self) -> WallTime {
        self.not_before
    }

    /// When its time ends; Entra ID refuses it from then on.
    pub fn not_after(&self) -> WallTime {
        self.not_after
    }

    /// SHA-1 of the certificate in upper-case hexadecimal, as the portal lists it under Certificates & secrets.
    pub fn thumbprint(&self) -> String {
        let mut hex = String::new();
        for octet in self.sha1() {
            write!(hex, "{octet:02X}").expect("writing to a String cannot fail");
        }
        hex
    }

    /// `x5t`, base64url of the SHA-1 of the certificate (RFC 7515 section 4.1.7).
    pub fn x5t(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.sha1())
    }

    /// `x5t#S256`, base64url of the SHA-256 of the certificate (RFC 7515 section 4.1.8).
    pub fn x5t_s256(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.der))
    }

    /// Whether `other` is the same certificate with the same key, as after its files were written anew unchanged.
    pub fn same(&self, other: &Self) -> bool {
        // Each fits its certificate, so equal public keys follow; they are compared for whoever changes that.
        self.der == other.der && self.key.public_key().as_ref() == other.key.public_key().as_ref()
    }

    /// The signature of `message`, as long as the modulus.
    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(algorithm.encoding(), &SystemRandom::new(), message, &mut signature)
            .expect("an RSA key that was checked, with room for every padding, signs");
        signature
    }

    /// What the portal and `x5t` identify it by; nothing rests on its strength.
    fn sha1(&self) -> Vec<u8> {
        digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.der).as_ref().to_vec()
    }
}

impl fmt::Debug for SigningCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningCertificate({}, {}, key redacted)", self.subject, self.thumbprint())
    }
}

fn broken(part: &'static str, fault: &'static str) -> BadCertificate {
    BadCertificate::Broken { part, fault }
}

/// The first certificate in `text`.
fn own_certificate(text: &str) -> Result<CertificateDer<'static>, BadCertificate> {
    let missing = || BadCertificate::Missing { part: CERTIFICATE, remedy: instead_of_certificate(text) };
    let at = text.find(BEGIN_CERTIFICATE).ok_or_else(missing)?;
    section(CERTIFICATE, &text[at..])
}

/// The PEM that `text` begins with. What stands before and after is not decoded: it may be a key.
fn section<T: PemObject>(part: &'static str, text: &str) -> Result<T, BadCertificate> {
    let first_line = text.split(['\r', '\n']).next().unwrap_or_default().trim_end();
    let label = first_line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
    if label.is_none_or(|label| label.contains('-')) {
        return Err(broken(part, "its BEGIN line does not stand alone, as when line ends became blanks or \\n"));
    }
    T::from_pem_slice(text.as_bytes()).map_err(|error| {
        broken(
            part,
            match error {
                PemError::MissingSectionEnd { .. } => "the END line is missing, or is indented",
                PemError::Base64Decode(_) => "what stands between its BEGIN and END lines is not base64",
                _ => "it is not the PEM that its first line says",
            },
        )
    })
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, BadCertificate> {
    match X509Certificate::from_der(der) {
        // Octets that follow would be hashed into a thumbprint that Entra ID does not know.
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(broken(CERTIFICATE, "it is no X.509")),
    }
}

/// `RSAPublicKey` of RFC 8017, appendix A.1.1, of an RSA certificate.
fn public_key<'a>(certificate: &'a X509Certificate<'_>) -> &'a [u8] {
    certificate.public_key().subject_public_key.as_ref()
}

/// Which certificate of the chain in `text` is that of `key`, counted from 1.
fn position(text: &str, key: &rsa::KeyPair) -> Option<usize> {
    let is_of_key = |der: &CertificateDer<'_>| parse(der).is_ok_and(|it| public_key(&it) == key.public_key().as_ref());
    let position = text
        .match_indices(BEGIN_CERTIFICATE)
        .position(|(at, _)| section(CERTIFICATE, &text[at..]).is_ok_and(|der| is_of_key(&der)))?;
    Some(position + 1)
}

/// The first private key in `text`.
fn private_key(text: &str) -> Result<rsa::KeyPair, BadCertificate> {
    if ENCRYPTED.iter().any(|mark| text.contains(mark)) {
        return Err(BadCertificate::Encrypted);
    }
    let missing = || BadCertificate::Missing { part: PRIVATE_KEY, remedy: instead_of_key(text) };
    let at = BEGIN_KEY.iter().filter_map(|begin| text.find(begin)).min().ok_or_else(missing)?;
    let der = Zeroizing::new(section::<PrivateKeyDer<'_>>(PRIVATE_KEY, &text[at..])?);
    let unreadable = || broken(PRIVATE_KEY, "its DER cannot be read");
    let der = match &*der {
        PrivateKeyDer::Pkcs1(der) => der.secret_pkcs1_der(),
        PrivateKeyDer::Pkcs8(der) => {
            let (algorithm, inner) = private_key_info(der.secret_pkcs8_der()).ok_or_else(unreadable)?;
            check_kind(PRIVATE_KEY, &algorithm)?;
            inner
        }
        PrivateKeyDer::Sec1(_) => return Err(BadCertificate::NotRsa { part: PRIVATE_KEY, kind: "an EC key" }),
        _ => return Err(unreadable()),
    };
    check_size(PRIVATE_KEY, modulus(der).ok_or_else(unreadable)?)?;
    rsa::KeyPair::from_der(der).map_err(|_| broken(PRIVATE_KEY, "its numbers do not make an RSA key"))
}

/// Algorithm and key of a `PrivateKeyInfo`, RFC 5208 section 5.
fn private_key_info(der: &[u8]) -> Option<(Oid<'_>, &[u8])> {
    let (_, info) = Any::from_der(der).ok()?;
    let (rest, _version) = Any::from_der(info.data).ok()?;
    let (rest, algorithm) = AlgorithmIdentifier::from_der(rest).ok()?;
    let (_, key) = Any::from_der(rest).ok()?;
    Some((algorithm.algorithm, key.data))
}

/// The modulus of an `RSAPrivateKey`, RFC 8017, appendix A.1.2.
fn modulus(der: &[u8]) -> Option<&[u8]> {
    let (_, key) = Any::from_der(der).ok()?;
    let (rest, _version) = Any::from_der(key.data).ok()?;
    let (_, modulus) = Any::from_der(rest).ok()?;
    Some(modulus.data)
}

fn check_kind(part: &'static str, algorithm: &Oid<'_>) -> Result<(), BadCertificate> {
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        return Ok(());
    }
    let kinds = [
        (OID_KEY_TYPE_EC_PUBLIC_KEY, "an EC key"),
        (OID_SIG_ED25519, "an Ed25519 key"),
        (OID_SIG_ED448, "an Ed448 key"),
        (OID_KEY_TYPE_DSA, "a DSA key"),
        (OID_PKCS1_RSASSAPSS, "an RSA key that is for PSS only"),
    ];
    let known = kinds.iter().find(|(oid, _)| oid == algorithm);
    Err(BadCertificate::NotRsa { part, kind: known.map_or("a key of another kind", |(_, kind)| kind) })
}

fn check_size(part: &'static str, modulus: &[u8]) -> Result<(), BadCertificate> {
    let zeros = modulus.iter().take_while(|octet| **octet == 0).count();
    let modulus = &modulus[zeros..];
    let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
    if (FEWEST_BITS..=MOST_BITS).contains(&bits) { Ok(()) } else { Err(BadCertificate::Size { part, bits }) }
}

/// One line for a log.
fn shown(subject: &str) -> String {
    let line: String =
        subject.chars().map(|char| if char.is_control() { '?' } else { char }).take(LONGEST_SUBJECT).collect();
    if line.is_empty() { "no subject".to_owned() } else { line }
}

/// What a text without PEM is.
enum Bare {
    /// Of control characters, or of what is no UTF-8.
    Binary,
    /// Base64 of PKCS #12.
    Pkcs12,
    /// Base64 of other DER.
    Der,
    Other,
}

impl Bare {
    fn of(text: &str) -> Self {
        let is_binary = |char: char| char == '\u{fffd}' || (char.is_control() && !matches!(char, '\t' | '\r' | '\n'));
        if text.chars().any(is_binary) {
            return Self::Binary;
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let head: String = text.chars().filter(|char| !char.is_whitespace()).take(16).collect();
        match STANDARD.decode(head).as_deref() {
            // PFX of RFC 7292 section 4: a sequence that begins with version 3.
            Ok([0x30, 0x82, _, _, 2, 1, 3, ..] | [0x30, 0x80, 2, 1, 3, ..]) => Self::Pkcs12,
            Ok([0x30, 0x82, ..]) => Self::Der,
            _ => Self::Other,
        }
    }
}

fn instead_of_certificate(text: &str) -> &'static str {
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        "it is empty"
    } else if text.contains("PRIVATE KEY-----") {
        "it holds a private key; are certificate and key swapped?"
    } else if text.contains("CERTIFICATE REQUEST-----") {
        "it holds a request; name the certificate that was made of it"
    } else if text.contains("PUBLIC KEY-----") {
        "it holds a public key alone; name the certificate"
    } else if text.contains("-----BEGIN PKCS7-----") {
        "it is PKCS #7; `openssl pkcs7 -print_certs -in FILE -out FILE.pem` takes the certificates out of it"
    } else {
        match Bare::of(text) {
            Bare::Binary => {
                "it is not text; if it is DER (.cer, .der), `openssl x509 -inform DER -in FILE -out FILE.pem` makes it PEM; \
                 if it is PKCS #12 (.pfx, .p12), `openssl pkcs12 -in FILE -clcerts -nokeys -out FILE.pem` takes the \
                 certificate out of it"
            }
            Bare::Pkcs12 => {
                "it is base64 of PKCS #12, as Azure Key Vault gives it; `base64 -di FILE > FILE.pfx` and `openssl pkcs12 \
                 -in FILE.pfx -clcerts -nokeys -out FILE.pem` take the certificate out of it"
            }
            Bare::Der => {
                "it is base64 without a BEGIN and an END line; `base64 -di FILE > FILE.der` and `openssl x509 -inform DER \
                 -in FILE.der -out FILE.pem` make it PEM"
            }
            Bare::Other => "in PEM it begins with -----BEGIN CERTIFICATE-----",
        }
    }
}

fn instead_of_key(text: &str) -> &'static str {
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        "it is empty"
    } else if text.contains("PUBLIC KEY-----") {
        "it holds a public key; name its private one"
    } else if text.contains(BEGIN_CERTIFICATE) {
        "it holds a certificate; are certificate and key swapped, or was it exported without its key?"
    } else if text.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
        "it holds a key of SSH; name the key that the certificate was made with"
    } else if text.contains("-----BEGIN DSA PRIVATE KEY-----") {
        "it holds a DSA key, and Entra ID takes RSA alone; name the key that the certificate was made with"
    } else {
        match Bare::of(text) {
            Bare::Binary => {
                "it is not text; if it is DER (.key, .der), `openssl pkey -inform DER -in FILE -out FILE.pem` makes it PEM; \
                 if it is PKCS #12 (.pfx, .p12), `openssl pkcs12 -in FILE -nocerts -noenc -out FILE.key` takes the key out \
                 of it"
            }
            Bare::Pkcs12 => {
                "it is base64 of PKCS #12, as Azure Key Vault gives it; `base64 -di FILE > FILE.pfx` and `openssl pkcs12 \
                 -in FILE.pfx -nocerts -noenc -out FILE.key` take the key out of it"
            }
            Bare::Der => {
                "it is base64 without a BEGIN and an END line; `base64 -di FILE > FILE.der` and `openssl pkey -inform DER \
                 -in FILE.der -out FILE.pem` make it PEM"
            }
            Bare::Other => "in PEM it begins with -----BEGIN PRIVATE KEY-----",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::OnceLock;
    use std::time::Duration;

    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, DistinguishedName, DnType, Issuer, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256,
        PublicKeyData, SignatureAlgorithm, date_time_ymd,
    };

    use super::*;

    /// Certificate and key in PEM, made once: making RSA keys is slow.
    pub(crate) struct Pair {
        pub(crate) certificate: String,
        pub(crate) key: String,
    }

    fn make(algorithm: &'static SignatureAlgorithm) -> Pair {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        Pair { certificate: params("relay\n\"one\"").self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2026, 1, 2);
        params.not_after = date_time_ymd(2028, 3, 4);
        params
    }

    pub(crate) fn rsa() -> &'static Pair {
        static PAIR: OnceLock<Pair> = OnceLock::new();
        PAIR.get_or_init(|| make(&PKCS_RSA_SHA256))
    }

    fn other_rsa() -> &'static Pair {
        static PAIR: OnceLock<Pair> = OnceLock::new();
        PAIR.get_or_init(|| make(&PKCS_RSA_SHA256))
    }

    /// The certificate of a key that nobody has.
    fn certificate_of(modulus: &[u8]) -> String {
        struct Public(Vec<u8>);

        impl PublicKeyData for Public {
            fn der_bytes(&self) -> &[u8] {
                &self.0
            }

            fn algorithm(&self) -> &'static SignatureAlgorithm {
                &PKCS_RSA_SHA256
            }
        }

        let sequence = |tag: u8, content: &[u8]| {
            let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x82, high, low], content].concat()
        };
        // A number whose highest bit is set would be a negative one.
        let sign: &[u8] = if modulus[0] & 0x80 == 0 { &[] } else { &[0] };
        let numbers = [sequence(2, &[sign, modulus].concat()), vec![2, 3, 1, 0, 1]].concat();
        let issuer = Issuer::new(params("issuer"), rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        params("short").signed_by(&Public(sequence(0x30, &numbers)), &issuer).unwrap().pem()
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let base64 = STANDARD.encode(der);
        let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn der(pem: &str) -> Vec<u8> {
        let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        STANDARD.decode(lines).unwrap()
    }

    /// PKCS #1 out of the PKCS #8 of an RSA key of 2048 bits, whose envelope is 26 octets.
    pub(crate) fn pkcs1(pkcs8: &str) -> String {
        pem("RSA PRIVATE KEY", &der(pkcs8)[26..])
    }

    /// The error, after a look that it repeats nothing of either text.
    fn refused(certificate: &str, key: &str) -> String {
        let error = SigningCertificate::from_pem(certificate, key).unwrap_err();
        let said = format!("{error} {error:?}");
        for text in [certificate, key] {
            let body: String =
                text.lines().filter(|line| !line.contains("---")).flat_map(str::chars).filter(char::is_ascii).collect();
            for piece in body.as_bytes().windows(12) {
                assert!(!said.contains(str::from_utf8(piece).unwrap()), "{said}");
            }
        }
        error.to_string()
    }

    #[test]
    fn what_it_says_of_itself() {
        let certificate = SigningCertificate::from_pem(&rsa().certificate, &rsa().key).unwrap();
        assert_eq!(certificate.subject(), "CN=relay?\"one\"");
        assert_eq!(certificate.not_before().rfc3339(), "2026-01-02T00:00:00.000Z");
        assert_eq!(certificate.not_after().rfc3339(), "2028-03-04T00:00:00.000Z");
        let octets = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let der = der(&rsa().certificate);
        assert_eq!(octets(&certificate.x5t()), digest(&SHA1_FOR_LEGACY_USE_ONLY, &der).as_ref());
        assert_eq!(octets(&certificate.x5t_s256()), digest(&SHA256, &der).as_ref());
        assert_eq!(certificate.thumbprint().len(), 40);
        for (octet, pair) in octets(&certificate.x5t()).iter().zip(certificate.thumbprint().as_bytes().chunks(2)) {
            assert_eq!(format!("{octet:02X}").as_bytes(), pair);
        }
        let shown = format!("{certificate:?}");
        assert_eq!(shown, format!("SigningCertificate(CN=relay?\"one\", {}, key redacted)", certificate.thumbprint()));
        assert_eq!(super::shown(""), "no subject");
        assert_eq!(super::shown(&"ä".repeat(300)).chars().count(), LONGEST_SUBJECT);
    }

    #[test]
    fn many_shapes_are_one_certificate() {
        let Pair { certificate, key } = rsa();
        let first = SigningCertificate::from_pem(certificate, key).unwrap();
        let text = "Bag Attributes\n    friendlyName: relay\nKey Attributes: <No Attributes>\n";
        let combined = format!("{text}{key}{text}{certificate}");
        let chain = format!("{certificate}{}", other_rsa().certificate);
        let old_key = pkcs1(key);
        for (shape, certificate, key) in [
            ("PKCS #1", certificate.clone(), old_key.clone()),
            ("combined, PKCS #1", format!("{certificate}{old_key}"), format!("{certificate}{old_key}")),
            ("combined", combined.clone(), combined),
            ("chain", chain, key.clone()),
            ("CRLF", certificate.replace('\n', "\r\n"), key.replace('\n', "\r\n")),
            ("byte order mark", format!("\u{feff}{certificate}"), format!("\u{feff}{key}")),
            ("no final line end", certificate.trim_end().to_owned(), key.trim_end().to_owned()),
        ] {
            let other = SigningCertificate::from_pem(&certificate, &key);
            assert!(other.unwrap_or_else(|error| panic!("{shape}: {error}")).same(&first), "{shape}");
        }
        let Pair { certificate, key } = other_rsa();
        assert!(!SigningCertificate::from_pem(certificate, key).unwrap().same(&first));
    }

    #[test]
    fn every_mistake_has_its_remedy() {
        let (right, other) = (rsa(), other_rsa());
        let (ec, edwards) = (make(&PKCS_ECDSA_P256_SHA256), make(&PKCS_ED25519));
        let der_text = STANDARD.encode(der(&right.certificate));
        let pkcs12 = STANDARD.encode([&[0x30, 0x82, 9, 9, 2, 1, 3][..], &[0; 300]].concat());
        let binary = String::from_utf8_lossy(&der(&right.key)).into_owned();
        let public = pem("PUBLIC KEY", &[1; 60]);
        let one_line = |pem: &str, end: &str| pem.replace('\n', end);
        let encrypted = right.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let old_encrypted =
            pkcs1(&right.key).replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n", 1);
        let sec1 = pem("EC PRIVATE KEY", &[1; 100]);
        let half = |text: &str| text[..text.len() / 2].to_owned();
        let (c, k) = (right.certificate.as_str(), right.key.as_str());
        for (certificate, key, said) in [
            ("", k, "no certificate in it: it is empty"),
            ("hello", k, "begins with -----BEGIN CERTIFICATE-----"),
            (k, c, "no certificate in it: it holds a private key; are certificate and key swapped?"),
            (&pem("CERTIFICATE REQUEST", &[1; 60]), k, "holds a request"),
            (&pem("PKCS7", &[1; 60]), k, "openssl pkcs7 -print_certs"),
            (&public, k, "name the certificate"),
            (&der_text, k, "openssl x509 -inform DER"),
            (&pkcs12, k, "-clcerts -nokeys"),
            (&binary, k, "it is not text; if it is DER (.cer"),
            (&half(c), k, "the certificate is broken: the END line"),
            (&pem("CERTIFICATE", &[1; 60]), k, "the certificate is broken: it is no X.509"),
            (&pem("CERTIFICATE", &[&der(c)[..], &[0]].concat()), k, "the certificate is broken: it is no X.509"),
            (&one_line(c, " "), k, "the certificate is broken: its BEGIN line"),
            (c, &one_line(k, "\\n"), "the private key is broken: its BEGIN line"),
            (c, "\u{feff}\r\n", "no private key in it: it is empty"),
            (c, c, "no private key in it: it holds a certificate"),
            (c, &public, "no private key in it: it holds a public key"),
            (c, "hello", "begins with -----BEGIN PRIVATE KEY-----"),
            (c, &pem("OPENSSH PRIVATE KEY", &[1; 60]), "a key of SSH"),
            (c, &pem("DSA PRIVATE KEY", &[1; 60]), "a DSA key"),
            (c, &STANDARD.encode(der(k)), "openssl pkey -inform DER"),
            (c, &pkcs12, "-nocerts -noenc"),
            (c, &binary, "it is not text; if it is DER (.key"),
            (c, &half(k), "the private key is broken: the END line"),
            (c, &pem("PRIVATE KEY", &[1; 60]), "the private key is broken: its DER"),
            (c, &pem("RSA PRIVATE KEY", &[1; 60]), "the private key is broken: its DER"),
            (c, &encrypted, "`openssl pkey -in FILE -out FILE.plain` decrypts it"),
            (c, &old_encrypted, "`openssl pkey -in FILE -out FILE.plain` decrypts it"),
            (&format!("{c}{old_encrypted}"), &format!("{old_encrypted}{c}"), "the private key is encrypted"),
            (&ec.certificate, &ec.key, "the certificate is of an EC key, but Entra ID takes"),
            (&edwards.certificate, &edwards.key, "the certificate is of an Ed25519 key"),
            (c, &ec.key, "the private key is of an EC key"),
            (c, &sec1, "the private key is of an EC key"),
            (c, &edwards.key, "the private key is of an Ed25519 key"),
            (&certificate_of(&[0xc1; 128]), k, "the certificate has 1024 bits, and 2048 to 8192 are wanted"),
            (&certificate_of(&[vec![0x7f], vec![0xff; 255]].concat()), k, "has 2047 bits"),
            (&certificate_of(&[vec![1], vec![0xff; 1024]].concat()), k, "has 8193 bits"),
            (c, &other.key, "does not belong to the certificate"),
            (&format!("{}{c}", other.certificate), k, "the private key belongs to number 2"),
        ] {
            let error = refused(certificate, key);
            assert!(error.contains(said), "{said:?} is not in {error:?}");
        }
    }

    #[test]
    fn numbers_that_make_no_key_are_refused() {
        let mut octets = der(&pkcs1(&rsa().key));
        // The coefficient at the end is not what the primes give.
        *octets.last_mut().unwrap() ^= 1;
        let error = refused(&rsa().certificate, &pem("RSA PRIVATE KEY", &octets));
        assert!(error.contains("do not make an RSA key"), "{error}");
    }

    #[test]
    fn remade_with_the_same_key_it_is_another() {
        let key = rcgen::KeyPair::from_pem(&rsa().key).unwrap();
        let remade = params("remade").self_signed(&key).unwrap().pem();
        let remade = SigningCertificate::from_pem(&remade, &rsa().key).unwrap();
        let first = SigningCertificate::from_pem(&rsa().certificate, &rsa().key).unwrap();
        assert!(!remade.same(&first) && remade.same(&remade));
        assert_eq!(remade.not_after().saturating_since(first.not_after()), Duration::ZERO);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_damage_makes_it_panic_or_talk(
            at in any::<prop::sample::Index>(),
            with in "[ -~\n\r\u{0}é]{0,3}",
            old in any::<bool>(),
        ) {
            let Pair { certificate, key } = rsa();
            let key = if old { pkcs1(key) } else { key.clone() };
            let damaged = |text: &str| {
                let at = at.index(text.len());
                format!("{}{with}{}", &text[..at], &text[at + 1..])
            };
            for (certificate, key) in [(damaged(certificate), key.clone()), (certificate.clone(), damaged(&key))] {
                if SigningCertificate::from_pem(&certificate, &key).is_err() {
                    refused(&certificate, &key);
                }
            }
        }
    }
}
