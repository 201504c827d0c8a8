//! The sandbox's own certificate authority and its one server certificate, made at each start and never written down.
//! Both listeners use the same certificate, for `localhost` and 127.0.0.1. It is not a general CA.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::SandboxError;

/// The host name that the certificate is made for. Exchange answers to a name only, never to an address (facts 1.1).
pub(crate) const HOST: &str = "localhost";

/// The CA's certificate and the TLS configurations of the two listeners.
pub(crate) struct Authority {
    pub(crate) ca_pem: String,
    pub(crate) smtp: Arc<ServerConfig>,
    pub(crate) https: Arc<ServerConfig>,
}

impl Authority {
    pub(crate) fn make() -> Result<Self, SandboxError> {
        let ca = CertifiedIssuer::self_signed(ca_params()?, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = server_params()?.signed_by(&key, &ca)?;

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // TLS 1.2 is the oldest version that smtp.office365.com takes (facts 1.1), and the oldest that rustls knows.
        let smtp = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        let mut https = smtp.clone();
        https.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { ca_pem: ca.pem(), smtp: Arc::new(smtp), https: Arc::new(https) })
    }
}

fn ca_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = name("xoauth2-relay sandbox CA, trusted by nobody else");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn server_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec![HOST.to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name = name(HOST);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}
