//! Carrying orders out on a running sandbox, with an answer for a person. It changes nothing that the sandbox's own
//! methods could not.

use std::time::Duration;

use super::{MailboxOrder, Order, help, picture};
use crate::{
    Grant, Limits, Mailbox, RateMode, Sandbox, SandboxError, SharedLogin, SmtpAuth, Target, TenantModel, catalogue,
    unproven,
};

impl Sandbox {
    /// Does what is ordered and tells it. Nothing was changed if it fails.
    pub fn obey(&self, order: &Order) -> Result<String, SandboxError> {
        Ok(match order {
            Order::Fault(fault) => {
                self.check_target(&fault.target)?;
                self.inject(fault.clone())?;
                format!("waits {fault}")
            }
            Order::Faults(word) => listed(word.as_deref()),
            Order::Waiting => {
                let faults: Vec<String> = self.waiting_faults().iter().map(ToString::to_string).collect();
                if faults.is_empty() { "no fault waits".to_owned() } else { faults.join("\n") }
            }
            Order::Clear => {
                self.clear_faults();
                "no fault waits; one that has struck is over, and its mail goes out at the relay's next try".to_owned()
            }
            Order::Mailbox { address, change } => self.obey_about_mailbox(address, change)?,
            Order::TenantSmtpAuth { on, tenant } => {
                let tenant = self.tenant_or_first(tenant.as_deref())?;
                self.set_tenant_smtp_auth_disabled(&tenant, !on)?;
                self.at_login(format!("SMTP AUTH is {} for tenant {tenant}", on_off(*on)))
            }
            Order::Role { on, client } => {
                let client = self.client_or_first(client.as_deref())?;
                self.set_send_as_app(&client, *on)?;
                format!(
                    "SMTP.SendAsApp is {} for application {client}; tokens already issued stay as they are (logged-in \
                     sessions go on; the next login with a new token meets it)",
                    on_off(*on)
                )
            }
            Order::Secret { value, client } => {
                let client = self.client_or_first(client.as_deref())?;
                self.rotate_secret(&client, &value.0)?;
                format!("application {client} has the new secret and no other")
            }
            Order::Public { .. }
            | Order::Devices
            | Order::ApproveDevice { .. }
            | Order::DeclineDevice(_)
            | Order::Browser(_)
            | Order::SharedLogin(_)
            | Order::Revoke(_) => self.obey_about_sign_ins(order)?,
            Order::Lifetime(lifetime) => {
                self.change_conditions(|conditions| conditions.token_lifetime = *lifetime);
                format!("new tokens live {}", picture::lifetime(*lifetime))
            }
            Order::Tarpit(tarpit) => {
                self.change_conditions(|conditions| conditions.tarpit = *tarpit);
                format!("every 5xx comes {} s late", tarpit.as_secs_f64())
            }
            Order::Rate(rate) => {
                self.change_conditions(|conditions| conditions.rate = *rate);
                match rate {
                    RateMode::Reject => "beyond 30 messages a minute MAIL gets a 421".to_owned(),
                    RateMode::Delay => "beyond 30 messages a minute MAIL waits".to_owned(),
                }
            }
            Order::Limits(limits) => {
                self.change_conditions(|conditions| conditions.limits = *limits);
                match limits {
                    Limits::Exchange => "rates and quotas apply".to_owned(),
                    Limits::Off => "rates and quotas do not apply".to_owned(),
                }
            }
            Order::PermissionDelay(delay) => {
                self.change_conditions(|conditions| conditions.permission_delay = *delay);
                match *delay {
                    Duration::ZERO => "every change of permissions is in effect".to_owned(),
                    delay => format!("changes of permissions take effect {} s later", delay.as_secs_f64()),
                }
            }
            Order::State => picture::of(self),
            Order::Unproven => unproven::list(),
            Order::Help => help(),
        })
    }

    fn obey_about_sign_ins(&self, order: &Order) -> Result<String, SandboxError> {
        Ok(match order {
            Order::Public { on, client } => {
                let client = self.client_or_first(client.as_deref())?;
                self.set_public_client(&client, *on)?;
                format!("public client flows are {} for application {client}", on_off(*on))
            }
            Order::ApproveDevice { code, user } => {
                let user = self.user_or_first(user.as_deref())?;
                self.approve_device(code, &user)?;
                format!("the device with {code} is signed in as {user}")
            }
            Order::DeclineDevice(code) => {
                self.decline_device(code)?;
                format!("the device with {code} is declined")
            }
            Order::Browser(Some(user)) => {
                let tenants = self.tenants();
                let found = tenants.iter().find_map(|tenant| tenant.find_user(user));
                let user = found.ok_or_else(|| SandboxError::UnknownUser(user.clone()))?;
                self.change_conditions(|conditions| conditions.browser_user = Some(user.to_owned()));
                format!("whoever comes by a browser is signed in as {user}")
            }
            Order::Browser(None) => {
                self.change_conditions(|conditions| conditions.browser_user = None);
                "whoever comes by a browser picks a user".to_owned()
            }
            Order::SharedLogin(shared) => {
                self.change_conditions(|conditions| conditions.shared_login = *shared);
                match shared {
                    SharedLogin::Mailbox => "a delegate names the shared mailbox at AUTH".to_owned(),
                    SharedLogin::Delegate => "a delegate names himself at AUTH".to_owned(),
                }
            }
            Order::Revoke(user) => {
                let died = self.revoke_sign_ins(user)?;
                format!("every sign-in of {user} has ended; {died} refresh tokens died, access tokens stay good")
            }
            // What is left of those that the caller chose.
            _ => {
                let codes = self.waiting_devices();
                if codes.is_empty() { "no device waits".to_owned() } else { codes.join("\n") }
            }
        })
    }

    fn obey_about_mailbox(&self, address: &str, change: &MailboxOrder) -> Result<String, SandboxError> {
        Ok(match change {
            MailboxOrder::Add => {
                self.add_new_mailbox(address)?;
                self.late(format!("{address} is there, granted to nobody; `mailbox {address} grant rbac` grants it"))
            }
            MailboxOrder::Full(full) => {
                self.set_mailbox_full(address, *full)?;
                format!("{address} is {}", if *full { "full" } else { "not full" })
            }
            MailboxOrder::SmtpAuth(smtp_auth) => {
                self.set_mailbox_smtp_auth(address, *smtp_auth)?;
                self.at_login(match smtp_auth {
                    SmtpAuth::Inherit => format!("the tenant's switch decides on SMTP AUTH for {address}"),
                    SmtpAuth::Enabled => format!("SMTP AUTH is on for {address}"),
                    SmtpAuth::Disabled => format!("SMTP AUTH is off for {address}"),
                })
            }
            MailboxOrder::Grant(grant) => {
                self.grant_only(address, *grant)?;
                self.at_login(match grant {
                    None => format!("no application may use {address}"),
                    Some(Grant::Rbac) => format!("applications without SMTP.SendAsApp may use {address}"),
                    Some(Grant::FullAccess) => {
                        format!("applications with SMTP.SendAsApp may use {address}; `role on` gives them that")
                    }
                })
            }
            MailboxOrder::Shared(shared) => {
                self.set_mailbox_shared(address, *shared)?;
                self.late(format!(
                    "{address} is {}",
                    if *shared { "shared: nobody signs in as it" } else { "a user's own" }
                ))
            }
            MailboxOrder::Delegate(user) => {
                self.add_delegate(address, user)?;
                self.late(format!("{user} has full access to {address}"))
            }
            MailboxOrder::Alias(other) => {
                self.add_alias(address, other)?;
                self.late(format!("{address} has the address {other}"))
            }
            MailboxOrder::SendAs(other) => {
                self.allow_send_as(address, other)?;
                self.late(format!("{address} may send as {other}"))
            }
        })
    }

    fn add_new_mailbox(&self, address: &str) -> Result<(), SandboxError> {
        let tenants = self.tenants();
        let mut mailboxes = tenants.iter().flat_map(|tenant| &tenant.mailboxes);
        if mailboxes.any(|mailbox| mailbox.address.eq_ignore_ascii_case(address)) {
            return Err(SandboxError::MailboxExists(address.to_owned()));
        }
        let domain = address.rsplit('@').next().unwrap_or_default();
        self.add_mailbox(domain, Mailbox::new(address))
    }

    /// Grants a mailbox to every application of its tenant by this path and no other.
    fn grant_only(&self, address: &str, grant: Option<Grant>) -> Result<(), SandboxError> {
        let tenants = self.tenants();
        let is_its = |mailbox: &Mailbox| mailbox.address.eq_ignore_ascii_case(address);
        let tenant = tenants.iter().find(|tenant| tenant.mailboxes.iter().any(is_its));
        let clients = tenant.map(|tenant| tenant.applications.as_slice()).unwrap_or_default();
        self.change_mailbox(address, |mailbox| {
            let granted = |grant| clients.iter().map(move |client| (client.client_id.to_ascii_lowercase(), grant));
            mailbox.grants = grant.map(granted).into_iter().flatten().collect();
        })
    }

    /// Fails for one who is not there: a fault for him would never strike.
    fn check_target(&self, target: &Target) -> Result<(), SandboxError> {
        let tenants = self.tenants();
        match target {
            Target::Anyone => Ok(()),
            Target::Mailbox(address) => {
                let mut mailboxes = tenants.iter().flat_map(|tenant| &tenant.mailboxes);
                let is_there = mailboxes.any(|mailbox| mailbox.address.eq_ignore_ascii_case(address));
                is_there.then_some(()).ok_or_else(|| SandboxError::UnknownMailbox(address.clone()))
            }
            Target::Client(client) => {
                let has_identity = |tenant: &TenantModel| {
                    tenant.managed_identities.iter().any(|identity| identity.client_id.eq_ignore_ascii_case(client))
                };
                let has_it = |tenant: &TenantModel| tenant.find_application(client).is_some() || has_identity(tenant);
                let is_there = tenants.iter().any(has_it);
                is_there.then_some(()).ok_or_else(|| SandboxError::UnknownApplication(client.clone()))
            }
        }
    }

    fn tenant_or_first(&self, tenant: Option<&str>) -> Result<String, SandboxError> {
        let first = || self.tenants().first().map(|tenant| tenant.tenant_id.clone());
        tenant.map(str::to_owned).or_else(first).ok_or_else(|| SandboxError::UnknownTenant(String::new()))
    }

    fn client_or_first(&self, client: Option<&str>) -> Result<String, SandboxError> {
        let first = || Some(self.tenants().first()?.applications.first()?.client_id.clone());
        client.map(str::to_owned).or_else(first).ok_or_else(|| SandboxError::UnknownApplication(String::new()))
    }

    fn user_or_first(&self, user: Option<&str>) -> Result<String, SandboxError> {
        let first = || self.tenants().first()?.people().next().map(str::to_owned);
        user.map(str::to_owned).or_else(first).ok_or_else(|| SandboxError::UnknownUser(String::new()))
    }

    /// Adds when it takes effect, if that is not now.
    fn late(&self, text: String) -> String {
        match self.conditions().permission_delay {
            Duration::ZERO => text,
            delay => format!("{text} (logins notice it after {} s)", delay.as_secs_f64()),
        }
    }

    /// Adds who notices it, of what is looked at only when somebody logs in.
    fn at_login(&self, text: String) -> String {
        let when = match self.conditions().permission_delay {
            Duration::ZERO => "the next login meets it".to_owned(),
            delay => format!("logins notice it after {} s", delay.as_secs_f64()),
        };
        text + &format!(" (logged-in sessions go on; {when})")
    }
}

fn listed(word: Option<&str>) -> String {
    let word = word.unwrap_or_default().to_ascii_lowercase();
    let rows: Vec<String> =
        catalogue::all().map(ToString::to_string).filter(|row| row.to_ascii_lowercase().contains(&word)).collect();
    if rows.is_empty() { format!("no fault has `{word}` in its name or text") } else { rows.join("\n") }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
