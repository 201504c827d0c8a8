//! All tenants of the simulated Microsoft 365, found by their names, and the decision who may log in to which mailbox.
//! Tokens are checked for form, signature and time in `token`; limits are counted in `limits`.

use std::collections::{HashMap, VecDeque};

use clock::Monotonic;

use crate::application::Application;
use crate::conditions::SharedLogin;
use crate::sasl::AuthRefusal;
use crate::tenant::{Mailbox, SmtpAuth, TenantModel};
use crate::token::{Claims, EXCHANGE_AUDIENCE, OUTLOOK_AUDIENCE};

/// The delegated permission of SMTP submission (facts 4.1).
const SMTP_SEND: &str = "SMTP.Send";
/// Changes that may be under way at the same time; with one more the oldest arrives early.
const STALE: usize = 64;

/// The tenants, with an index from address to mailbox so that a login costs the same with 10,000 mailboxes.
pub(crate) struct Directory {
    tenants: Vec<TenantModel>,
    /// Lower-case address to (tenant, mailbox); rebuilt when a tenant was changed.
    index: HashMap<String, (usize, usize)>,
    /// What it was before changes that have not arrived everywhere, oldest first. Their own are empty.
    stale: VecDeque<(Monotonic, Directory)>,
}

impl Directory {
    pub(crate) fn new(tenants: Vec<TenantModel>) -> Self {
        let mut directory = Self { tenants, index: HashMap::new(), stale: VecDeque::new() };
        directory.reindex();
        directory
    }

    /// What it is now, to be remembered after a change.
    pub(crate) fn past(&self) -> Self {
        Self { tenants: self.tenants.clone(), index: self.index.clone(), stale: VecDeque::new() }
    }

    /// Keeps `past` as what logins are judged by until `until`, if it permits anything else than now (facts 0, point 15).
    pub(crate) fn remember(&mut self, past: Self, now: Monotonic, until: Monotonic) {
        self.stale.retain(|&(until, _)| until > now);
        let is_same = self.tenants.len() == past.tenants.len()
            && self.tenants.iter().zip(&past.tenants).all(|(tenant, other)| tenant.permits_like(other));
        if is_same {
            return;
        }
        if self.stale.len() == STALE {
            self.stale.pop_front();
        }
        self.stale.push_back((until, past));
    }

    /// Lets every change be known everywhere.
    pub(crate) fn forget(&mut self) {
        self.stale.clear();
    }

    /// What logins and senders are judged by: what it was before the oldest change that has not arrived.
    pub(crate) fn as_seen(&self, now: Monotonic) -> &Self {
        self.stale.iter().find(|&&(until, _)| until > now).map_or(self, |(_, past)| past)
    }

    /// How many changes have not arrived everywhere.
    pub(crate) fn under_way(&self, now: Monotonic) -> usize {
        self.stale.iter().filter(|&&(until, _)| until > now).count()
    }

    pub(crate) fn tenants(&self) -> &[TenantModel] {
        &self.tenants
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

    /// The user and his tenant, in the tenant's own spelling.
    pub(crate) fn user(&self, name: &str) -> Option<(&TenantModel, &str)> {
        if let Some((tenant, mailbox)) = self.mailbox(name).filter(|(_, mailbox)| !mailbox.shared) {
            return Some((tenant, mailbox.address.as_str()));
        }
        let of =
            |tenant: &TenantModel, user: &str| tenant.users.iter().any(|own| own.address.eq_ignore_ascii_case(user));
        let tenant = self.tenants.iter().find(|tenant| of(tenant, name))?;
        Some((tenant, tenant.find_user(name)?))
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
    pub(crate) fn admit(&self, user: &str, claims: &Claims, shared: SharedLogin) -> Result<String, AuthRefusal> {
        let is_for_exchange = match claims.scp {
            None => claims.aud == EXCHANGE_AUDIENCE,
            Some(_) => claims.aud == EXCHANGE_AUDIENCE || claims.aud == OUTLOOK_AUDIENCE,
        };
        if !is_for_exchange {
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
        match &claims.scp {
            None if mailbox.admits(claims) => {}
            None => return Err(AuthRefusal::NotGranted),
            Some(scp) => self.admit_person(scp, claims.upn.as_deref().unwrap_or_default(), mailbox, shared)?,
        }
        Ok(mailbox.address.clone())
    }

    /// Whether a person's token opens the mailbox (facts 4.5).
    fn admit_person(&self, scp: &str, person: &str, mailbox: &Mailbox, shared: SharedLogin) -> Result<(), AuthRefusal> {
        if !scp.split(' ').any(|scope| scope == SMTP_SEND) {
            return Err(AuthRefusal::NoScope);
        }
        if self.user(person).is_none() || !mailbox.is_open_to(person) {
            return Err(AuthRefusal::NotTheUser);
        }
        let is_own = mailbox.address.eq_ignore_ascii_case(person);
        if shared == SharedLogin::Delegate && !is_own { Err(AuthRefusal::NotTheDelegate) } else { Ok(()) }
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
    use crate::application::SEND_AS_APP;
    use crate::tenant::{DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_TENANT_ID, Grant, User};

    fn claims(roles: &[&str]) -> Claims {
        Claims {
            aud: EXCHANGE_AUDIENCE.to_owned(),
            tid: DEFAULT_TENANT_ID.to_owned(),
            iss: String::new(),
            sub: String::new(),
            appid: DEFAULT_CLIENT_ID.to_owned(),
            scp: None,
            upn: None,
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
            Directory::new(vec![tenant]).admit("Scanner@Contoso.com", &claims(roles), SharedLogin::Mailbox)
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
            Directory::new(vec![tenant]).admit(DEFAULT_MAILBOX, &claims(&[]), SharedLogin::Mailbox).err()
        };
        assert_eq!(admit(true, SmtpAuth::Inherit), Some(AuthRefusal::DisabledForTenant));
        assert_eq!(admit(true, SmtpAuth::Enabled), None);
        assert_eq!(admit(false, SmtpAuth::Disabled), Some(AuthRefusal::DisabledForMailbox));
        assert_eq!(admit(false, SmtpAuth::Inherit), None);
    }

    #[test]
    fn a_person_opens_his_own_mailbox_and_those_he_has_full_access_to() {
        use AuthRefusal::{NoScope, NotTheDelegate, NotTheUser, UnknownMailbox};
        use SharedLogin::{Delegate, Mailbox as Shared};
        let tenant = TenantModel::default()
            .user(User::new("admin@contoso.com"))
            .mailbox(Mailbox::new("boss@contoso.com"))
            .mailbox(
                Mailbox::new("info@contoso.com").shared().delegate("Boss@contoso.com").delegate("admin@contoso.com"),
            );
        let directory = Directory::new(vec![tenant]);
        for (user, upn, scp, shared, expected) in [
            ("boss@contoso.com", "boss@contoso.com", "SMTP.Send", Shared, None),
            ("BOSS@contoso.com", "boss@contoso.com", "IMAP.AccessAsUser.All SMTP.Send", Shared, None),
            ("boss@contoso.com", "boss@contoso.com", "IMAP.AccessAsUser.All", Shared, Some(NoScope)),
            ("boss@contoso.com", "admin@contoso.com", "SMTP.Send", Shared, Some(NotTheUser)),
            ("admin@contoso.com", "admin@contoso.com", "SMTP.Send", Shared, Some(UnknownMailbox)),
            ("info@contoso.com", "boss@contoso.com", "SMTP.Send", Shared, None),
            ("info@contoso.com", "admin@contoso.com", "SMTP.Send", Shared, None),
            ("info@contoso.com", "scanner@contoso.com", "SMTP.Send", Shared, Some(NotTheUser)),
            ("info@contoso.com", "info@contoso.com", "SMTP.Send", Shared, Some(NotTheUser)),
            ("info@contoso.com", "gone@contoso.com", "SMTP.Send", Shared, Some(NotTheUser)),
            ("info@contoso.com", "boss@contoso.com", "SMTP.Send", Delegate, Some(NotTheDelegate)),
            ("boss@contoso.com", "boss@contoso.com", "SMTP.Send", Delegate, None),
        ] {
            for aud in [EXCHANGE_AUDIENCE, OUTLOOK_AUDIENCE] {
                let (aud, scp, upn) = (aud.to_owned(), Some(scp.to_owned()), Some(upn.to_owned()));
                let claims = Claims { aud, scp, upn, ..claims(&[]) };
                assert_eq!(directory.admit(user, &claims, shared).err(), expected, "{user} by {claims:?}");
            }
        }
    }
}
