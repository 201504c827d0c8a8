//! The tenant model: what an administrator would have set up in Entra and Exchange (facts 5), as plain values.
//! All tenants together, and who may log in to which mailbox, are in `directory`; limits are counted in `limits`.

use std::collections::HashSet;

use crate::application::{Application, SEND_AS_APP};
use crate::token::{self, Claims};

/// Tenant id of the ready tenant.
pub const DEFAULT_TENANT_ID: &str = "11111111-2222-3333-4444-555555555555";
/// Client id of the ready tenant's application.
pub const DEFAULT_CLIENT_ID: &str = "66666666-7777-8888-9999-000000000000";
/// Its client secret, in the form of Entra's. It opens nothing but a sandbox.
pub const DEFAULT_SECRET: &str = "sbx8Q~Only.For-The_Sandbox~Opens.Nothing";
/// The ready tenant's mailbox.
pub const DEFAULT_MAILBOX: &str = "scanner@contoso.com";

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
    /// `Set-OrganizationConfig -SendFromAliasEnabled`: recipients see the alias that a message is from, not the primary
    /// address (facts 5.3).
    pub send_from_alias: bool,
    /// Registered applications.
    pub applications: Vec<Application>,
    /// Mailboxes.
    pub mailboxes: Vec<Mailbox>,
    /// People who can sign in and have no mailbox of their own. Every mailbox that is not shared is a user, too.
    pub users: Vec<User>,
    /// Managed identities of the machine that asks the metadata service (facts 4.4).
    pub managed_identities: Vec<ManagedIdentity>,
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
            send_from_alias: false,
            applications: Vec::new(),
            mailboxes: Vec::new(),
            users: Vec::new(),
            managed_identities: Vec::new(),
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

    /// Lets recipients see aliases.
    #[must_use]
    pub fn with_send_from_alias(mut self) -> Self {
        self.send_from_alias = true;
        self
    }

    /// Adds a user without a mailbox.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// Adds a managed identity.
    #[must_use]
    pub fn managed_identity(mut self, identity: ManagedIdentity) -> Self {
        self.managed_identities.push(identity);
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

    /// Everybody who can sign in: the owners of mailboxes that are not shared, then the users without one.
    pub(crate) fn people(&self) -> impl Iterator<Item = &str> {
        let owners = self.mailboxes.iter().filter(|mailbox| !mailbox.shared).map(|mailbox| mailbox.address.as_str());
        owners.chain(self.users.iter().map(|user| user.address.as_str()))
    }

    /// The user of this name in the tenant's own spelling.
    pub(crate) fn find_user(&self, name: &str) -> Option<&str> {
        self.people().find(|user| user.eq_ignore_ascii_case(name))
    }

    /// True if logins and senders are judged alike by both: same mailboxes, grants, switches and applications.
    pub(crate) fn permits_like(&self, other: &Self) -> bool {
        let ids = |tenant: &Self| tenant.applications.iter().map(|app| app.client_id.clone()).collect::<Vec<_>>();
        self.tenant_id == other.tenant_id
            && self.smtp_auth_disabled == other.smtp_auth_disabled
            && ids(self) == ids(other)
            && self.users == other.users
            && self.mailboxes.len() == other.mailboxes.len()
            && self.mailboxes.iter().zip(&other.mailboxes).all(|(mailbox, other)| mailbox.permits_like(other))
    }

    fn owns_domain(&self, domain: &str) -> bool {
        self.domains.iter().any(|own| own.eq_ignore_ascii_case(domain))
    }

    pub(crate) fn refuses(&self, address: &str) -> bool {
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

/// Somebody who can sign in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// The user principal name.
    pub address: String,
}

impl User {
    /// A user of this name.
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned() }
    }
}

/// A managed identity: a service principal without a secret, for which Azure's metadata service gives tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ManagedIdentity {
    /// Its client id.
    pub client_id: String,
    /// Its principal (object) id: the `sub` of its tokens, and the subject of a federated identity for it.
    pub object_id: String,
}

impl ManagedIdentity {
    /// An identity with a principal id of its own.
    pub fn new(client_id: &str) -> Self {
        Self { client_id: client_id.to_owned(), object_id: token::guid() }
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
    /// A shared mailbox: nobody signs in as it, only as one of those with full access.
    pub shared: bool,
    /// Users with `Add-MailboxPermission -AccessRights FullAccess`, whose delegated tokens open it (facts 4.5).
    pub full_access: HashSet<String>,
    /// Its other addresses (`Set-Mailbox -EmailAddresses`). Nobody logs in by one of them.
    pub aliases: HashSet<String>,
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
            shared: false,
            full_access: HashSet::new(),
            aliases: HashSet::new(),
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

    /// Makes it a shared mailbox.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Gives a user full access.
    #[must_use]
    pub fn delegate(mut self, user: &str) -> Self {
        self.full_access.insert(user.to_ascii_lowercase());
        self
    }

    /// Gives it another address.
    #[must_use]
    pub fn alias(mut self, address: &str) -> Self {
        self.aliases.insert(address.to_ascii_lowercase());
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
        let lower = address.to_ascii_lowercase();
        self.address.eq_ignore_ascii_case(address) || self.may_send_as.contains(&lower) || self.aliases.contains(&lower)
    }

    /// The address that recipients see when a message is from `address`.
    pub(crate) fn shown<'a>(&'a self, address: &'a str, send_from_alias: bool) -> &'a str {
        let lower = address.to_ascii_lowercase();
        let is_alias = self.aliases.contains(&lower) && !self.may_send_as.contains(&lower);
        if is_alias && !send_from_alias { &self.address } else { address }
    }

    fn permits_like(&self, other: &Self) -> bool {
        self.address == other.address
            && self.grants == other.grants
            && self.smtp_auth == other.smtp_auth
            && self.shared == other.shared
            && self.full_access == other.full_access
            && self.may_send_as == other.may_send_as
            && self.aliases == other.aliases
    }

    /// True if `user` has full access to it, as its owner or as a delegate.
    pub(crate) fn is_open_to(&self, user: &str) -> bool {
        let is_owner = !self.shared && self.address.eq_ignore_ascii_case(user);
        is_owner || self.full_access.contains(&user.to_ascii_lowercase())
    }

    /// True if it is granted to the application whose app-only token this is.
    pub(crate) fn admits(&self, claims: &Claims) -> bool {
        let needed = if claims.roles.iter().any(|role| role == SEND_AS_APP) { Grant::FullAccess } else { Grant::Rbac };
        self.grants.contains(&(claims.appid.to_ascii_lowercase(), needed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_in_debug_output() {
        assert!(!format!("{:?}", TenantModel::default()).contains(DEFAULT_SECRET));
    }
}
