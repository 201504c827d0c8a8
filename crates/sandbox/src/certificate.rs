//! What of a registered certificate counts: its thumbprints, its public key and its time (facts 4.3). It is trusted
//! because it is registered; no chain is looked at.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The two algorithms of a client assertion, each with the thumbprint that names its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// RSASSA-PSS with SHA-256; `x5t#S256`.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256; `x5t`.
    Rs256,
}

/// A certificate that was parsed.
pub(crate) struct Certificate<'a>(X509Certificate<'a>, &'a [u8]);

impl<'a> Certificate<'a> {
    /// `None` if the octets are no certificate.
    pub(crate) fn parse(der: &'a [u8]) -> Option<Self> {
        X509Certificate::from_der(der).ok().map(|(_, certificate)| Self(certificate, der))
    }

    /// The thumbprint by which an assertion with this algorithm names it: base64url of SHA-256 or SHA-1 of the DER.
    pub(crate) fn thumbprint(&self, algorithm: Algorithm) -> String {
        let hash = match algorithm {
            Algorithm::Ps256 => &digest::SHA256,
            Algorithm::Rs256 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        };
        URL_SAFE_NO_PAD.encode(digest::digest(hash, self.1))
    }

    /// True within its time; `now` in seconds since the Unix epoch.
    pub(crate) fn is_valid_at(&self, now: i64) -> bool {
        let validity = self.0.validity();
        (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
    }

    /// True if its key, of RSA with 2048 bits at least, made this signature.
    pub(crate) fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let parameters = match algorithm {
            Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        let key = &self.0.public_key().subject_public_key.data;
        UnparsedPublicKey::new(parameters, key.as_ref()).verify(message, signature).is_ok()
    }
}
