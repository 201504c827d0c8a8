//! Certificates and their keys, in every shape that administrators bring. Keys are costly, so all tests have the same few.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm,
};

use crate::harness::{World, write_secret};

/// How a private key is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyForm {
    Pkcs8,
    Pkcs1,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) der: Vec<u8>,
    /// In PKCS #8.
    pub(crate) key: String,
}

pub(crate) static FIRST: LazyLock<Pair> = LazyLock::new(|| Pair::new(&PKCS_RSA_SHA256));
pub(crate) static SECOND: LazyLock<Pair> = LazyLock::new(|| Pair::new(&PKCS_RSA_SHA256));
pub(crate) static ELLIPTIC: LazyLock<Pair> = LazyLock::new(|| Pair::new(&PKCS_ECDSA_P256_SHA256));

impl Pair {
    fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params().self_signed(&key).unwrap();
        Self { certificate: certificate.pem(), der: certificate.der().to_vec(), key: key.serialize_pem() }
    }

    /// Writes both files.
    pub(crate) fn write(&self, world: &World, form: KeyForm) {
        write_secret(&world.path("cert.pem"), &self.certificate);
        let key = match form {
            KeyForm::Pkcs8 => self.key.clone(),
            KeyForm::Pkcs1 => self.pkcs1(),
        };
        write_secret(&world.path("key.pem"), &key);
    }

    /// The key as OpenSSL wrote it once: PKCS #8 of an RSA key of 2048 bits without its envelope of 26 octets.
    pub(crate) fn pkcs1(&self) -> String {
        pem("RSA PRIVATE KEY", &der(&self.key)[26..])
    }
}

fn params() -> CertificateParams {
    CertificateParams::new(vec!["relay.example".to_owned()]).unwrap()
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub(crate) fn der(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(lines).unwrap()
}

/// The certificate of an RSA key of 1024 bits, which nothing here would make.
pub(crate) fn short() -> String {
    struct Public(Vec<u8>);

    impl PublicKeyData for Public {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static SignatureAlgorithm {
            &PKCS_RSA_SHA256
        }
    }

    // RSAPublicKey of RFC 8017, appendix A.1.1: a modulus of 128 octets behind its sign, and 65537.
    let modulus = [&[2, 0x81, 129, 0][..], &[0xc1; 128]].concat();
    let public = [&[0x30, 0x81, 137][..], &modulus, &[2, 3, 1, 0, 1]].concat();
    let issuer = Issuer::new(params(), KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
    params().signed_by(&Public(public), &issuer).unwrap().pem()
}
