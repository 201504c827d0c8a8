//! How an application proves who it is: what is read, from where, and what of it goes into a request.
//!
//! Which of two credentials is used while one is rotated is `rotation`'s matter.

use std::fmt;
use std::sync::Arc;

use clock::WallTime;
use tokio::task::spawn_blocking;
use url::Url;

use crate::assertion::{assertion, new_jti};
use crate::certificate::{Algorithm, SigningCertificate};
use crate::failure::TokenFailure;
use crate::form::Form;
use crate::managed_identity::ManagedIdentity;
use crate::request::{REQUEST_TIMEOUT, unusable_credential};
use crate::rotation::Material;
use crate::secret::{Secret, SecretSource};

/// RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How the application proves who it is.
#[derive(Clone)]
pub enum Credential {
    /// It does not: a public client, which a user signs in to.
    Public,
    /// A client secret, sent as `client_secret` in the form body (RFC 6749 section 2.3.1), never as Basic.
    ClientSecret(Arc<dyn SecretSource>),
    /// A certificate that signs assertions (RFC 7523 section 2.2).
    Certificate {
        /// The certificate in PEM.
        certificate: Arc<dyn SecretSource>,
        /// Its private key in PEM.
        key: Arc<dyn SecretSource>,
        /// How assertions are signed.
        algorithm: Algorithm,
    },
    /// A token of another issuer that the application trusts, read anew at each use; sent as assertion.
    FederatedToken(Arc<dyn SecretSource>),
    /// A managed identity of Azure that vouches for the application: its token is sent as assertion.
    ManagedIdentity {
        /// Which one, and where it is asked.
        identity: ManagedIdentity,
        /// What asks it: no proxy, no redirects.
        http: reqwest::Client,
    },
}

/// What was read.
pub(crate) enum Standing {
    /// There is nothing to read.
    Nothing,
    /// A client secret.
    Secret(Secret),
    /// A certificate with its key.
    Certificate(Box<SigningCertificate>),
    /// A token of another issuer.
    Token(Secret),
}

impl Material for Standing {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, Self::Nothing) => true,
            (Self::Secret(one), Self::Secret(other)) | (Self::Token(one), Self::Token(other)) => {
                one.expose() == other.expose()
            }
            (Self::Certificate(one), Self::Certificate(other)) => one.same(other),
            _ => false,
        }
    }
}

impl Standing {
    /// When it ends, where it says so itself.
    pub(crate) fn ends(&self) -> Option<WallTime> {
        match self {
            Self::Certificate(certificate) => Some(certificate.not_after()),
            _ => None,
        }
    }
}

/// What of a credential goes into one request.
pub(crate) enum Proof<'s> {
    Nothing,
    Secret(&'s Secret),
    Assertion(&'s Secret),
    Made(Secret),
}

impl Proof<'_> {
    /// `form` with the proof in it.
    pub(crate) fn add_to(&self, form: Form) -> Form {
        match self {
            Self::Nothing => form,
            Self::Secret(secret) => form.with_secret("client_secret", secret),
            Self::Assertion(assertion) => with_assertion(form, assertion),
            Self::Made(assertion) => with_assertion(form, assertion),
        }
    }
}

fn with_assertion(form: Form, assertion: &Secret) -> Form {
    form.with("client_assertion_type", ASSERTION_TYPE).with_secret("client_assertion", assertion)
}

impl Credential {
    /// Where the credential stands, in words for an administrator.
    pub fn description(&self) -> String {
        match self {
            Self::Public => "no credential (public client)".to_owned(),
            Self::ClientSecret(source) => format!("client secret from {}", source.description()),
            Self::Certificate { certificate, key, .. } => {
                format!("certificate from {} with the key from {}", certificate.description(), key.description())
            }
            Self::FederatedToken(source) => format!("federated token from {}", source.description()),
            Self::ManagedIdentity { identity, .. } => match &identity.client_id {
                Some(client_id) => format!("managed identity {client_id}"),
                None => "the machine's managed identity".to_owned(),
            },
        }
    }

    /// The same in a word or two, for a sentence.
    pub(crate) fn noun(&self) -> &'static str {
        match self {
            Self::Public => "application",
            Self::ClientSecret(_) => "client secret",
            Self::Certificate { .. } => "certificate",
            Self::FederatedToken(_) => "federated token",
            Self::ManagedIdentity { .. } => "managed identity",
        }
    }

    /// Whether it stays the same until an administrator rotates it. A token of another issuer is another one every hour.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::ClientSecret(_) | Self::Certificate { .. })
    }

    /// What stands there now, read on a blocking thread: a file may stand on a slow or dead mount.
    pub(crate) async fn read(&self) -> Result<Standing, TokenFailure> {
        let credential = self.clone();
        let unusable = |text: String| unusable_credential(&self.description(), &text);
        match tokio::time::timeout(REQUEST_TIMEOUT, spawn_blocking(move || credential.read_now())).await {
            Ok(Ok(read)) => read.map_err(unusable),
            Ok(Err(_)) => Err(unusable("reading it failed unexpectedly".to_owned())),
            Err(_) => Err(unusable("reading it takes too long".to_owned())),
        }
    }

    fn read_now(&self) -> Result<Standing, String> {
        let told = |error: crate::SecretError| error.to_string();
        Ok(match self {
            Self::Public | Self::ManagedIdentity { .. } => Standing::Nothing,
            Self::ClientSecret(source) => Standing::Secret(source.read().map_err(told)?),
            Self::FederatedToken(source) => Standing::Token(source.read().map_err(told)?),
            Self::Certificate { certificate, key, .. } => {
                let place = |source: &Arc<dyn SecretSource>| {
                    source.text().map_err(|error| format!("{}: {error}", source.description()))
                };
                let (certificate, key) = (place(certificate)?, place(key)?);
                let pair = SigningCertificate::from_pem(&certificate, &key).map_err(|error| error.to_string())?;
                Standing::Certificate(Box::new(pair))
            }
        })
    }

    /// What of `standing` goes into one request to `audience`, at `now`.
    pub(crate) async fn prove<'s>(
        &self,
        standing: &'s Standing,
        client_id: &str,
        audience: &Url,
        now: WallTime,
    ) -> Result<Proof<'s>, TokenFailure> {
        Ok(match (self, standing) {
            (Self::ManagedIdentity { identity, http }, _) => Proof::Made(identity.token(http).await?),
            (Self::Certificate { algorithm, .. }, Standing::Certificate(certificate)) => {
                let jti = new_jti();
                Proof::Made(assertion(certificate, *algorithm, client_id, audience.as_str(), now, &jti))
            }
            (_, Standing::Secret(secret)) => Proof::Secret(secret),
            (_, Standing::Token(token)) => Proof::Assertion(token),
            (_, Standing::Nothing | Standing::Certificate(_)) => Proof::Nothing,
        })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.description())
    }
}
