//! An application registration: how it proves itself to Entra and what it may ask for (facts 4.2 to 4.5), as plain
//! values. Whether a proof is good is `entra`'s.

use std::fmt;

use crate::ManagedIdentity;

/// The Entra application permission of path A (facts 5.1), which then stands in the token's `roles`.
pub(crate) const SEND_AS_APP: &str = "SMTP.SendAsApp";
/// The audience that Entra recommends for every federated identity credential (facts 4.4).
pub const TOKEN_EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";
/// The redirect URI of a desktop application; its port does not matter (facts 4.5).
const LOOPBACK: &str = "http://localhost";

/// An application registration with its service principal.
#[derive(Clone)]
pub struct Application {
    /// The application (client) id.
    pub client_id: String,
    /// Every secret that is valid now; several while one is rotated, none for a public client.
    pub secrets: Vec<String>,
    /// Secrets whose time is over: told with AADSTS7000222.
    pub expired_secrets: Vec<String>,
    /// Every registered certificate in DER, its public part only (facts 4.3).
    pub certificates: Vec<Vec<u8>>,
    /// Federated identity credentials: whose tokens prove this application (facts 4.4).
    pub federated: Vec<FederatedIdentity>,
    /// "Allow public client flows": it signs people in without a secret, and must not send one (facts 4.5).
    pub public_client: bool,
    /// Registered redirect URIs. The port of one on loopback does not matter. `http://localhost` by default.
    pub redirect_uris: Vec<String>,
    /// Consented application permissions, which become the token's `roles` claim. Empty on path B (facts 5.2).
    pub roles: Vec<String>,
}

impl Application {
    /// An application with a secret and without Entra permissions, as path B wants it.
    pub fn new(client_id: &str, secret: &str) -> Self {
        Self { secrets: vec![secret.to_owned()], ..Self::without_credential(client_id) }
    }

    /// An application that cannot prove itself yet.
    pub fn without_credential(client_id: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            secrets: Vec::new(),
            expired_secrets: Vec::new(),
            certificates: Vec::new(),
            federated: Vec::new(),
            public_client: false,
            redirect_uris: vec![LOOPBACK.to_owned()],
            roles: Vec::new(),
        }
    }

    /// With a registered certificate, in DER.
    #[must_use]
    pub fn with_certificate(mut self, der: Vec<u8>) -> Self {
        self.certificates.push(der);
        self
    }

    /// With a federated identity credential.
    #[must_use]
    pub fn with_federated(mut self, identity: FederatedIdentity) -> Self {
        self.federated.push(identity);
        self
    }

    /// With "Allow public client flows".
    #[must_use]
    pub fn public(mut self) -> Self {
        self.public_client = true;
        self
    }

    /// With the consented permission `SMTP.SendAsApp`, as path A wants it (facts 5.1).
    #[must_use]
    pub fn with_send_as_app(mut self) -> Self {
        self.roles.push(SEND_AS_APP.to_owned());
        self
    }

    /// Lets the time of every secret be over.
    pub fn expire_secrets(&mut self) {
        self.expired_secrets.append(&mut self.secrets);
    }

    /// True if people may be sent back to `uri`: one of the registered, whatever the port of one on loopback.
    pub(crate) fn may_redirect_to(&self, uri: &str) -> bool {
        self.redirect_uris.iter().any(|own| own == uri || loopback(own).is_some_and(|own| loopback(uri) == Some(own)))
    }
}

/// Host and path of a plain-HTTP URI on loopback; `None` for any other. No path and `/` are the same.
fn loopback(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    port.parse::<u16>().ok()?;
    matches!(host, "localhost" | "127.0.0.1").then_some((host, if path == "/" { "" } else { path }))
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("client_id", &self.client_id)
            .field("secrets", &self.secrets.len())
            .field("expired_secrets", &self.expired_secrets.len())
            .field("certificates", &self.certificates.len())
            .field("federated", &self.federated)
            .field("public_client", &self.public_client)
            .field("redirect_uris", &self.redirect_uris)
            .field("roles", &self.roles)
            .finish()
    }
}

/// A federated identity credential: a token of `issuer` for `subject` and `audience` proves the application. All three
/// are compared to the letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FederatedIdentity {
    /// `iss` of the external token.
    pub issuer: String,
    /// `sub` of the external token.
    pub subject: String,
    /// `aud` of the external token, mostly [`TOKEN_EXCHANGE_AUDIENCE`].
    pub audience: String,
}

impl FederatedIdentity {
    /// Trust in a workload of the issuer that [`Sandbox::workload_token`](crate::Sandbox::workload_token) plays.
    pub fn workload(subject: &str) -> Self {
        Self::new(crate::token::WORKLOAD_ISSUER, subject)
    }

    /// Trust in a managed identity of the tenant with this GUID.
    pub fn managed_identity(tenant_id: &str, identity: &ManagedIdentity) -> Self {
        Self::new(&crate::token::v2_issuer(tenant_id), &identity.object_id)
    }

    fn new(issuer: &str, subject: &str) -> Self {
        Self { issuer: issuer.to_owned(), subject: subject.to_owned(), audience: TOKEN_EXCHANGE_AUDIENCE.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_loopback_redirect_does_not_matter_and_everything_else_does() {
        let application = Application::without_credential("a");
        for (uri, expected) in [
            ("http://localhost", true),
            ("http://localhost/", true),
            ("http://localhost:1", true),
            ("http://localhost:65535/", true),
            ("http://localhost:1//", false),
            ("http://localhost:65536", false),
            ("http://localhost:x", false),
            ("http://localhost:1/callback", false),
            ("https://localhost:1", false),
            ("http://127.0.0.1:1", false),
            ("http://localhost.example", false),
            ("http://localhost@example.com", false),
            ("http://localhost:1@example.com/", false),
            ("http://localhost:1?x", false),
            ("", false),
        ] {
            assert_eq!(application.may_redirect_to(uri), expected, "{uri}");
        }
        let other = Application { redirect_uris: vec!["https://a.example/x".to_owned()], ..application };
        assert!(other.may_redirect_to("https://a.example/x"));
        assert!(!other.may_redirect_to("https://a.example:443/x"));
        assert!(!other.may_redirect_to("http://localhost"));
    }
}
