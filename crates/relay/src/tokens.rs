//! Joins the token manager to the forwarder: one gives tokens, the other asks for them, and neither knows the other.

use std::path::Path;
use std::sync::Arc;

use clock::{Clock, WallTime};
use forwarder::{BearerToken, TokenSource, TokenTrouble};
use token_manager::{AccessToken, Application, Credential, Grant, Ledger, TokenManager, TokenStatus, TokenUnavailable};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::{FilePath, Tenant};
use crate::secret::ReferencedSecret;
use crate::tls::{CaFileError, Trust};

/// The tokens of one tenant.
pub(crate) struct TenantTokens {
    manager: TokenManager,
}

/// A token as the forwarder wants it.
#[derive(Clone)]
pub(crate) struct Token(AccessToken);

impl BearerToken for Token {
    fn expose(&self) -> &str {
        self.0.expose()
    }

    fn expires_at(&self) -> WallTime {
        self.0.expires_at()
    }
}

impl TenantTokens {
    /// Starts the manager of the tenant called `name`; its first token is asked for at once.
    pub(crate) fn start(
        name: &str,
        tenant: &Tenant,
        state_directory: &Path,
        trust: &Trust,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, CaFileError> {
        let tls = trust.client(tenant.authority_ca_file.as_ref().map(FilePath::as_path))?;
        let proxy = tenant.https_proxy.as_ref();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.as_ref().clone())
            // A redirect could carry the secret elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            // What the configuration says, whatever the environment does.
            .no_proxy()
            .user_agent(concat!("xoauth2-relay/", env!("CARGO_PKG_VERSION")));
        let http = proxy
            .into_iter()
            .fold(http, |http, proxy| http.proxy(proxy.for_https()))
            .build()
            .expect("a client with these fixed options can always be built");
        let secret = tenant.client_secret.clone();
        let secret = secret.expect("a configuration has exactly one credential, and only this kind is built");
        let application = Application {
            name: name.to_owned(),
            tenant_id: tenant.tenant_id.as_str().to_owned(),
            client_id: tenant.client_id.as_str().to_owned(),
            token_endpoint: token_endpoint(&tenant.authority.0, tenant.tenant_id.as_str()),
            proxy: proxy.map(ToString::to_string),
            scope: tenant.scope.as_str().to_owned(),
            grant: Grant::ClientCredentials,
            credential: Credential::ClientSecret(Arc::new(ReferencedSecret::new(secret))),
        };
        // Entra counts by application, whatever the configuration calls it.
        let file = format!("token-requests-{}-{}", tenant.tenant_id.as_str(), tenant.client_id.as_str());
        let ledger = Ledger::open(state_directory.join(file), clock.as_ref());
        Ok(Self { manager: TokenManager::start(application, http, clock, ledger, stop) })
    }
}

impl TenantTokens {
    /// What an operator may see, now.
    pub(crate) fn status(&self) -> TokenStatus {
        self.manager.status()
    }
}

/// `{authority}/{tenant_id}/oauth2/v2.0/token`
fn token_endpoint(authority: &Url, tenant_id: &str) -> Url {
    let mut endpoint = authority.clone();
    if let Ok(mut path) = endpoint.path_segments_mut() {
        path.pop_if_empty().extend([tenant_id, "oauth2", "v2.0", "token"]);
    }
    endpoint
}

impl TokenSource for TenantTokens {
    type Token = Token;

    async fn token(&self) -> Result<Token, TokenTrouble> {
        self.manager.token().await.map(Token).map_err(|error| trouble(&error))
    }

    async fn replace(&self, rejected: &Token) -> Result<Token, TokenTrouble> {
        self.manager.replace(&rejected.0).await.map(Token).map_err(|error| trouble(&error))
    }
}

fn trouble(error: &TokenUnavailable) -> TokenTrouble {
    TokenTrouble(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_endpoints() {
        for (authority, endpoint) in [
            ("https://login.microsoftonline.com", "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token"),
            ("https://localhost:1234/", "https://localhost:1234/contoso.com/oauth2/v2.0/token"),
            ("https://proxy/entra", "https://proxy/entra/contoso.com/oauth2/v2.0/token"),
        ] {
            assert_eq!(token_endpoint(&Url::parse(authority).unwrap(), "contoso.com").as_str(), endpoint);
        }
    }
}
