//! What each test stands in: an endpoint, a clock, a secret, a state directory, and managers over them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::{ManualClock, WallTime};
use tempfile::TempDir;
use token_manager::{
    Application, Credential, Endpoints, Grant, Kinship, Ledger, SecretError, SecretSource, SignIn, TokenFailure,
    TokenManager, TokenStatus, TokenUnavailable,
};
use tokio_util::sync::CancellationToken;
use url::Url;
use zeroize::Zeroizing;

use crate::endpoint::{CLIENT_ID, Endpoint, SCOPE};

/// With everything that must be encoded in a form.
pub(crate) const SECRET: &str = "Zx8~q.S3cret+/=&% Value_";

/// A secret in memory that a test may rotate or take away.
pub(crate) struct Source {
    pub(crate) text: Mutex<Option<String>>,
}

impl SecretSource for Source {
    fn text(&self) -> Result<Zeroizing<String>, SecretError> {
        match &*self.text.lock().unwrap() {
            Some(text) => Ok(Zeroizing::new(text.clone())),
            None => Err(std::io::Error::from(std::io::ErrorKind::NotFound).into()),
        }
    }

    fn description(&self) -> String {
        "file /etc/xoauth2-relay/contoso.secret".to_owned()
    }
}

pub(crate) struct World {
    pub(crate) endpoint: Endpoint,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) source: Arc<Source>,
    pub(crate) stop: CancellationToken,
    directory: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self {
            endpoint: Endpoint::start(SECRET).await,
            clock: Arc::new(ManualClock::at(WallTime::from_unix_millis(1_800_000_000_000))),
            source: Arc::new(Source { text: Mutex::new(Some(SECRET.to_owned())) }),
            stop: CancellationToken::new(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Ends every manager and makes room for new ones over the same state directory.
    pub(crate) fn restarted(self) -> Self {
        self.stop.cancel();
        Self { stop: CancellationToken::new(), ..self }
    }

    pub(crate) fn application(&self) -> Application {
        Application {
            name: "contoso".to_owned(),
            tenant_id: "11111111-2222-3333-4444-555555555555".to_owned(),
            client_id: CLIENT_ID.to_owned(),
            endpoints: endpoints(self.endpoint.url.clone()),
            proxy: None,
            scope: SCOPE.to_owned(),
            credential: Credential::ClientSecret(self.source.clone()),
            secret_expires: None,
            grant: Grant::ClientCredentials,
            kinship: Kinship::default(),
        }
    }

    /// The state directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn ledger_path(&self) -> PathBuf {
        self.directory.path().join("contoso.ledger")
    }

    pub(crate) fn start(&self) -> TokenManager {
        self.start_as(self.application())
    }

    pub(crate) fn start_at(&self, token_endpoint: Url) -> TokenManager {
        self.start_as(Application { endpoints: endpoints(token_endpoint), ..self.application() })
    }

    pub(crate) fn start_as(&self, application: Application) -> TokenManager {
        self.start_with(application, http())
    }

    pub(crate) fn start_with(&self, application: Application, http: reqwest::Client) -> TokenManager {
        let ledger = Ledger::open(self.ledger_path(), &*self.clock);
        TokenManager::start(application, http, self.clock.clone(), ledger, self.stop.child_token())
    }

    /// One of several, whose ledger is the file called `ledger`.
    pub(crate) fn start_beside(&self, application: Application, ledger: &str) -> TokenManager {
        let ledger = Ledger::open(self.path(ledger), &*self.clock);
        TokenManager::start(application, http(), self.clock.clone(), ledger, self.stop.child_token())
    }

    /// A sign-in for the mailbox whose ledger is the file called `ledger`.
    pub(crate) fn sign_in(&self, application: Application, ledger: &str) -> SignIn {
        SignIn::new(application, http(), self.clock.clone(), Ledger::open(self.path(ledger), &*self.clock))
    }

    /// Moves time on and has the manager look at it.
    pub(crate) fn pass(&self, manager: &TokenManager, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        manager.wake();
    }
}

/// Only the token endpoint is asked here.
pub(crate) fn endpoints(token: Url) -> Endpoints {
    Endpoints { device_authorization: token.clone(), authorization: token.clone(), token }
}

/// A client as the relay builds it: own TLS configuration, no redirects, no proxy of the environment.
fn http() -> reqwest::Client {
    http_builder().build().unwrap()
}

/// The same through a proxy.
pub(crate) fn http_through(proxy: reqwest::Proxy) -> reqwest::Client {
    http_builder().proxy(proxy).build().unwrap()
}

fn http_builder() -> reqwest::ClientBuilder {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    builder.redirect(reqwest::redirect::Policy::none()).no_proxy()
}

/// Waits until the status is as wished, by notification.
pub(crate) async fn until(manager: &TokenManager, wished: impl FnMut(&TokenStatus) -> bool) -> TokenStatus {
    manager.watch_status().wait_for(wished).await.unwrap().clone()
}

/// The failure of a `token()` that must fail, with its next try.
pub(crate) async fn failure(manager: &TokenManager) -> (Arc<TokenFailure>, WallTime) {
    match manager.token().await {
        Err(TokenUnavailable::Failed { failure, next }) => (failure, next),
        other => panic!("{other:?}"),
    }
}
