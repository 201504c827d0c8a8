//! Who asks for tokens: one application registration in one tenant, with its credential, its grant and its endpoints.
//!
//! Plain data; the relay fills it from its configuration and has checked it.

use std::sync::Arc;

use clock::WallTime;
use url::Url;

use crate::credential::Credential;
use crate::kinship::Kinship;
use crate::vault::{Vault, VaultName};

/// An Entra ID application as one tenant of the configuration describes it.
#[derive(Clone, Debug)]
pub struct Application {
    /// The tenant's name in the configuration; every log line and error carries it.
    pub name: String,
    /// Directory (tenant) id, a GUID or a verified domain.
    pub tenant_id: String,
    /// Application (client) id, a GUID.
    pub client_id: String,
    /// Where it is asked. The relay admits `https`, and plain `http` to loopback alone.
    pub endpoints: Endpoints,
    /// The proxy that the HTTP client reaches them through, as errors name it: without user and password.
    pub proxy: Option<String>,
    /// What is asked for, as the endpoint wants it: scopes with blanks between them.
    pub scope: String,
    /// How the application proves who it is.
    pub credential: Credential,
    /// When an administrator says that the client secret ends. A certificate's own date is read.
    pub secret_expires: Option<WallTime>,
    /// By what right tokens are asked for.
    pub grant: Grant,
    /// What it has in common with the others of the same application, for other mailboxes.
    pub kinship: Kinship,
}

/// The endpoints of one tenant (facts 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Where tokens come from.
    pub token: Url,
    /// Where device codes come from (RFC 8628 section 3.1).
    pub device_authorization: Url,
    /// Where a browser is sent to (RFC 6749 section 3.1).
    pub authorization: Url,
}

impl Endpoints {
    /// `{authority}/{tenant_id}/oauth2/v2.0/token`, `devicecode` and `authorize`.
    pub fn of(authority: &Url, tenant_id: &str) -> Self {
        let endpoint = |name| {
            let mut endpoint = authority.clone();
            if let Ok(mut path) = endpoint.path_segments_mut() {
                path.pop_if_empty().extend([tenant_id, "oauth2", "v2.0", name]);
            }
            endpoint
        };
        Self {
            token: endpoint("token"),
            device_authorization: endpoint("devicecode"),
            authorization: endpoint("authorize"),
        }
    }
}

/// By what right tokens are asked for.
#[derive(Clone, Debug)]
pub enum Grant {
    /// The application's own right, RFC 6749 section 4.4; there is no refresh token, each refresh is a new request.
    ClientCredentials,
    /// A user's, by a refresh token (RFC 6749 section 6) that a sign-in left in the vault.
    Delegated {
        /// Where refresh tokens rest.
        vault: Arc<Vault>,
        /// Whose it is.
        name: VaultName,
        /// The mailbox's name in the configuration; log lines and advice carry it.
        mailbox: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_authorities() {
        for (authority, token) in [
            ("https://login.microsoftonline.com", "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token"),
            ("https://localhost:1234/", "https://localhost:1234/contoso.com/oauth2/v2.0/token"),
            ("https://proxy/entra", "https://proxy/entra/contoso.com/oauth2/v2.0/token"),
        ] {
            let endpoints = Endpoints::of(&Url::parse(authority).unwrap(), "contoso.com");
            assert_eq!(endpoints.token.as_str(), token);
            assert_eq!(endpoints.device_authorization.as_str(), token.replace("v2.0/token", "v2.0/devicecode"));
            assert_eq!(endpoints.authorization.as_str(), token.replace("v2.0/token", "v2.0/authorize"));
        }
    }
}
