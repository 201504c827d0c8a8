//! Who asks for tokens: one application registration in one tenant, with its grant and its credential.
//!
//! Plain data; the relay fills it from its configuration and has checked it. New credentials (certificate, federated
//! token) and grants (device code, refresh token) become variants here and arms in `request`.

use std::fmt;
use std::sync::Arc;

use crate::secret::SecretSource;

/// An Entra ID application as one tenant of the configuration describes it.
#[derive(Clone, Debug)]
pub struct Application {
    /// The tenant's name in the configuration; every log line and error carries it.
    pub name: String,
    /// Directory (tenant) id, a GUID or a verified domain.
    pub tenant_id: String,
    /// Application (client) id, a GUID.
    pub client_id: String,
    /// `{authority}/{tenant_id}/oauth2/v2.0/token`. The relay admits `https` alone.
    pub token_endpoint: url::Url,
    /// The proxy that the HTTP client reaches it through, as errors name it: without user and password.
    pub proxy: Option<String>,
    /// What is asked for; app-only SMTP wants exactly `https://outlook.office365.com/.default` in the worldwide cloud.
    pub scope: String,
    /// By what right the token is asked for.
    pub grant: Grant,
    /// How the application proves who it is.
    pub credential: Credential,
}

/// By what right a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The application's own right, RFC 6749 section 4.4; there is no refresh token, each refresh is a new request.
    ClientCredentials,
}

/// How the application proves who it is.
#[derive(Clone)]
pub enum Credential {
    /// A client secret, sent as `client_secret` in the form body (RFC 6749 section 2.3.1), never as Basic.
    ClientSecret(Arc<dyn SecretSource>),
}

impl Credential {
    /// Where the credential stands, in words for an administrator.
    pub fn description(&self) -> String {
        match self {
            Self::ClientSecret(source) => format!("client secret from {}", source.description()),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.description())
    }
}
