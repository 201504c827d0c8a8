//! The tenant model: what an administrator would have set up in Entra and Exchange (facts 5), as plain values.
//! [`Directory`] holds all tenants and decides who may log in to which mailbox. Tokens are checked for form, signature
//! and time in `token`; limits are counted in `limits`.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::sasl::AuthRefusal;
use crate::token::{Claims, EXCHANGE_AUDIENCE};

/// Tenant id of the ready tenant.
pub const DEFAULT_TENANT_ID: &str = "11111111-2222-3333-4444-555555555555";
/// Client id of the ready tenant's application.
pub const DEFAULT_CLIENT_ID: &str = "66666666-7777-8888-9999-000000000000";
/// Its client secret, in the form of Entra's. It opens nothing but a sandbox.
pub const DEFAULT_SECRET: &str = "sbx8Q~Only.For-The_Sandbox~Opens.Nothing";
/// The ready tenant's mailbox.
pub const DEFAULT_MAILBOX: &str = "scanner@contoso.com";
/// The Entra application permission of path A (facts 5.1), which then stands in the token's `roles`.
pub(crate) const SEND_AS_APP: &str = "SMTP.SendAsApp";

/// `Set-Mailbox -MaxSendSize`, default 35 MB (facts 2, marked U there).
const DEFAULT_MAX_SEND_SIZE: u64 = 35 << 20;
/// `Set-Mailbox -RecipientLimits`, default 500 (facts 2).
const DEFAULT_RECIPIENT_LIMIT: usize = 500;

/// One Entra tenant with its Exchange Online organisation.
#[derive(Clone, Debug)]
pub struct TenantModel {
    /// The tenant's GUID.
    pub tenant_id: String,
    /// Verified domains; the token endpoint takes each in place of the GUID (facts 4.1).
    pub domains: Vec<String>,
    /// `Set-TransportConfig -SmtpClientAuthenticationDisabled`: the tenant's switch (facts 5).
    pub smtp_auth_disabled: bool,
    /// Registered applications.
    pub applications: Vec<Application>,
    /// Mailboxes.
    pub mailboxes: Vec<Mailbox>,
    /// Addresses refused at RCPT with `550 5.1.1`, beside every `unknown@` of the verified domains.
    pub refused_recipients: HashSet<String>,
}

impl TenantModel {
    /// A tenant without applications and mailboxes.
    pub fn new(tenant_id: &str, domains: &[&str]) -> Self {
        Self {
            tenant_id: tenant_id.to_owned(),
            domains: domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
            smtp_auth_disabled: false,
            applications: Vec::new(),
            mailboxes: Vec::new(),
            refused_recipients: HashSet::new(),
        }
    }

    /// Adds an application.
    #[must_use]
    pub fn application(mut self, application: Application) -> Self {
        self.applications.push(application);
        self
    }

    /// Adds a mailbox.
    #[must_use]
    pub fn mailbox(mut self, mailbox: Mailbox) -> Self {
        self.mailboxes.push(mailbox);
        self
    }

    /// Refuses this recipient at RCPT.
    #[must_use]
    pub fn refuse_recipient(mut self, address: &str) -> Self {
        self.refused_recipients.insert(address.to_ascii_lowercase());
        self
    }

    /// True if `name` is the tenant's GUID or one of its domains.
    pub(crate) fn answers_to(&self, name: &str) -> bool {
        self.tenant_id.eq_ignore_ascii_case(name) || self.owns_domain(name)
    }

    pub(crate) fn find_application(&self, client_id: &str) -> Option<&Application> {
        self.applications.iter().find(|application| application.client_id.eq_ignore_ascii_case(client_id))
    }

    fn owns_domain(&self, domain: &str) -> bool {
        self.domains.iter().any(|own| own.eq_ignore_ascii_case(domain))
    }

    fn refuses(&self, address: &str) -> bool {
        let address = address.to_ascii_lowercase();
        let (local, domain) = address.rsplit_once('@').unwrap_or((&address, ""));
        self.owns_domain(domain) && local == "unknown" || self.refused_recipients.contains(&address)
    }
}

impl Default for TenantModel {
    /// contoso.onmicrosoft.com with one application on the preferred path B and the mailbox `scanner@contoso.com`.
    fn default() -> Self {
        Self::new(DEFAULT_TENANT_ID, &["contoso.onmicrosoft.com", "contoso.com"])
            .application(Application::new(DEFAULT_CLIENT_ID, DEFAULT_SECRET))
            .mailbox(Mailbox::new(DEFAULT_MAILBOX).granted(DEFAULT_CLIENT_ID, Grant::Rbac))
    }
}

/// An application registration with its service principal.
#[derive(Clone)]
pub struct Application {
    /// The application (client) id.
    pub client_id: String,
    /// Every secret that is valid now; several while one is rotated.
    pub secrets: Vec<String>,
    /// Consented application permissions, which become the token's `roles` claim. Empty on path B (facts 5.2).
    pub roles: Vec<String>,
}

impl Application {
    /// An application without Entra permissions, as path B wants it.
    pub fn new(client_id: &str, secret: &str) -> Self {
        Self { client_id: client_id.to_owned(), secrets: vec![secret.to_owned()], roles: Vec::new() }
    }

    /// With the consented permission `SMTP.SendAsApp`, as path A wants it (facts 5.1).
    #[must_use]
    pub fn with_send_as_app(mut self) -> Self {
        self.roles.push(SEND_AS_APP.to_owned());
        self
    }
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Application")
            .field("client_id", &self.client_id)
            .field("secrets", &self.secrets.len())
            .field("roles", &self.roles)
            .finish()
    }
}

/// How an application was given a mailbox. The two paths must not be mixed (facts 0, point 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// Path A: `Add-MailboxPermission -AccessRights FullAccess`. Counts only for a token with `SMTP.SendAsApp`.
    FullAccess,
    /// Path B: the mailbox lies in the scope of the role `Application SMTP.SendAsApp`. Counts only for a token
    /// without that role, since its presence triggers the check of the mailbox permission.
    Rbac,
}

/// `Set-CASMailbox -SmtpClientAuthenticationDisabled`: three states (facts 0, point 14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmtpAuth {
    /// `$null`: the tenant's switch decides.
    #[default]
    Inherit,
    /// `$false`: enabled, whatever the tenant says.
    Enabled,
    /// `$true`: disabled.
    Disabled,
}

/// A mailbox and what may be done with it.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// The primary address, which is the login.
    pub address: String,
    /// Which applications may log in, and how they were allowed to.
    pub grants: HashSet<(String, Grant)>,
    /// The mailbox's SMTP AUTH switch.
    pub smtp_auth: SmtpAuth,
    /// Other addresses that it may send as (`Add-RecipientPermission -AccessRights SendAs`).
    pub may_send_as: HashSet<String>,
    /// Largest message in octets, applied after DATA (facts 0, point 7).
    pub max_send_size: u64,
    /// Most recipients of a message.
    pub recipient_limit: usize,
    /// Full (Sent Items fills up): refuses at the end of DATA with `554 5.2.2`.
    pub full: bool,
}

impl Mailbox {
    /// A mailbox with Exchange's defaults, granted to nobody.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            grants: HashSet::new(),
            smtp_auth: SmtpAuth::Inherit,
            may_send_as: HashSet::new(),
            max_send_size: DEFAULT_MAX_SEND_SIZE,
            recipient_limit: DEFAULT_RECIPIENT_LIMIT,
            full: false,
        }
    }

    /// Grants the mailbox to an application.
    #[must_use]
    pub fn granted(mut self, client_id: &str, grant: Grant) -> Self {
        self.grants.insert((client_id.to_ascii_lowercase(), grant));
        self
    }

    /// Lets the mailbox send as another address.
    #[must_use]
    pub fn send_as(mut self, address: &str) -> Self {
        self.may_send_as.insert(address.to_ascii_lowercase());
        self
    }

    /// True if a message may be from `address`.
    pub(crate) fn may_be_from(&self, address: &str) -> bool {
        self.address.eq_ignore_ascii_case(address) || self.may_send_as.contains(&address.to_ascii_lowercase())
    }

    fn admits(&self, claims: &Claims) -> bool {
        let needed = if claims.roles.iter().any(|role| role == SEND_AS_APP) { Grant::FullAccess } else { Grant::Rbac };
        self.grants.contains(&(claims.appid.to_ascii_lowercase(), needed))
    }
}

/// All tenants, with an index from address to mailbox so that a login costs the same with 10,000 mailboxes.
pub(crate) struct Directory {
    tenants: Vec<TenantModel>,
    /// Lower-case address to (tenant, mailbox); rebuilt when a tenant was changed.
    index: HashMap<String, (usize, usize)>,
}

impl Directory {
    pub(crate) fn new(tenants: Vec<TenantModel>) -> Self {
        let mut directory = Self { tenants, index: HashMap::new() };
        directory.reindex();
        directory
    }

    pub(crate) fn tenant(&self, name: &str) -> Option<&TenantModel> {
        self.tenants.iter().find(|tenant| tenant.answers_to(name))
    }

    /// The application and its tenant, whichever tenant that is.
    pub(crate) fn application(&self, client_id: &str) -> Option<(&TenantModel, &Application)> {
        self.tenants.iter().find_map(|tenant| Some((tenant, tenant.find_application(client_id)?)))
    }

    pub(crate) fn mailbox(&self, address: &str) -> Option<(&TenantModel, &Mailbox)> {
        let &(tenant, mailbox) = self.index.get(&address.to_ascii_lowercase())?;
        let tenant = self.tenants.get(tenant)?;
        Some((tenant, tenant.mailboxes.get(mailbox)?))
    }

    pub(crate) fn change_tenant<T>(&mut self, name: &str, change: impl FnOnce(&mut TenantModel) -> T) -> Option<T> {
        let done = self.tenants.iter_mut().find(|tenant| tenant.answers_to(name)).map(change);
        self.reindex();
        done
    }

    pub(crate) fn change_mailbox<T>(&mut self, address: &str, change: impl FnOnce(&mut Mailbox) -> T) -> Option<T> {
        let &(tenant, mailbox) = self.index.get(&address.to_ascii_lowercase())?;
        let done = self.tenants.get_mut(tenant)?.mailboxes.get_mut(mailbox).map(change);
        self.reindex();
        done
    }

    pub(crate) fn change_application<T>(
        &mut self,
        client_id: &str,
        change: impl FnOnce(&mut Application) -> T,
    ) -> Option<T> {
        let mut applications = self.tenants.iter_mut().flat_map(|tenant| &mut tenant.applications);
        applications.find(|application| application.client_id.eq_ignore_ascii_case(client_id)).map(change)
    }

    pub(crate) fn refuses_recipient(&self, address: &str) -> bool {
        self.tenants.iter().any(|tenant| tenant.refuses(address))
    }

    /// Whether the bearer of a genuine token may log in as `user`; gives the mailbox's own spelling of its address.
    ///
    /// Exchange answers nearly every failure alike (facts 1.5), so the order shows only in the switches' texts: they
    /// are told to bearers of a token of the right tenant, and before the grant is looked at (order marked U).
    pub(crate) fn admit(&self, user: &str, claims: &Claims) -> Result<String, AuthRefusal> {
        if claims.aud != EXCHANGE_AUDIENCE {
            return Err(AuthRefusal::WrongAudience);
        }
        let (tenant, mailbox) = self.mailbox(user).ok_or(AuthRefusal::UnknownMailbox)?;
        if !tenant.tenant_id.eq_ignore_ascii_case(&claims.tid) {
            return Err(AuthRefusal::OtherTenant);
        }
        if tenant.find_application(&claims.appid).is_none() {
            return Err(AuthRefusal::UnknownApplication);
        }
        match mailbox.smtp_auth {
            SmtpAuth::Disabled => return Err(AuthRefusal::DisabledForMailbox),
            SmtpAuth::Inherit if tenant.smtp_auth_disabled => return Err(AuthRefusal::DisabledForTenant),
            SmtpAuth::Inherit | SmtpAuth::Enabled => {}
        }
        if mailbox.admits(claims) { Ok(mailbox.address.clone()) } else { Err(AuthRefusal::NotGranted) }
    }

    fn reindex(&mut self) {
        self.index.clear();
        for (t, tenant) in self.tenants.iter().enumerate() {
            for (m, mailbox) in tenant.mailboxes.iter().enumerate() {
                self.index.insert(mailbox.address.to_ascii_lowercase(), (t, m));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(roles: &[&str]) -> Claims {
        Claims {
            aud: EXCHANGE_AUDIENCE.to_owned(),
            tid: DEFAULT_TENANT_ID.to_owned(),
            appid: DEFAULT_CLIENT_ID.to_owned(),
            roles: roles.iter().map(|&role| role.to_owned()).collect(),
            nbf: 0,
            exp: i64::MAX,
        }
    }

    #[test]
    fn the_two_paths_do_not_mix() {
        let admit = |grant, roles: &[&str]| {
            let mailboxes = vec![Mailbox::new(DEFAULT_MAILBOX).granted(DEFAULT_CLIENT_ID, grant)];
            let tenant = TenantModel { mailboxes, ..TenantModel::default() };
            Directory::new(vec![tenant]).admit("Scanner@Contoso.com", &claims(roles))
        };
        assert_eq!(admit(Grant::Rbac, &[]).as_deref(), Ok(DEFAULT_MAILBOX));
        assert_eq!(admit(Grant::FullAccess, &[SEND_AS_APP]).as_deref(), Ok(DEFAULT_MAILBOX));
        assert_eq!(admit(Grant::Rbac, &[SEND_AS_APP]), Err(AuthRefusal::NotGranted));
        assert_eq!(admit(Grant::FullAccess, &[]), Err(AuthRefusal::NotGranted));
    }

    #[test]
    fn a_mailbox_switch_overrides_the_tenants() {
        let admit = |tenant_off, smtp_auth| {
            let mut tenant = TenantModel { smtp_auth_disabled: tenant_off, ..TenantModel::default() };
            tenant.mailboxes[0].smtp_auth = smtp_auth;
            Directory::new(vec![tenant]).admit(DEFAULT_MAILBOX, &claims(&[])).err()
        };
        assert_eq!(admit(true, SmtpAuth::Inherit), Some(AuthRefusal::DisabledForTenant));
        assert_eq!(admit(true, SmtpAuth::Enabled), None);
        assert_eq!(admit(false, SmtpAuth::Disabled), Some(AuthRefusal::DisabledForMailbox));
        assert_eq!(admit(false, SmtpAuth::Inherit), None);
    }

    #[test]
    fn a_secret_is_not_in_debug_output() {
        assert!(!format!("{:?}", TenantModel::default()).contains(DEFAULT_SECRET));
    }
}
