//! `[tenant.NAME]`: how to get tokens, and where mail goes with them.

use std::net::IpAddr;

use forwarder::AddressFamily;

use crate::config::identity::{Authority, Cloud, Date, Directory, Guid, MetadataService};
use crate::config::place::{FilePath, HostName, Text};
use crate::config::proxy::ProxyUrl;
use crate::config::schema::{inner_table, section};
use crate::config::secret_reference::SecretReference;
use crate::config::value::{Count, choice};

choice! {
    /// How tokens are granted.
    pub enum Grant {
        /// To the application itself.
        built ClientCredentials = "client-credentials",
        /// To a user, by a refresh token from `xoauth2-relay login`.
        built Delegated = "delegated",
    }
}

impl Grant {
    /// What tokens are asked for in `cloud`.
    fn scope(self, cloud: Cloud) -> &'static str {
        match self {
            Self::ClientCredentials => cloud.scope(),
            Self::Delegated => cloud.delegated_scope(),
        }
    }
}

choice! {
    /// How an assertion is signed.
    pub enum Algorithm {
        /// RSA-PSS, with the certificate's SHA-256 thumbprint.
        built Ps256 = "PS256",
        /// RSA PKCS#1, with its SHA-1 thumbprint, for keys in hardware that cannot do the other.
        built Rs256 = "RS256",
    }
}

choice! {
    /// Which addresses of a host are used.
    pub enum Family {
        /// Both.
        built Any = "any",
        /// IPv4 only.
        built Ipv4 = "ipv4",
        /// IPv6 only.
        built Ipv6 = "ipv6",
    }
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::Any => Self::Any,
            Family::Ipv4 => Self::Ipv4,
            Family::Ipv6 => Self::Ipv6,
        }
    }
}

section! {
    /// A certificate that the application logs in with.
    pub struct CertificateCredential {
        /// The certificate in PEM, as uploaded to the application.
        built certificate: FilePath;
        /// Its private key in PEM.
        built key: SecretReference;
        /// How assertions are signed.
        built algorithm: Algorithm = Algorithm::Ps256;
    }
}

inner_table!(CertificateCredential);

section! {
    /// A managed identity of Azure that vouches for the application.
    pub struct ManagedIdentity {
        /// Which one, where the machine has several user-assigned identities.
        built client_id ? Guid;
        /// Where it is asked: the machine's own metadata service; another only for tests on loopback.
        built endpoint: MetadataService = MetadataService::azure();
    }
}

inner_table!(ManagedIdentity);

section! {
    /// Where mail goes.
    pub struct SmtpEndpoint {
        /// Host name, as in its certificate.
        built host ? HostName;
        /// Port; STARTTLS is always used.
        built port: Count<1, 65_535> = Count::new(587);
        /// The only CA certificates trusted for it, in PEM.
        built ca_file ? FilePath;
    }
}

inner_table!(SmtpEndpoint);

section! {
    /// One application registration in one Entra tenant. It has exactly one credential: `client_secret`,
    /// `certificate_credential`, `federated_token` or `managed_identity`; only a delegated public client has none.
    pub struct Tenant {
        /// The tenant's GUID or one of its verified domains (Entra admin center, Overview); `consumers` for personal accounts, with `grant = "delegated"` only.
        built tenant_id: Directory;
        /// The application's GUID (App registrations, Application (client) ID).
        built client_id: Guid;
        /// Which of Microsoft's clouds: decides authority, scope and SMTP host.
        built cloud: Cloud = Cloud::Global;
        /// How tokens are granted.
        built grant: Grant = Grant::ClientCredentials;
        /// Where the application's secret is: its Value, not its ID.
        built client_secret ? SecretReference;
        /// A certificate instead of a secret.
        built certificate_credential ? CertificateCredential;
        /// A token file of a workload identity instead of a secret, read anew at each use.
        built federated_token ? SecretReference;
        /// A managed identity of Azure instead of a secret.
        built managed_identity ? ManagedIdentity;
        /// The last day of the secret; warned of 30, 7 and 1 days before. A certificate's own date is read.
        built client_secret_expires ? Date;
        /// Your own domains: bounces go only to these, those for anyone else's address go to the postmaster. Empty: those of the
        /// tenant's mailboxes.
        built internal_domains: Vec<mail::Domain> = Vec::new();
        /// The tenant's limit of external recipients (TERRL) to stay under, over 24 hours; 0: not counted.
        built external_recipients_per_day: Count<0, 1_000_000_000> = Count::new(0);
        /// Where tokens come from: the token endpoint is `{authority}/{tenant_id}/oauth2/v2.0/token`.
        built authority: Authority => cloud.authority(), "by `cloud`";
        /// The only CA certificates trusted for the authority, in PEM.
        built authority_ca_file ? FilePath;
        /// What a token is for.
        built scope: Text => Text::known(grant.scope(cloud)), "by `cloud` and `grant`";
        /// Where mail goes.
        built smtp: SmtpEndpoint => SmtpEndpoint::of(cloud), "by `cloud`, port 587";
        /// Which addresses of the SMTP host, or of its proxy, are used.
        built address_family: Family = Family::Any;
        /// The address that SMTP connections come from; only addresses of its family are used. This machine must have it.
        built source_address ? IpAddr;
        /// A proxy for the token endpoint, by CONNECT; its user and password in the environment only (operation, Proxies).
        built https_proxy ? ProxyUrl => None, "`HTTPS_PROXY`, unless `NO_PROXY` names the host";
        /// A proxy for SMTP connections, by CONNECT; it resolves the SMTP host's name. User and password as above.
        built smtp_proxy ? ProxyUrl;
    }
}

impl SmtpEndpoint {
    fn of(cloud: Cloud) -> Self {
        Self { host: Some(HostName::known(cloud.smtp_host())), port: Count::new(587), ca_file: None }
    }
}

impl Tenant {
    /// Fills in what a table written in part leaves to the cloud.
    pub(crate) fn complete(mut self) -> Self {
        self.smtp.host.get_or_insert_with(|| HostName::known(self.cloud.smtp_host()));
        self
    }

    /// Where mail goes.
    pub fn smtp_host(&self) -> &str {
        self.smtp.host.as_ref().map_or(self.cloud.smtp_host(), HostName::as_str)
    }

    /// The keys of the credentials that are given.
    pub(crate) fn credentials(&self) -> Vec<&'static str> {
        let given = [
            ("client_secret", self.client_secret.is_some()),
            ("certificate_credential", self.certificate_credential.is_some()),
            ("federated_token", self.federated_token.is_some()),
            ("managed_identity", self.managed_identity.is_some()),
        ];
        given.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name).collect()
    }
}
