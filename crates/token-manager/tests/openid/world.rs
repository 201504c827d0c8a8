//! What each test stands in: a provider, applications that it knows, a certificate, and a state directory.

use std::sync::{Arc, OnceLock};

use clock::SystemClock;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use serde_json::json;
use tempfile::TempDir;
use token_manager::{
    Algorithm, Application, Credential, Endpoints, Grant, Kinship, Ledger, SecretError, SecretSource, SignIn,
    SignInError, SignedIn, TokenFailure, TokenManager, Vault, VaultName,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use zeroize::Zeroizing;

use crate::browser::Browser;
use crate::provider::Provider;

/// Its place in the paths.
pub(crate) const TENANT: &str = "11111111-2222-3333-4444-555555555555";
/// An application for each way to prove itself. In the provider they are texts as any other.
pub(crate) const SECRET_CLIENT: &str = "has-a-secret";
pub(crate) const PS256_CLIENT: &str = "signs-by-ps256";
pub(crate) const RS256_CLIENT: &str = "signs-by-rs256";
pub(crate) const PUBLIC_CLIENT: &str = "is-public";

/// With everything that must be encoded in a form.
pub(crate) const SECRET: &str = "Zx8~q.S3cret+/=&% Value_";
/// What an application asks for.
pub(crate) const APPLICATION_SCOPE: &str = "https://outlook.office365.com/.default";
/// What is asked for when a user signs in.
pub(crate) const USER_SCOPE: &str = "https://outlook.office.com/SMTP.Send offline_access openid profile";
/// Who signs in.
pub(crate) const USER: &str = "scanner@contoso.com";

/// A certificate with its key, in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    key: String,
}

/// The pair that the provider knows.
pub(crate) fn known() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(make)
}

/// One that it does not know.
pub(crate) fn unknown() -> &'static Pair {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    PAIR.get_or_init(make)
}

fn make() -> Pair {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    Pair { certificate: certificate.pem(), key: key.serialize_pem() }
}

/// A text in memory.
struct Source(String);

impl SecretSource for Source {
    fn text(&self) -> Result<Zeroizing<String>, SecretError> {
        Ok(Zeroizing::new(self.0.clone()))
    }

    fn description(&self) -> String {
        "memory".to_owned()
    }
}

pub(crate) fn secret(text: &str) -> Credential {
    Credential::ClientSecret(Arc::new(Source(text.to_owned())))
}

pub(crate) fn certificate(pair: &Pair, algorithm: Algorithm) -> Credential {
    let source = |text: &String| Arc::new(Source(text.clone()));
    Credential::Certificate { certificate: source(&pair.certificate), key: source(&pair.key), algorithm }
}

pub(crate) struct World {
    pub(crate) provider: Provider,
    clock: Arc<SystemClock>,
    pub(crate) http: reqwest::Client,
    directory: TempDir,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl World {
    /// None when the provider is not installed.
    pub(crate) async fn new() -> Option<Self> {
        let setup = json!({
            "tenant": TENANT,
            "clients": {
                "secret": SECRET_CLIENT, "ps256": PS256_CLIENT, "rs256": RS256_CLIENT, "public": PUBLIC_CLIENT,
            },
            "secret": SECRET,
            "certificate": known().certificate,
            "scopes": {"application": APPLICATION_SCOPE, "user": USER_SCOPE},
        });
        let provider = Provider::start(setup).await?;
        let stop = CancellationToken::new();
        Some(Self {
            provider,
            clock: Arc::new(SystemClock::new()),
            http: http(),
            directory: tempfile::tempdir().unwrap(),
            _guard: stop.clone().drop_guard(),
            stop,
        })
    }

    /// An application that asks by its own right.
    pub(crate) fn application(&self, client_id: &str, credential: Credential) -> Application {
        Application {
            name: "contoso".to_owned(),
            tenant_id: TENANT.to_owned(),
            client_id: client_id.to_owned(),
            endpoints: Endpoints::of(&self.provider.authority, TENANT),
            proxy: None,
            scope: APPLICATION_SCOPE.to_owned(),
            credential,
            secret_expires: None,
            grant: Grant::ClientCredentials,
            kinship: Kinship::default(),
        }
    }

    /// An application that a user is to sign in to.
    pub(crate) fn delegated(&self, client_id: &str, credential: Credential) -> Application {
        Application { scope: USER_SCOPE.to_owned(), ..self.application(client_id, credential) }
    }

    /// What keeps the token of [`USER`] at the public client, by the refresh token in `vault`.
    pub(crate) fn holder(&self, vault: Vault) -> Application {
        let grant = Grant::Delegated { vault: Arc::new(vault), name: vault_name(), mailbox: USER.to_owned() };
        Application { grant, ..self.delegated(PUBLIC_CLIENT, Credential::Public) }
    }

    /// The vault in the state directory, which encrypts.
    pub(crate) fn vault(&self) -> Vault {
        let key = Source("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=".to_owned());
        Vault::open(self.directory.path().join("refresh-tokens"), Some(Arc::new(key))).unwrap()
    }

    pub(crate) fn start(&self, application: Application) -> TokenManager {
        self.start_until(application, self.stop.child_token())
    }

    pub(crate) fn start_until(&self, application: Application, stop: CancellationToken) -> TokenManager {
        let ledger = self.ledger(&application);
        TokenManager::start(application, self.http.clone(), self.clock.clone(), ledger, stop)
    }

    /// A sign-in to `application`.
    pub(crate) fn sign_in(&self, application: Application) -> SignIn {
        let ledger = self.ledger(&application);
        SignIn::new(application, self.http.clone(), self.clock.clone(), ledger)
    }

    /// A sign-in to the public client.
    pub(crate) fn public_sign_in(&self) -> SignIn {
        self.sign_in(self.delegated(PUBLIC_CLIENT, Credential::Public))
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.http.clone())
    }

    /// The right of a user who has signed in to the public client by a browser.
    pub(crate) async fn signed_in(&self) -> SignedIn {
        let mut sign_in = self.public_sign_in();
        let request = sign_in.authorization("http://localhost:1", None);
        let callback = self.browser().go(request.url(), USER, "").await.address();
        let code = request.accept(callback.as_str()).unwrap();
        sign_in.redeem(&request, &code).await.unwrap()
    }

    /// The one budget of an application, as the relay counts it.
    fn ledger(&self, application: &Application) -> Ledger {
        let mailbox = match &application.grant {
            Grant::ClientCredentials => None,
            Grant::Delegated { mailbox, .. } => Some(mailbox.as_str()),
        };
        let name = Ledger::file_name(TENANT, &application.client_id, &application.scope, mailbox);
        Ledger::open(self.directory.path().join(name), &*self.clock)
    }
}

/// Whose refresh token it is in the vault.
pub(crate) fn vault_name() -> VaultName {
    let (tenant_id, client_id, mailbox) = (TENANT.to_owned(), PUBLIC_CLIENT.to_owned(), USER.to_owned());
    VaultName { tenant_id, client_id, mailbox }
}

/// A client as the relay builds it: own TLS configuration, no redirects, no proxy of the environment.
fn http() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    builder.redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
}

/// Why a sign-in, or what follows from it, failed at the endpoint.
pub(crate) fn refusal(result: Result<SignedIn, SignInError>) -> TokenFailure {
    match result.unwrap_err() {
        SignInError::Failed(failure) => *failure,
        other => panic!("{other:?}"),
    }
}
