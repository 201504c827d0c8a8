//! An application registration as the token manager wants it: made from a tenant of the configuration, with the HTTP client
//! that reaches its endpoints and the places of its files.
//!
//! It asks for nothing; who does has one of these.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clock::Clock;
use mail::LaneId;
use token_manager::{
    Algorithm, Application, BadCertificate, Credential, Endpoints, Grant, Kinship, Ledger, ManagedIdentity,
    MemoryLedger, SecretSource, SigningCertificate, Vault, VaultError, VaultName,
};

use crate::config::{self, FilePath, SecretReference, Tenant};
use crate::secret::ReferencedSecret;
use crate::tls::{CaFileError, Trust};

/// Where refresh tokens rest, in the state directory.
const REFRESH_TOKENS: &str = "refresh-tokens";

/// One application registration.
#[derive(Clone)]
pub(crate) struct Registration {
    application: Application,
    http: reqwest::Client,
    ledgers: Arc<Ledgers>,
}

/// The records of token requests, one for each budget of Entra ID's: whoever asks within the same has the same.
pub(crate) enum Ledgers {
    /// Files of the state directory: they outlive the process, and other processes count in them.
    OnDisk(PathBuf),
    /// By the name that the file would have; as many as applications were configured since the start.
    InMemory(Mutex<BTreeMap<String, MemoryLedger>>),
}

impl Ledgers {
    /// Those in `state_directory`; in memory without one.
    pub(crate) fn new(state_directory: Option<&Path>) -> Self {
        state_directory.map_or_else(|| Self::InMemory(Mutex::default()), |directory| Self::OnDisk(directory.to_owned()))
    }

    fn open(&self, name: String, clock: &dyn Clock) -> Ledger {
        match self {
            Self::OnDisk(directory) => Ledger::open(directory.join(name), clock),
            Self::InMemory(ledgers) => {
                ledgers.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().ledger()
            }
        }
    }
}

impl Registration {
    /// That of the tenant called `name`.
    pub(crate) fn new(name: &str, tenant: &Tenant, ledgers: &Arc<Ledgers>, trust: &Trust) -> Result<Self, CaFileError> {
        let tls = trust.client(tenant.authority_ca_file.as_ref().map(FilePath::as_path))?;
        let proxy = tenant.https_proxy.as_ref();
        let http = proxy.into_iter().fold(client(&tls), |http, proxy| http.proxy(proxy.for_https()));
        let application = Application {
            name: name.to_owned(),
            tenant_id: tenant.tenant_id.as_str().to_owned(),
            client_id: tenant.client_id.as_str().to_owned(),
            endpoints: Endpoints::of(&tenant.authority.0, tenant.tenant_id.as_str()),
            proxy: proxy.map(ToString::to_string),
            scope: tenant.scope.as_str().to_owned(),
            credential: credential(name, tenant, &tls),
            secret_expires: tenant.client_secret_expires.as_ref().and_then(config::Date::end),
            grant: Grant::ClientCredentials,
            kinship: Kinship::default(),
        };
        Ok(Self { application, http: built(http), ledgers: Arc::clone(ledgers) })
    }

    /// The client that reaches its endpoints.
    pub(crate) fn http(&self) -> reqwest::Client {
        self.http.clone()
    }

    /// The application, for its own tokens.
    pub(crate) fn application(&self) -> Application {
        self.application.clone()
    }

    /// The same for those of the user who signed in for the mailbox called `mailbox`, whose lane is `lane`.
    pub(crate) fn delegated(&self, mailbox: &str, lane: &LaneId, vault: &Arc<Vault>) -> Application {
        let grant =
            Grant::Delegated { vault: Arc::clone(vault), name: self.vault_name(lane), mailbox: mailbox.to_owned() };
        Application { grant, ..self.application.clone() }
    }

    /// Whose refresh token that of `lane` is.
    pub(crate) fn vault_name(&self, lane: &LaneId) -> VaultName {
        let Application { tenant_id, client_id, .. } = &self.application;
        VaultName { tenant_id: tenant_id.clone(), client_id: client_id.clone(), mailbox: lane.login().to_owned() }
    }

    /// The record of what it asked lately; by `lane` where users sign in, since Entra ID counts by user then.
    pub(crate) fn ledger(&self, lane: Option<&LaneId>, clock: &dyn Clock) -> Ledger {
        let Application { tenant_id, client_id, scope, .. } = &self.application;
        self.ledgers.open(Ledger::file_name(tenant_id, client_id, scope, lane.map(LaneId::login)), clock)
    }
}

/// The vault of refresh tokens in `state_directory`, encrypted with `vault.key` where there is one.
pub(crate) fn vault(state_directory: &Path, key: Option<&SecretReference>) -> Result<Arc<Vault>, VaultError> {
    let key = key.map(|key| source("vault.key", key));
    Vault::open(state_directory.join(REFRESH_TOKENS), key).map(Arc::new)
}

fn client(tls: &rustls::ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        // A redirect could carry the secret elsewhere.
        .redirect(reqwest::redirect::Policy::none())
        // What the configuration says, whatever the environment does.
        .no_proxy()
        .user_agent(concat!("xoauth2-relay/", env!("CARGO_PKG_VERSION")))
}

fn built(client: reqwest::ClientBuilder) -> reqwest::Client {
    client.build().expect("a client with these fixed options can always be built")
}

fn credential(name: &str, tenant: &Tenant, tls: &rustls::ClientConfig) -> Credential {
    let source = |key: &str, reference: &SecretReference| source(&format!("tenant.{name}.{key}"), reference);
    if let Some(secret) = &tenant.client_secret {
        return Credential::ClientSecret(source("client_secret", secret));
    }
    if let Some(given) = &tenant.certificate_credential {
        let certificate = SecretReference::File(given.certificate.as_path().to_owned());
        return Credential::Certificate {
            certificate: source("certificate_credential.certificate", &certificate),
            key: source("certificate_credential.key", &given.key),
            algorithm: match given.algorithm {
                config::Algorithm::Ps256 => Algorithm::Ps256,
                config::Algorithm::Rs256 => Algorithm::Rs256,
            },
        };
    }
    if let Some(token) = &tenant.federated_token {
        return Credential::FederatedToken(source("federated_token", token));
    }
    if let Some(given) = &tenant.managed_identity {
        let identity = ManagedIdentity {
            endpoint: given.endpoint.0.clone(),
            client_id: given.client_id.as_ref().map(|id| id.as_str().to_owned()),
            resource: tenant.cloud.token_exchange().to_owned(),
        };
        // The machine's own metadata service is never behind a proxy.
        return Credential::ManagedIdentity { identity, http: built(client(tls)) };
    }
    Credential::Public
}

/// What the tenant called `name` proves itself with and cannot be used as it is now, by its key, with the reason.
pub(crate) fn unusable(name: &str, tenant: &Tenant) -> Vec<(String, String)> {
    let referenced = |key: &str, reference: &SecretReference| {
        let key = format!("tenant.{name}.{key}");
        (ReferencedSecret::new(&key, reference.clone()), key)
    };
    let told = |secret: &ReferencedSecret, key: String, error: &dyn std::fmt::Display| {
        (key, format!("{}: {error}", secret.place()))
    };
    let mut wrong = Vec::new();
    for (key, secret) in [("client_secret", &tenant.client_secret), ("federated_token", &tenant.federated_token)] {
        let Some((secret, key)) = secret.as_ref().map(|secret| referenced(key, secret)) else { continue };
        wrong.extend(secret.read().err().map(|error| told(&secret, key, &error)));
    }
    if let Some(given) = &tenant.certificate_credential {
        let certificate = SecretReference::File(given.certificate.as_path().to_owned());
        let (certificate, certificate_key) = referenced("certificate_credential.certificate", &certificate);
        let (private, private_key) = referenced("certificate_credential.key", &given.key);
        match (certificate.text(), private.text()) {
            (Ok(chain), Ok(text)) => match SigningCertificate::from_pem(&chain, &text) {
                Ok(_) => {}
                Err(error) if is_of_key(&error) => wrong.push(told(&private, private_key, &error)),
                Err(error) => wrong.push(told(&certificate, certificate_key, &error)),
            },
            (chain, text) => {
                wrong.extend(chain.err().map(|error| told(&certificate, certificate_key, &error)));
                wrong.extend(text.err().map(|error| told(&private, private_key, &error)));
            }
        }
    }
    wrong
}

/// Whether the private key is at fault rather than the certificate.
fn is_of_key(error: &BadCertificate) -> bool {
    match error {
        BadCertificate::Missing { part, .. }
        | BadCertificate::NotRsa { part, .. }
        | BadCertificate::Size { part, .. }
        | BadCertificate::Broken { part, .. } => *part == "private key",
        BadCertificate::Encrypted | BadCertificate::Mismatch => true,
        BadCertificate::Order { .. } => false,
    }
}

/// What `key` of the configuration refers to.
fn source(key: &str, reference: &SecretReference) -> Arc<dyn SecretSource> {
    Arc::new(ReferencedSecret::new(key, reference.clone()))
}

#[cfg(test)]
mod tests {
    use clock::{ManualClock, WallTime};

    use super::*;

    #[test]
    fn without_a_state_directory_nothing_is_written_and_one_budget_is_one_record() {
        let clock = ManualClock::at(WallTime::from_unix_millis(1_800_000_000_000));
        let place = tempfile::tempdir().unwrap();
        let held = |ledgers: &Ledgers| match ledgers {
            Ledgers::OnDisk(_) => std::fs::read_dir(place.path()).unwrap().count(),
            Ledgers::InMemory(ledgers) => ledgers.lock().unwrap().len(),
        };
        let memory = Ledgers::new(None);
        for name in ["one", "one", "other"] {
            drop(memory.open(name.to_owned(), &clock));
        }
        assert_eq!(held(&memory), 2);
        let disk = Ledgers::new(Some(place.path()));
        assert_eq!(held(&disk), 0, "nothing was written before");
        drop(disk.open("one".to_owned(), &clock));
        assert!(held(&disk) > 0);
    }
}
