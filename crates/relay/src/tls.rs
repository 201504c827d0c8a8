//! TLS configurations, which are built nowhere else, with one provider. Towards Entra and Exchange: one trust store
//! shared by both, certificates always verified. Towards clients: one configuration for whatever certificate a
//! listener has in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ResolvesServerCert;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tracing::warn;

/// Why a trust store could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the CA file {}: {text}", .path.display())]
pub(crate) struct CaFileError {
    path: PathBuf,
    text: String,
}

/// Makes client configurations.
pub(crate) struct Trust {
    system: Arc<RootCertStore>,
}

impl Trust {
    /// Reads the machine's trust store, or takes Mozilla's roots where the machine has none, as in a bare image.
    pub(crate) fn of_this_machine() -> Self {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            if !found.errors.is_empty() {
                warn!(errors = ?found.errors, "the machine's trust store cannot be read; using the built-in one");
            }
        }
        Self { system: Arc::new(roots) }
    }

    /// A configuration that trusts the CAs in `ca_file` and nothing else, or the machine's when none is given.
    pub(crate) fn client(&self, ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, CaFileError> {
        let roots = match ca_file {
            None => Arc::clone(&self.system),
            Some(path) => Arc::new(read_ca_file(path)?),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = versions.expect("aws-lc-rs supports TLS 1.2 and 1.3");
        Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }
}

/// A configuration that serves what `certificates` gives at each handshake, by TLS 1.2 and 1.3, to clients that need no
/// certificate.
pub(crate) fn server(certificates: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.expect("aws-lc-rs supports TLS 1.2 and 1.3");
    Arc::new(builder.with_no_client_auth().with_cert_resolver(certificates))
}

/// The certificates in a PEM file; at least one.
pub(crate) fn read_ca_file(path: &Path) -> Result<RootCertStore, CaFileError> {
    let failed = |text: String| CaFileError { path: path.to_owned(), text };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("it holds no PEM certificate".to_owned())) } else { Ok(roots) }
}
